"""Processing of large images in overlapping tiles, without visible seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from .errors import SettingError

Run = Callable[[Tensor, tuple[int, int]], Tensor]


def tiled(run: Run, image: Tensor, *, tile: int, halo: int, step: int = 1) -> Tensor:
    """Return run(image, (0, 0)), computed tile by tile.

    Every tile is passed to `run` with a margin of `halo` pixels on each side (less at the border of
    the image), and only its inner part is kept: if the halo covers the reach of `run`, the result
    equals that for the whole image.

    Args:
        run: called as run(piece (B, C, h, w), (row, col) of its first pixel) -> (B, D, h, w), with
            any number of channels D.
        image: (B, C, H, W).
        tile: side of the inner part in pixels; rounded up to a multiple of `step`.
        halo: margin in pixels; rounded up to a multiple of `step`.
        step: every piece starts at a multiple of this.

    Raises:
        SettingError: tile or step is not positive, or halo is negative.
    """
    if tile < 1 or halo < 0 or step < 1:
        raise SettingError(f"tile {tile}, halo {halo}, step {step}: positive numbers are needed")
    tile, halo = -(-tile // step) * step, -(-halo // step) * step
    height, width = image.shape[2:]
    if height <= tile + halo and width <= tile + halo:
        return run(image, (0, 0))
    result: Tensor | None = None
    for top, row, bottom, row_end in _spans(height, tile, halo):
        for left, col, right, col_end in _spans(width, tile, halo):
            piece = run(image[:, :, top:bottom, left:right], (top, left))
            if result is None:
                result = piece.new_empty((*piece.shape[:2], height, width))
            inner = piece[:, :, row - top : row_end - top, col - left : col_end - left]
            result[:, :, row:row_end, col:col_end] = inner
    assert result is not None
    return result


def _spans(length: int, tile: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first with halo, first, end with halo, end) of each tile along one side."""
    first = 0
    while first < length:
        end = first + tile
        if length - end <= halo:  # a narrow rest is joined to the last tile
            end = length
        yield max(first - halo, 0), first, min(end + halo, length), end
        first = end

"""Tiles: every pixel comes from exactly one, and no seam is left."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from masked_denoise.errors import SettingError
from masked_denoise.tiling import tiled

Origin = tuple[int, int]


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (37, 50), (64, 9), (100, 31)])
@pytest.mark.parametrize(("tile", "halo", "step"), [(8, 0, 1), (8, 4, 1), (10, 3, 4), (16, 16, 8)])
def test_pieces_start_where_they_must_and_cover_the_image(
    size: tuple[int, int], tile: int, halo: int, step: int
) -> None:
    image = torch.rand(2, 3, *size)
    pieces: list[tuple[Origin, torch.Size]] = []

    def run(piece: Tensor, origin: Origin) -> Tensor:
        row, col = origin
        pieces.append((origin, piece.shape))
        height, width = piece.shape[2:]
        assert torch.equal(piece, image[:, :, row : row + height, col : col + width])
        return piece + 1

    assert torch.equal(tiled(run, image, tile=tile, halo=halo, step=step), image + 1)
    assert all(row % step == 0 and col % step == 0 for (row, col), _ in pieces)
    longest = -(-tile // step) * step + 3 * -(-halo // step) * step
    assert all(max(shape[2:]) <= longest for _, shape in pieces)


@pytest.mark.parametrize("reach", [1, 3])
def test_a_halo_that_covers_the_reach_leaves_no_seam(reach: int) -> None:
    kernel = torch.rand(1, 1, 2 * reach + 1, 2 * reach + 1)

    def run(piece: Tensor, origin: Origin) -> Tensor:
        return F.conv2d(piece, kernel, padding=reach)

    image = torch.rand(1, 1, 45, 70)
    whole = run(image, (0, 0))
    same = tiled(run, image, tile=12, halo=reach)
    torch.testing.assert_close(same, whole)
    short = tiled(run, image, tile=12, halo=reach - 1)
    assert not torch.allclose(short, whole)


def test_an_image_of_one_tile_is_run_once() -> None:
    calls = []
    tiled(lambda x, origin: calls.append(origin) or x, torch.rand(1, 1, 20, 20), tile=16, halo=4)
    assert calls == [(0, 0)]


def test_no_sliver_is_left_at_the_end() -> None:
    widths = []

    def run(piece: Tensor, origin: Origin) -> Tensor:
        widths.append((origin[1], piece.shape[3]))
        return piece

    tiled(run, torch.rand(1, 1, 8, 66), tile=16, halo=8)
    assert widths == [(0, 24), (8, 32), (24, 32), (40, 26)]


@pytest.mark.parametrize("bad", [{"tile": 0}, {"halo": -1}, {"step": 0}])
def test_unusable_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="positive"):
        tiled(lambda x, origin: x, torch.rand(1, 1, 4, 4), **{"tile": 2, "halo": 0, **bad})

"""Inference: draws, branches, refinement and tiles, from a noisy batch to a clean one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .chroma import smooth_chroma
from .ops import merge_branches
from .pixels import PixelDownsample, outside
from .refine import refine, replacement
from .scheme import Key, MaskScheme, Purpose
from .tiling import tiled

if TYPE_CHECKING:
    from .denoiser import AsymmetricMaskDenoiser

HALO = 64  # pixels of a sub-image around each tile: the reach of the built-in U-Nets
TILE = 1024  # side of a tile in pixels of the image
TURNS = (0, 2, 5, 7, 1, 3, 4, 6)  # quarter turns, + 4 for mirrored: in this order over the passes


@torch.no_grad()  # not inference_mode: what comes back may be used in training
def denoise_batch(
    denoiser: AsymmetricMaskDenoiser,
    image: Tensor,
    *,
    passes: int,
    seed: int,
    tile: int = TILE,
    bad: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Return the denoised batch: branches of all passes, refinement, chroma, own pixel.

    Args:
        denoiser: in evaluation mode.
        image: (B, C, H, W) float on the 0..1 scale, finite.
        passes: number of mask draws to average.
        seed: of the masks.
        tile: side of the tiles of large images, in pixels.
        bad: bool (B, 1, H, W), pixels without a value: no branch sees them; or None.
        strength: 1 for the full effect, 0 for the noisy image (but for its bad pixels).
    """

    def run(piece: Tensor, origin: tuple[int, int]) -> Tensor:
        (row, col), (height, width) = origin, piece.shape[2:]
        gone = None if bad is None else bad[:, :, row : row + height, col : col + width]
        return _denoise_piece(denoiser, piece, gone, origin, passes, seed)

    step = denoiser.stride * denoiser.traits.size_multiple
    halo = HALO * (denoiser.stride + (denoiser.refinement is not None))
    clean = tiled(run, image, tile=tile, halo=halo, step=step)
    colour = image.shape[1] == 3
    if denoiser.chroma_radius and colour:
        clean = smooth_chroma(clean, radius=denoiser.chroma_radius)
    back = denoiser.observation * (image - clean)
    back = back.mean(1, keepdim=True) if colour else back
    mixed = torch.lerp(image, clean + back, strength)
    return mixed if bad is None else torch.where(bad, clean, mixed)


def _denoise_piece(
    denoiser: AsymmetricMaskDenoiser,
    image: Tensor,
    bad: Tensor | None,
    origin: tuple[int, int],
    passes: int,
    seed: int,
) -> Tensor:
    """Return the mean of `passes` draws over one tile, refined if so set."""
    scheme = denoiser.scheme.inference or denoiser.scheme
    total = torch.zeros_like(image)
    for draw in range(passes):
        turn = TURNS[draw % len(TURNS)] if denoiser.turns else 0
        key = Key(seed, Purpose.INFER, draw)
        total += run_all(denoiser, image, bad, scheme, denoiser.stride, key, origin, turn)
    denoised = total / passes
    settings = denoiser.refinement
    if settings is None:
        return denoised
    size = (image.shape[2], image.shape[3])
    keys = [Key(seed, Purpose.REFINE, draw) for draw in range(settings.draws)]
    masks = torch.stack(  # one mask for all images of the batch
        [
            replacement(
                size,
                1,
                settings.share,
                key=key,
                origin=origin,
                device=image.device,
                draws=settings.draws if settings.balanced else 0,
            )
            for key in keys
        ]
    )

    def run(replaced: Tensor, draw: int) -> Tensor:
        if settings.masked:
            return run_all(denoiser, replaced, bad, scheme, 1, keys[draw], origin)
        return denoiser.predict(replaced)

    return refine(image, denoised, run, masks if bad is None else masks & ~bad)


def run_all(
    denoiser: AsymmetricMaskDenoiser,
    image: Tensor,
    bad: Tensor | None,
    scheme: MaskScheme,
    stride: int,
    key: Key,
    origin: tuple[int, int],
    turn: int = 0,
) -> Tensor:
    """Return the merged image of all K branches at one draw (Eq. 6-8)."""
    pixels = PixelDownsample(stride)
    size = (image.shape[2], image.shape[3])
    sub_images = pixels.down(image)
    same = torch.zeros(len(image), dtype=torch.int64, device=image.device)
    grid = pixels.grid(len(image), size, sample=same, origin=origin, device=image.device)
    label = scheme.label_of_pass(grid, key)
    unseen = outside(grid, (origin[0] + size[0], origin[1] + size[1]))
    if bad is not None:
        unseen = pixels.down(bad) if unseen is None else unseen | pixels.down(bad)
    outputs, scores = [], []
    for branch in range(scheme.branches):
        filled = denoiser.fill(sub_images, scheme, label, branch, unseen, grid, key)
        outputs.append(denoiser.predict(filled, turn=turn))
        scores.append(scheme.scored(label, branch))
    return pixels.up(merge_branches(outputs, scores), size=size)

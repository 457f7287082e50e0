"""Inference: draws, branches, refinement and tiles, from a noisy batch to a clean one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .calls import Job, NetworkCalls
from .chroma import smooth_chroma
from .cosine import BLIND, SEEING, threshold_cosines
from .hashing import Key, Purpose
from .observation import weighed
from .ops import MaskedImage, replace
from .pixels import reflect_pad
from .refine import Refinement
from .scheme import NothingHidden
from .tiling import tiled
from .uncertainty import Spread, turns_passes

if TYPE_CHECKING:
    from .denoiser import AsymmetricMaskDenoiser

HALO = 64  # pixels of a sub-image around each tile: the reach of most built-in U-Nets
TILE = 1024  # side of a tile in pixels of the image
FEW, ENOUGH = 9, 4  # images of fewer pixels are padded to this side, in units of the stride
TURNS = (0, 2, 5, 7, 1, 3, 4, 6)  # quarter turns, + 4 if mirrored, in the order of the passes


@torch.no_grad()  # not inference_mode: the result may be used in training
def denoise_batch(
    denoiser: AsymmetricMaskDenoiser,
    image: Tensor,
    *,
    passes: int,
    seed: int,
    tile: int = TILE,
    bad: Tensor | None = None,
    strength: float = 1.0,
    precision: str = "auto",
    compile: bool = False,
    spread: bool = False,
) -> Tensor:
    """Return the denoised batch: passes, refinement, chroma, observation and cosine threshold.

    Args:
        denoiser: in evaluation mode.
        image: (B, C, H, W) float on the 0..1 scale, finite.
        passes: number of mask draws to average.
        seed: of the masks.
        tile: side of the tiles of large images, in pixels.
        bad: bool (B, 1, H, W), pixels without a value, which no branch sees; or None.
        strength: 1 for the full effect, 0 for the noisy image (bad pixels are always predicted).
        precision, compile: as for `NetworkCalls`.
        spread: return (B, 2C, H, W), the batch followed by the standard deviation of one pass.
    """
    calls = NetworkCalls(denoiser, image.device, precision=precision, compile=compile)

    def run(piece: Tensor, origin: tuple[int, int]) -> Tensor:
        (row, col), (height, width) = origin, piece.shape[2:]
        gone = None if bad is None else bad[:, :, row : row + height, col : col + width]
        apart = Spread(piece) if spread else None
        mean = _denoise_piece(calls, piece, gone, origin, passes, seed, apart)
        return mean if apart is None else torch.cat([mean, apart.deviation()], dim=1)

    if not len(image):
        return image.repeat(1, 1 + spread, 1, 1)
    height, width = image.shape[2:]
    if height * width < FEW and min(height, width) >= denoiser.stride:
        return _denoise_few(
            denoiser, image, passes=passes, seed=seed, bad=bad, strength=strength,
            precision=precision, spread=spread,
        )  # fmt: skip
    step = denoiser.stride * denoiser.traits.size_multiple
    reach = int(getattr(denoiser.backbone, "reach", HALO))  # a network may declare its reach
    halo = reach * (denoiser.stride + (denoiser.refinement is not None))
    made = tiled(run, image, tile=tile, halo=halo, step=step)
    clean, std = made.chunk(2, dim=1) if spread else (made, None)
    with torch.autocast(image.device.type, enabled=False):
        result = _finished(denoiser, image, clean, bad, strength)
    if std is None:
        return result
    part = strength * std if bad is None else torch.where(bad, std, strength * std)
    return torch.cat([result, part], dim=1)


def _denoise_few(
    denoiser: AsymmetricMaskDenoiser, image: Tensor, *, bad: Tensor | None, **settings: Any
) -> Tensor:
    """Return the denoised batch of images so small that a branch might see no pixel of them.

    They are padded by reflection first.
    """
    height, width = image.shape[2:]
    room = ENOUGH * denoiser.stride
    more = max(room - height, 0), max(room - width, 0)
    bad = None if bad is None else reflect_pad(bad, *more)
    made = denoise_batch(denoiser, reflect_pad(image, *more), bad=bad, **settings)
    return made[..., :height, :width]


def _finished(
    denoiser: AsymmetricMaskDenoiser,
    image: Tensor,
    clean: Tensor,
    bad: Tensor | None,
    strength: float,
) -> Tensor:
    """Return the network's result after all steps that follow; computed in full precision."""
    exact = torch.promote_types(image.dtype, torch.float32)
    noisy, clean = image.to(exact), clean.to(exact)
    if denoiser.chroma_radius and image.shape[1] == 3:
        clean = smooth_chroma(clean, radius=denoiser.chroma_radius, noisy=noisy)
    known = noisy if bad is None else torch.where(bad, clean, noisy)
    clean = _with_own_pixel(denoiser, known, clean)
    if denoiser.dct_threshold:
        clean = threshold_cosines(
            clean, known, threshold=denoiser.dct_threshold,
            limit=SEEING if isinstance(denoiser.scheme, NothingHidden) else BLIND,
        )  # fmt: skip
    mixed = clean if strength == 1 else torch.lerp(noisy, clean, strength)
    return (mixed if bad is None else torch.where(bad, clean, mixed)).to(image.dtype)


def _with_own_pixel(denoiser: AsymmetricMaskDenoiser, image: Tensor, clean: Tensor) -> Tensor:
    """Return the denoised batch with a share of each pixel's own value; see `observation`."""
    share = denoiser.observation
    if isinstance(share, str):
        levels = denoiser.noise_level
        return clean if levels is None else weighed(image, clean, levels)
    if not share:
        return clean
    back = share * (image - clean)
    return clean + (back.mean(1, keepdim=True) if image.shape[1] == 3 else back)


def _denoise_piece(
    calls: NetworkCalls,
    image: Tensor,
    bad: Tensor | None,
    origin: tuple[int, int],
    passes: int,
    seed: int,
    spread: Spread | None,
) -> Tensor:
    """Return the mean of `passes` draws over one tile, refined if set; add each to `spread`."""
    denoiser, place = calls.denoiser, _place(image, bad, origin)
    scheme = denoiser.inference_scheme

    def draws() -> Iterator[tuple[MaskedImage, int]]:
        for draw in range(passes):
            key = Key(seed, Purpose.INFER, draw)
            masked = MaskedImage(image, scheme, key, denoiser.stride, of_pass=True, **place)
            yield masked, _turn_of(denoiser, draw)

    passed = merged_draws(calls, draws())
    if spread is not None:
        passed = _recorded(passed, spread, denoiser, image, bad)
    denoised = _mean(passed, image)
    if denoiser.refinement is None:
        return denoised
    return _refine_piece(calls, image, denoised, denoiser.refinement, seed, place)


def _refine_piece(
    calls: NetworkCalls,
    image: Tensor,
    denoised: Tensor,
    settings: Refinement,
    seed: int,
    place: dict[str, Any],
) -> Tensor:
    """Return the mean over the draws of R3: noisy pixels put back, then denoised again."""
    scheme = calls.denoiser.inference_scheme
    keys = [Key(seed, Purpose.REFINE, draw) for draw in range(settings.draws)]
    shared = settings.draws if settings.balanced else 0
    copies = (replace(image, denoised, settings.share, [k], draws=shared, **place) for k in keys)
    turns = [_turn_of(calls.denoiser, key.draw + 1) for key in keys]  # not upright: pass 0 was
    if not settings.masked:
        return _mean(calls.run(zip(copies, turns, strict=True)), image)
    draws = (
        (MaskedImage(copy, scheme, key, of_pass=True, **place), turn)
        for copy, key, turn in zip(copies, keys, turns, strict=True)
    )
    return _mean(merged_draws(calls, draws), image)


def _turn_of(denoiser: AsymmetricMaskDenoiser, draw: int) -> int:
    """Return the orientation (see `TURNS`) in which the network sees one of several draws."""
    return TURNS[draw % len(TURNS)] if turns_passes(denoiser) else 0


def merged_draws(calls: NetworkCalls, draws: Iterable[tuple[MaskedImage, int]]) -> Iterator[Tensor]:
    """Yield the merged image (B, C, H, W) of all K branches of each draw (Eq. 6-8).

    Args:
        calls: of the network.
        draws: mask draws, each with its orientation (see `TURNS`); consumed lazily.
    """
    waiting: deque[MaskedImage] = deque()

    def jobs() -> Iterator[Job]:
        for masked, turn in draws:
            waiting.append(masked)
            last = calls.denoiser.traits.channels_last and masked.fused
            for branch in range(masked.scheme.branches):
                yield masked.show(branch, channels_last=last), turn

    outputs = calls.run(jobs())
    for first in outputs:
        masked = waiting.popleft()
        yield masked.merge([first, *islice(outputs, masked.scheme.branches - 1)])


def _place(image: Tensor, bad: Tensor | None, origin: tuple[int, int]) -> dict[str, Any]:
    """Return the position of the masks; all images of a batch get the same mask."""
    same = torch.zeros(len(image), dtype=torch.int64, device=image.device)
    return {"sample": 0 if len(image) == 1 else same, "origin": origin, "bad": bad}


def _recorded(
    passed: Iterator[Tensor],
    spread: Spread,
    denoiser: AsymmetricMaskDenoiser,
    image: Tensor,
    bad: Tensor | None,
) -> Iterator[Tensor]:
    """Yield the passes unchanged, adding each to `spread` as it will look in the result."""
    for draw in passed:
        known = image if bad is None else torch.where(bad, draw, image)
        spread.add(_with_own_pixel(denoiser, known, draw))
        yield draw


def _mean(images: Iterator[Tensor], like: Tensor) -> Tensor:
    total, number = torch.zeros_like(like), 0
    for image in images:
        total += image
        number += 1
    return total / number

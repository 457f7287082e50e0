"""Which model of the package suits a picture: the usual one, or the one for strong noise.

Strong noise is everywhere in a picture, texture seldom is: what the model for strong noise takes
off is therefore looked at where it takes off little. A picture that is sharp texture all over
passes for noisy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..camera_noise import YCBCR
from ..values import to_batch

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

STRONG = 6.5 / 255
"""Level from which noise is strong. Of 40 photographs of five cameras none has more than 3.3; clean
and sharp ones may have up to 6.4, full of texture 8."""
CLEAN = 0.6 / 255
"""Level below which a picture is clean. Of 23 noisy photographs none has less than 1.1, of the
means of many shots of the same scenes half have less than 0.56."""
_SIDE = 128  # of the four windows that are looked at, in pixels
_BLOCK = 16  # side of the squares in which the level is taken
_CLIPPED = 0.2  # share of black and white pixels with which a square tells nothing
_CALM = 0.25  # share of the squares that are calmer than the one that counts


def noise_is_strong(pixels: NDArray[Any], strong: AsymmetricMaskDenoiser) -> bool:
    """Return whether camera-strong suits a picture better than camera-small.

    Args:
        pixels: (H, W) or (H, W, C) of integers, C of 1 or 3.
        strong: camera-strong, for C channels.
    """
    return noise_level(pixels, strong) > STRONG


def mostly_strong(pictures: Iterable[NDArray[Any]], strong: AsymmetricMaskDenoiser) -> bool:
    """Return whether more than half of the pictures have strong noise; see `noise_is_strong`."""
    votes = [noise_is_strong(one, strong) for one in pictures]
    return 2 * sum(votes) > len(votes)


def was_clean(pixels: NDArray[Any], denoised: NDArray[Any]) -> bool:
    """Return whether hardly anything was taken off the calm areas of a picture.

    Args:
        pixels: (H, W) or (H, W, C) of integers, C of 1 or 3.
        denoised: the same, as a model of the package made it.
    """
    levels = _local_deviations(to_batch(pixels)[0], to_batch(denoised)[0])
    return bool(levels) and float(np.quantile(levels, _CALM)) < CLEAN


def noise_level(pixels: NDArray[Any], strong: AsymmetricMaskDenoiser) -> float:
    """Return the standard deviation of the noise of luma in calm areas, where white is 1.

    Args:
        pixels: (H, W) or (H, W, C) of integers, C of 1 or 3.
        strong: camera-strong, for C channels.

    Returns:
        The level, of squares that are not black or white; 0 where there are none, as where a side
        has less than 16 pixels.
    """
    levels: list[float] = []
    for window in _windows(pixels):
        clean = strong.denoise(window, passes=1, precision="float32")
        levels += _local_deviations(to_batch(window)[0], to_batch(clean)[0])
    return float(np.quantile(levels, _CALM)) if levels else 0.0


def _windows(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return windows around the middles of the four quarters, of small pictures fewer."""
    starts = []
    for length in pixels.shape[:2]:
        room = max(length - _SIDE, 0)
        near = max(length // 4 - _SIDE // 2, 0)
        starts.append([near, room - near] if room >= _SIDE // 2 else [room // 2])
    rows, columns = starts
    return [
        np.ascontiguousarray(pixels[row : row + _SIDE, column : column + _SIDE])
        for row in rows
        for column in columns
    ]


def _local_deviations(noisy: Tensor, clean: Tensor) -> list[float]:
    """Return the standard deviation of what luma lost in squares, those that fit and have some.

    Args:
        noisy, clean: (1, C, H, W) on the 0..1 scale.
    """
    if min(noisy.shape[2:]) < _BLOCK:
        return []
    weights = torch.tensor(YCBCR[0]) if noisy.shape[1] == 3 else torch.ones(1)
    before, after = (torch.einsum("c,bchw->bhw", weights, one.float()) for one in (noisy, clean))
    clipped = ((before <= 0.005) | (before >= 0.995)).float()
    removed, share = (
        one.unfold(1, _BLOCK, _BLOCK).unfold(2, _BLOCK, _BLOCK).flatten(-2).flatten(0, -2)
        for one in (before - after, clipped)
    )
    kept = removed[share.mean(-1) < _CLIPPED]
    return [float(one.std()) for one in kept]

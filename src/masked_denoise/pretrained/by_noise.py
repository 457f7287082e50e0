"""Which model of the package suits a picture: the usual one, or the one for strong noise.

Strong noise is everywhere in a picture, texture is not: what the model for strong noise takes off
is therefore looked at where it takes off little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..camera_noise import YCBCR
from ..values import to_batch

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

STRONG = 5 / 255
"""Level from which noise is strong. Of 40 photographs of five cameras none has more than 3.3."""
_SIDE = 128  # of the four windows that are looked at, in pixels
_BLOCK = 16  # side of the squares in which the level is taken
_CALM = 0.25  # share of the squares that are calmer than the one that counts


def noise_is_strong(pixels: NDArray[Any], strong: AsymmetricMaskDenoiser) -> bool:
    """Return whether a picture is noisier than camera-small can denoise.

    Args:
        pixels: (H, W) or (H, W, C) of integers, C of 1 or 3.
        strong: camera-strong, for C channels.
    """
    return noise_level(pixels, strong) > STRONG


def noise_level(pixels: NDArray[Any], strong: AsymmetricMaskDenoiser) -> float:
    """Return the standard deviation of the noise of luma in calm areas, where white is 1.

    Args:
        pixels: (H, W) or (H, W, C) of integers, C of 1 or 3.
        strong: camera-strong, for C channels.

    Returns:
        The level; 0 where a side has less than 16 pixels.
    """
    levels: list[float] = []
    for window in _windows(pixels):
        clean = strong.denoise(window, passes=1)
        levels += _local_deviations(to_batch(window)[0] - to_batch(clean)[0])
    return float(np.quantile(levels, _CALM)) if levels else 0.0


def _windows(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return windows around the middles of the four quarters, or the whole of a small picture."""
    starts = []
    for length in pixels.shape[:2]:
        room = max(length - _SIDE, 0)
        starts.append(sorted({room // 4, room - room // 4}))
    rows, columns = starts
    return [
        np.ascontiguousarray(pixels[row : row + _SIDE, column : column + _SIDE])
        for row in rows
        for column in columns
    ]


def _local_deviations(removed: Tensor) -> list[float]:
    """Return the standard deviation of luma in squares of (1, C, H, W), those that fit."""
    weights = torch.tensor(YCBCR[0]) if removed.shape[1] == 3 else torch.ones(1)
    luma = torch.einsum("c,bchw->bhw", weights.to(removed), removed)
    if min(luma.shape[1:]) < _BLOCK:
        return []
    squares = luma.unfold(1, _BLOCK, _BLOCK).unfold(2, _BLOCK, _BLOCK)
    deviations: list[float] = squares.flatten(-2).std(-1).flatten().tolist()
    return deviations

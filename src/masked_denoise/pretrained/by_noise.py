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
from ..robust import differ
from ..values import to_batch

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

STRONG = 6.5 / 255
"""Level from which noise is strong. Of 40 photographs of five cameras none has more than 3.3; clean
and sharp ones may have up to 6.4, full of texture 8."""
CLEAN = 0.4 / 255
"""Level below which a picture is clean; to round to 8 bits adds 0.29. Of 40 noisy photographs one
has 0.44 and the others 0.6 or more, of the means of many shots of the same scenes 7 have less."""
_SIDE = 128  # of the four windows that are looked at, in pixels
_BLOCK = 16  # side of the squares in which the level is taken
_ROWS = 32  # of squares in a picture, about, at most
_CLIPPED = 0.2  # share of black and white pixels with which a square tells nothing
_CALM = 0.25  # share of the squares that are calmer than the one that counts
_DRAWN = 0.1  # share of the squares with any noise that are full of it, of a drawing at most


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


def was_clean(pixels: NDArray[Any], denoised: NDArray[Any], *, strength: float = 1.0) -> bool:
    """Return whether a picture had hardly any noise.

    That is where hardly anything was taken off its calm areas, and where it is a drawing, or text:
    most pixels around its edges equal their neighbours.

    Args:
        pixels: (H, W) or (H, W, C) of integers, C of 1 or 3.
        denoised: the same, as a model of the package made it.
        strength: that it was made with.
    """
    noisy = _squares(pixels)
    busy = _busy(noisy)
    if float((busy > 0.5).sum()) < _DRAWN * float((busy > 0).sum()):
        return True
    levels = _deviations(noisy, _squares(denoised))
    return bool(levels) and float(np.quantile(levels, _CALM)) < CLEAN * strength


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
        levels += _deviations(_squares(window), _squares(clean))
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


def _squares(pixels: NDArray[Any]) -> Tensor:
    """Return squares (N, C, 16, 16) of a picture on the 0..1 scale, evenly spread; N may be 0."""
    image = to_batch(pixels)[0][0]
    if min(image.shape[1:]) < _BLOCK:
        return image.new_empty(0, len(image), _BLOCK, _BLOCK)
    grid = image.unfold(1, _BLOCK, _BLOCK).unfold(2, _BLOCK, _BLOCK)
    rows, columns = (1 + count // _ROWS for count in grid.shape[1:3])
    return grid[:, ::rows, ::columns].flatten(1, 2).transpose(0, 1)


def _busy(squares: Tensor) -> Tensor:
    """Return the share of the pixels of each square that differ from a neighbour: (N,)."""
    return differ(squares).float().mean((1, 2, 3))


def _deviations(noisy: Tensor, clean: Tensor) -> list[float]:
    """Return the standard deviation of what luma lost in each square that tells any.

    Args:
        noisy, clean: of `_squares`.
    """
    weights = torch.tensor(YCBCR[0]) if noisy.shape[1] == 3 else torch.ones(1)
    before, after = (torch.einsum("c,nchw->nhw", weights, one) for one in (noisy, clean))
    clipped = ((before <= 0.005) | (before >= 0.995)).float().mean((1, 2))
    telling = (clipped < _CLIPPED) & (_busy(noisy) > 0.5)
    found: list[float] = (before - after).flatten(1).std(1)[telling].tolist()
    return found

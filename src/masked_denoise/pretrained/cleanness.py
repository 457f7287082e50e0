"""Whether a picture had hardly any noise, and should stay as it is.

Noise is everywhere in a picture, texture seldom is. So the measure is what a model removes in the
areas where it removes little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..colour import LUMA
from ..robust import differs
from ..values import to_batch

CLEAN = 0.4 / 255
"""Noise level below which a picture is clean; rounding to 8 bits alone gives 0.29. Of 40 noisy
photographs, one has 0.44 and the others 0.6 or more; of the means of many shots of the same
scenes, 7 have less."""
_BLOCK = 16  # side of the squares in which the level is measured
_ROWS = 32  # of squares in a picture, at most, approximately
_CLIPPED = 0.2  # share of black and white pixels from which a square is ignored
_CALM = 0.25  # quantile of the squares' levels that is compared
_DRAWN = {0.75: 0.65, 0.98: 0.8}
"""Limits for drawings. Of each square with any edge, take the share of pixels that differ from a
neighbour; the keys are quantiles of it over the squares, and in a drawing both are below the
values. For text on ten screens they are 0.40 to 0.56 and 0.58 to 0.71; for photographs 0.98 or
more, and 1; for three of four photographs compressed to JPEG quality 40 they are 0.80 or more."""


def was_clean(pixels: NDArray[Any], denoised: NDArray[Any], *, strength: float = 1.0) -> bool:
    """Return whether a picture had hardly any noise.

    That is so if hardly anything was removed from its calm areas, if all pixels are equal, or if it
    is a drawing or text: many pixels around its edges equal their neighbours.

    Args:
        pixels: (H, W) or (H, W, C) of integers, C of 1 or 3.
        denoised: the same picture as denoised by a model of the package.
        strength: that it was denoised with.
    """
    noisy = _squares(pixels)
    busy = _busy(noisy)
    busy = busy[busy > 0]
    if not len(busy):  # the squares do not cover all pixels
        return not bool(differs(to_batch(pixels)[0]).any())
    if all(float(busy.quantile(share)) < most for share, most in _DRAWN.items()):
        return True
    levels = _deviations(noisy, _squares(denoised))
    return bool(levels) and float(np.quantile(levels, _CALM)) < CLEAN * strength


def _squares(pixels: NDArray[Any]) -> Tensor:
    """Return evenly spread squares (N, C, 16, 16) of a picture on the 0..1 scale; N may be 0."""
    image = to_batch(pixels)[0][0]
    if min(image.shape[1:]) < _BLOCK:
        return image.new_empty(0, len(image), _BLOCK, _BLOCK)
    grid = image.unfold(1, _BLOCK, _BLOCK).unfold(2, _BLOCK, _BLOCK)
    rows, columns = (1 + count // _ROWS for count in grid.shape[1:3])
    return grid[:, ::rows, ::columns].flatten(1, 2).transpose(0, 1)


def _busy(squares: Tensor) -> Tensor:
    """Return the share of each square's pixels that differ from a neighbour: (N,)."""
    return differs(squares).float().mean((1, 2, 3))


def _deviations(noisy: Tensor, clean: Tensor) -> list[float]:
    """Return the standard deviation of what luma lost, in each square that counts.

    Args:
        noisy, clean: from `_squares`.
    """
    if not len(noisy):
        return []
    weights = torch.tensor(LUMA) if noisy.shape[1] == 3 else torch.ones(1)
    before, after = (torch.einsum("c,nchw->nhw", weights, one) for one in (noisy, clean))
    clipped = ((before <= 0.005) | (before >= 0.995)).float().mean((1, 2))
    telling = (clipped < _CLIPPED) & (_busy(noisy) > 0.5)
    found: list[float] = (before - after).flatten(1).std(1)[telling].tolist()
    return found

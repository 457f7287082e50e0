"""The masking operators for CPUs: the same values as the definitions, in fewer and faster steps.

torch.where and masked_fill branch at every pixel, and a random mask defeats the processor's branch
prediction. Here a mask is a word of ones or zeros a pixel, and selecting is a bitwise "and".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating[Any]]

WIDEST = 3  # radius of the widest window that a mean is taken over, before the whole sub-image
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def words(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a bool mask as integers as wide as `dtype`: all bits set where True, else none."""
    return mask.to(_WORDS[dtype.itemsize]).neg_()


def keep(x: Tensor, mask: Tensor, *, out: Tensor) -> Tensor:
    """Return x where the mask from `words` is set, else 0, whatever x holds there; no gradient."""
    torch.bitwise_and(x.view(mask.dtype), mask, out=out.view(mask.dtype))
    return out


def select(mask: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """Return torch.where(mask, x, other) of one dtype, the same bits, without a gradient."""
    wide = words(mask, x.dtype)
    bits = other.view(wide.dtype)
    return (x.view(wide.dtype) ^ bits).bitwise_and_(wide).bitwise_xor_(bits).view(x.dtype)


def fill_value(image: Tensor, hidden: Tensor, value: float) -> Tensor:
    """Return torch.where(hidden, value, image), without a gradient."""
    hide = words(hidden, image.dtype)
    filled = keep(image, ~hide, out=torch.empty(image.shape, dtype=image.dtype))
    if value:
        bits = torch.tensor(value, dtype=image.dtype).view(hide.dtype)
        filled.view(hide.dtype).bitwise_or_(hide & bits)
    return filled


def error_where(output: Tensor, target: Tensor, scored: Tensor) -> tuple[Tensor, int]:
    """Return output - target where scored, 0 elsewhere, and the number of scored pixels.

    Args:
        output: (N, C, h, w) float.
        target: (N, C, h, w), like it.
        scored: bool (N, 1, h, w).
    """
    dtype = torch.promote_types(output.dtype, target.dtype)
    error = torch.empty(target.shape, dtype=dtype)  # planes: a mask is laid over them fast
    torch.sub(output, target, out=error)
    return keep(error, words(scored, dtype), out=error), int(np.count_nonzero(scored.numpy()))


def fill_mean(image: Tensor, hidden: Tensor) -> Tensor:
    """Return what `reference.fill_hidden(image, hidden, "mean")` does, without a gradient.

    Colours and a weight, one where visible, lie plane by plane in one zero-padded tensor, so that
    sums and counts are added up together; wider windows are gathered for the few pixels that have
    no visible neighbour.

    Args:
        image: (N, C, h, w) float.
        hidden: bool (N, 1, h, w).
    """
    n, c, h, w = image.shape
    exact = image.to(torch.promote_types(image.dtype, torch.float32))
    hide = words(hidden, exact.dtype)
    show = ~hide
    padded = exact.new_empty((n, c + 1, h + 2 * WIDEST, w + 2 * WIDEST))
    for dim, end in ((2, h + WIDEST), (3, w + WIDEST)):
        padded.narrow(dim, 0, WIDEST).zero_()
        padded.narrow(dim, end, WIDEST).zero_()
    inner = padded[:, :, WIDEST : WIDEST + h, WIDEST : WIDEST + w]
    keep(exact, show, out=inner[:, :c])
    inner[:, c:] = hide + 1

    near = padded[:, :, WIDEST - 1 : WIDEST + h + 1, WIDEST - 1 : WIDEST + w + 1]
    rows = (near[:, :, :-2] + near[:, :, 1:-1]).add_(near[:, :, 2:])
    total = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    filled = total[:, :c] / total[:, c:]
    keep(filled, hide, out=filled)
    filled.view(show.dtype).bitwise_or_(inner[:, :c].view(show.dtype))
    _fill_lonely(filled.numpy(), padded.numpy(), total[:, c].numpy() == 0)
    return filled.to(image.dtype)


def _fill_lonely(filled: Array, padded: Array, lonely: NDArray[np.bool_]) -> None:
    """Fill, in place, the pixels without a visible one in their 3 x 3, from wider windows.

    Args:
        filled: (N, C, h, w).
        padded: (N, C+1, h + 2·WIDEST, w + 2·WIDEST), colours and weights, zero where hidden.
        lonely: (N, h, w); a visible pixel counts itself and is not among them.
    """
    (_, channels, height, width), (h, w) = padded.shape, lonely.shape[1:]
    plane = np.arange(channels)[:, None] * (height * width)
    place, row = np.divmod(np.flatnonzero(lonely), h * w)
    row, col = np.divmod(row, w)
    for radius in range(2, WIDEST + 1):
        if not len(place):
            return
        side = np.arange(-radius, radius + 1)
        window = plane + (side[:, None] * width + side).ravel()
        center = (place * channels * height + row + WIDEST) * width + col + WIDEST
        total = padded.ravel().take(center[:, None, None] + window).sum(2)
        count = total[:, -1:]
        filled[place, :, row, col] = total[:, :-1] / np.maximum(count, 1)
        still = count[:, 0] == 0
        place, row, col = place[still], row[still], col[still]
    if len(place):
        total = padded.sum((2, 3))
        filled[place, :, row, col] = (total[:, :-1] / np.maximum(total[:, -1:], 1))[place]

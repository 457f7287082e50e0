"""Medians and quantiles over the pixels of an image that carry noise.

Black frames, burnt-out skies and the empty border of a slide have no noise: if they fill half of
the image, a median over all pixels is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ENOUGH = 0.02  # the others are ignored only if at least this share of the pixels carries noise


def carries_noise(noisy: Tensor, *, every: tuple[int, int] = (1, 1)) -> Tensor:
    """Return bool (B, 1, h, w): which pixels may carry noise, True for at least one per image.

    These are pixels that differ from a neighbour (`differs`), or all pixels if hardly any do.

    Args:
        noisy: (B, C, H, W), not processed in any way.
        every: (m, n): sample every m-th row and every n-th column, from the first on.
    """
    found = differs(noisy, every=every)
    return found | (found.float().mean((2, 3), keepdim=True) < ENOUGH)


def differs(image: Tensor, *, every: tuple[int, int] = (1, 1)) -> Tensor:
    """Return bool (B, 1, h, w): which pixels differ from any of their four neighbours.

    Args:
        image: (B, C, H, W).
        every: (m, n): sample every m-th row and every n-th column, from the first on.
    """
    here = image[:, :, :: every[0], :: every[1]]
    found = torch.zeros_like(here, dtype=torch.bool)
    for dim in (2, 3):
        thin = image[..., :: every[1]] if dim == 2 else image[:, :, :: every[0]]
        last = image.shape[dim] - 1
        place = torch.arange(0, last + 1, every[dim - 2], device=image.device)
        for beside in (place - 1, place + 1):
            found |= here != thin.index_select(dim, beside.clamp(0, last))
    return found.any(1, keepdim=True)


def lower_median(x: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the lower median along the last dimension; see `lower_quantile`."""
    return lower_quantile(x, 0.5, counted)


def lower_quantile(x: Tensor, share: float, counted: Tensor | None = None) -> Tensor:
    """Return element floor(share · (n - 1)) of the n sorted values along the last dimension.

    On a CPU it is computed by numpy, which is ten times as fast.

    Args:
        x: (..., N) float.
        share: in [0, 1].
        counted: bool, of a shape that expands to that of `x`: which values count, at least one per
            row. Default: all.
    """
    if x.device.type == "mps":  # has no float64
        found = lower_quantile(x.cpu(), share, None if counted is None else counted.cpu())
        return found.to(x.device)
    if x.device.type != "cpu" or x.requires_grad or x.dtype == torch.bfloat16:
        return _by_sorting(x, share, counted)
    if counted is None:
        return torch.from_numpy(_lower_quantile(x.numpy(), share))
    rows, which = (one.flatten(0, -2).numpy() for one in (x, counted.expand_as(x)))
    each = [_lower_quantile(row[kept], share) for row, kept in zip(rows, which, strict=True)]
    return torch.from_numpy(np.array(each, rows.dtype)).view(x.shape[:-1])


def _by_sorting(x: Tensor, share: float, counted: Tensor | None) -> Tensor:
    """Return `lower_quantile` by sorting, as torch's medians are not deterministic on a GPU."""
    if counted is None:
        counted = torch.ones((), dtype=torch.bool, device=x.device)
    counted = counted.expand_as(x)
    first = x.masked_fill(~counted, torch.inf).sort(-1).values
    place = ((counted.sum(-1, keepdim=True) - 1).double() * share).long()
    return first.gather(-1, place).squeeze(-1)


def _lower_quantile(values: NDArray[Any], share: float) -> NDArray[Any]:
    place = int((values.shape[-1] - 1) * share)
    return np.asarray(np.partition(values, place, axis=-1)[..., place])

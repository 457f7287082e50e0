"""Means over square windows, at a cost that grows with the logarithm of their side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def window_mean(image: Tensor, radius: int) -> Tensor:
    """Return the mean over windows of (2·radius + 1)² pixels, cut off at the border of the image.

    Args:
        image: (B, C, H, W) float.
        radius: in pixels, 1 or more.
    """
    planes = torch.split(image, 1, dim=1)  # one by one, to stay in a CPU's cache
    return torch.cat([_mean_along(_mean_along(one, 2, radius), 3, radius) for one in planes], dim=1)


def _mean_along(x: Tensor, dim: int, radius: int) -> Tensor:
    """Return the mean over windows of 2·radius + 1 pixels along rows (dim 3) or columns (dim 2).

    Sums over 1, 2, 4, 8 ... pixels are computed from each other, and a window from those of its
    binary digits: this takes as many additions as the length has digits, and avoids a running sum,
    which would accumulate rounding errors.
    """
    size = x.shape[dim]
    radius = min(radius, size - 1)
    length, first, digit = 2 * radius + 1, 0, 1
    power = F.pad(x, (0, 0, radius, radius) if dim == 2 else (radius, radius))
    total = torch.zeros_like(x)
    while True:
        if length & digit:
            total += power.narrow(dim, first, size)
            first += digit
        if 2 * digit > length:
            break
        rest = power.shape[dim] - digit
        power = power.narrow(dim, 0, rest) + power.narrow(dim, digit, rest)
        digit *= 2
    place = torch.arange(size, device=x.device)
    count = (place + radius).clamp_max(size - 1) - (place - radius).clamp_min(0) + 1
    return total.div_(count.to(x.dtype).view((-1, 1) if dim == 2 else (-1,)))

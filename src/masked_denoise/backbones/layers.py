"""Layers shared by several backbones, for the channels-last layout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def pixel_unshuffle(x: Tensor) -> Tensor:
    """Return (B, 4C, H/2, W/2) like torch's `pixel_unshuffle(x, 2)`, in channels-last layout."""
    y = rearrange(x.permute(0, 2, 3, 1), "b (h p) (w q) c -> b h w (c p q)", p=2, q=2)
    return y.permute(0, 3, 1, 2)


def pixel_shuffle(x: Tensor) -> Tensor:
    """Return (B, C/4, 2H, 2W) like torch's `pixel_shuffle(x, 2)`, in channels-last layout."""
    y = rearrange(x.permute(0, 2, 3, 1), "b h w (c p q) -> b (h p) (w q) c", p=2, q=2)
    return y.permute(0, 3, 1, 2)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the 1 x 1 convolution of a map in channels-last layout.

    On a CPU training is faster with a matrix product over pixels, inference with a convolution.

    Args:
        x: (B, C, H, W).
        weight: (D, C, 1, 1).
        bias: (D,), or None.
    """
    if torch.is_grad_enabled():
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)


def gelu(x: Tensor) -> Tensor:
    """Return the exact GELU of a map in channels-last layout.

    It is computed on the permuted map, as the fast CPU kernels need a contiguous tensor.
    """
    return F.gelu(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)

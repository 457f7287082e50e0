"""Layers that several backbones share, in the channels-last layout."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def pixel_unshuffle(x: Tensor) -> Tensor:
    """Return (B, 4C, H/2, W/2) as torch's `pixel_unshuffle(x, 2)` does, laid out channels last."""
    y = rearrange(x.permute(0, 2, 3, 1), "b (h p) (w q) c -> b h w (c p q)", p=2, q=2)
    return y.permute(0, 3, 1, 2)


def pixel_shuffle(x: Tensor) -> Tensor:
    """Return (B, C/4, 2H, 2W) as torch's `pixel_shuffle(x, 2)` does, laid out channels last."""
    y = rearrange(x.permute(0, 2, 3, 1), "b h w (c p q) -> b (h p) (w q) c", p=2, q=2)
    return y.permute(0, 3, 1, 2)

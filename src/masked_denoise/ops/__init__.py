"""Masking operators: plain definitions in `reference`, and faster forms of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..scheme import Fill
from . import cpu, reference
from .reference import merge_branches

__all__ = ["fill_hidden", "merge_branches"]


def fill_hidden(image: Tensor, hidden: Tensor, fill: Fill, *, word: Tensor | None = None) -> Tensor:
    """Return the image with its hidden pixels filled in; see `reference.fill_hidden`."""
    plain = image.requires_grad and torch.is_grad_enabled()
    if fill == "mean" and image.device.type == "cpu" and not plain and image.numel():
        return cpu.fill_mean(image, hidden)
    return reference.fill_hidden(image, hidden, fill, word=word)

"""A scheme of diagonal lines."""

from __future__ import annotations

import torch
from torch import Tensor

from masked_denoise import MaskScheme
from masked_denoise.hashing import Key
from masked_denoise.pixels import Grid
from masked_denoise.scheme import register_scheme


@register_scheme
class Diagonal(MaskScheme):
    """Every third diagonal line is a branch."""

    name = "diagonal"
    branches = 3

    def label(self, grid: Grid, key: Key) -> Tensor:
        """Return the number of each pixel's line."""
        line = (grid.sub_row + grid.sub_col + key.draw) % 3
        return line.to(torch.uint8).expand(grid.shape)

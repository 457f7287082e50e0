"""Masking operators: their definitions, forms for CPUs, and fused kernels for GPUs.

`MaskedImage` joins them; `reference` holds what they compute, in plain torch.
"""

from __future__ import annotations

from . import library, library_losses  # noqa: F401 - they register torch.ops.masked_denoise
from .eager import fill_hidden, merge_branches
from .fast import why_eager
from .masked import (
    MaskedImage,
    draw_of,
    mask_distance,
    replace,
    smoothness,
)
from .plan import MaskPlan

__all__ = [
    "MaskPlan",
    "MaskedImage",
    "draw_of",
    "fill_hidden",
    "mask_distance",
    "merge_branches",
    "replace",
    "smoothness",
    "why_eager",
]

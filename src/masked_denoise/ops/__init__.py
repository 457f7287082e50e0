"""Masking operators: their definitions, forms for CPUs, and fused kernels for GPUs.

`MaskedImage` joins them; `reference` holds what they compute, in plain torch.
"""

from __future__ import annotations

from . import library as library  # registers torch.ops.masked_denoise
from .eager import fill_hidden, merge_branches
from .fast import why_eager
from .masked import (
    MaskedImage,
    hide_down,
    mask_distance,
    masked_distance,
    merge_up,
    replace,
    smoothness,
)
from .plan import MaskPlan

__all__ = [
    "MaskPlan",
    "MaskedImage",
    "fill_hidden",
    "hide_down",
    "mask_distance",
    "masked_distance",
    "merge_branches",
    "merge_up",
    "replace",
    "smoothness",
    "why_eager",
]

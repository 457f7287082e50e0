"""Self-supervised image denoising with asymmetric masks: noisy images in, clean images out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbones import create_backbone, list_backbones, register_backbone
    from .denoiser import AsymmetricMaskDenoiser, from_pretrained
    from .losses import mask_loss, smoothness_loss, total_loss
    from .pixels import PixelDownsample
    from .refine import Refinement
    from .scheme import (
        Checkerboard,
        Lattice,
        MaskScheme,
        Noise2Void,
        NothingHidden,
        RandomPartition,
    )

__version__ = "0.1.0"

__all__ = [
    "AsymmetricMaskDenoiser",
    "Checkerboard",
    "Lattice",
    "MaskScheme",
    "Noise2Void",
    "NothingHidden",
    "PixelDownsample",
    "RandomPartition",
    "Refinement",
    "create_backbone",
    "from_pretrained",
    "list_backbones",
    "mask_loss",
    "register_backbone",
    "smoothness_loss",
    "total_loss",
]

_MODULES = {
    "backbones": ("create_backbone", "list_backbones", "register_backbone"),
    "denoiser": ("AsymmetricMaskDenoiser", "from_pretrained"),
    "losses": ("mask_loss", "smoothness_loss", "total_loss"),
    "pixels": ("PixelDownsample",),
    "refine": ("Refinement",),
    "scheme": (
        "Checkerboard", "Lattice", "MaskScheme", "Noise2Void", "NothingHidden", "RandomPartition",
    ),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `masked-denoise --help` need not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

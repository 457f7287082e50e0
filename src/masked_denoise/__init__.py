"""Self-supervised image denoising with asymmetric masks: noisy images in, clean images out."""

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

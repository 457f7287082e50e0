"""PSNR and SSIM, one number per image, in float64.

A number is meaningful only with its convention: the values (floats as they are, or both images
rounded to 8 bits first, as in papers) and the SSIM window ("uniform" 7x7, the default of
scikit-image, or "gaussian" 11x11 with sigma 1.5, as in the paper that introduced SSIM).
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .errors import PixelError, SettingError, SizeError, unknown_name
from .values import DIM, off_unit_scale

ImageLike = Tensor | npt.NDArray[Any]
Window = Literal["uniform", "gaussian"]

_STRIP_PIXELS = 1 << 21  # SSIM processes tall images in strips, to bound memory


def psnr(
    image: ImageLike, clean: ImageLike, *, data_range: float | None = None, eight_bit: bool = False
) -> Tensor:
    """Return the peak signal-to-noise ratio in dB, 10 log10(range² / mean squared error).

    Args:
        image: tensor (C, H, W) or (B, C, H, W), or array (H, W) or (H, W, C), of any integer or
            floating-point type.
        clean: the reference, of the same height, width and channels.
        data_range: white minus black in both images. By default each image has the scale of its
            dtype: integers from 0 to the largest value, floats from 0 to 1. A warning is issued if
            the values contradict that.
        eight_bit: round both images to 8 bits, clipped to [0, 1], as for the numbers in papers.

    Returns:
        Tensor float64, shape () for one image, (B,) for a batch. Infinite for equal images.

    Raises:
        SizeError: the shapes differ or are none of the above.
        PixelError: a pixel is NaN or infinite, or the type is neither integer nor float.
        SettingError: `data_range` is not a positive number.

    >>> import numpy as np
    >>> grey = np.full((8, 8), 100, np.uint8)
    >>> round(float(psnr(grey, grey + 1)), 3)
    48.131
    """
    a, b, batched = _pair(image, clean, data_range, eight_bit)
    result = -10 * torch.log10((a - b).square().mean(dim=(1, 2, 3)))
    return result if batched else result[0]


def ssim(
    image: ImageLike,
    clean: ImageLike,
    *,
    window: Window = "uniform",
    data_range: float | None = None,
    eight_bit: bool = False,
) -> Tensor:
    """Return the structural similarity (Wang et al. 2004, Eq. 13), mean over pixels and channels.

    Only windows that are completely inside the image count. K1 = 0.01, K2 = 0.03.

    Args:
        image: as for `psnr`; sides at least as long as the window.
        clean: the reference, of the same height, width and channels.
        window: "uniform": 7x7, sample covariance, exactly scikit-image's
            `structural_similarity(channel_axis=...)`. "gaussian": 11x11, sigma 1.5.
        data_range: as for `psnr`.
        eight_bit: as for `psnr`.

    Returns:
        Tensor float64, shape () for one image, (B,) for a batch. 1 for equal images.

    Raises:
        SizeError: the shapes differ, or a side is shorter than the window.
        PixelError: a pixel is NaN or infinite, or the type is neither integer nor float.
        SettingError: `data_range` is not a positive number.
        UnknownNameError: the window is not known.

    >>> import torch
    >>> picture = torch.linspace(0, 1, 192).reshape(3, 8, 8)
    >>> round(float(ssim(picture, 0.5 * picture)), 4)
    0.6546
    """
    if window not in get_args(Window):
        raise unknown_name("SSIM window", str(window), get_args(Window))
    a, b, batched = _pair(image, clean, data_range, eight_bit)
    size = 7 if window == "uniform" else 11
    height, width = a.shape[-2:]
    if min(height, width) < size:
        raise SizeError(
            f"image is {height} x {width}; SSIM with the {window} window needs sides of at least "
            f"{size}: use a larger crop"
            + (" or window='uniform'" if min(height, width) > 6 else "")
        )
    rows = max(1, _STRIP_PIXELS // (a.shape[0] * a.shape[1] * width))
    total = torch.zeros(a.shape[0], dtype=torch.float64, device=a.device)
    for top in range(0, height - size + 1, rows):
        strip = slice(top, top + rows + size - 1)
        total += _similarity(a[..., strip, :], b[..., strip, :], window).sum(dim=(1, 2, 3))
    result = total / (a.shape[1] * (height - size + 1) * (width - size + 1))
    return result if batched else result[0]


def score(image: ImageLike, clean: ImageLike) -> dict[str, float]:
    """Return {"psnr": dB, "ssim": number} of one image, in the convention of the project's tables.

    Both images are rounded to 8 bits first; SSIM has the uniform 7x7 window. Arguments and errors
    are those of `psnr` and `ssim`; a batch of several images raises SizeError.

    >>> import numpy as np
    >>> grey = np.full((8, 8, 3), 100, np.uint8)
    >>> score(grey, grey)
    {'psnr': inf, 'ssim': 1.0}
    """
    if image.ndim == 4 and image.shape[0] != 1:
        raise SizeError(
            f"score takes one image, got a batch of {image.shape[0]}: call it for each image, or "
            "use psnr and ssim, which give one number per image"
        )
    return {
        "psnr": float(psnr(image, clean, eight_bit=True)),
        "ssim": float(ssim(image, clean, window="uniform", eight_bit=True)),
    }


def _similarity(a: Tensor, b: Tensor, window: Window) -> Tensor:
    """Return the map of SSIM for values in [0, 1], one number per position of the window."""
    mean_a, mean_b = _blur(a, window), _blur(b, window)
    bias = 49 / 48 if window == "uniform" else 1.0  # sample covariance: divide by n - 1
    var_a = bias * (_blur(a * a, window) - mean_a * mean_a)
    var_b = bias * (_blur(b * b, window) - mean_b * mean_b)
    cov = bias * (_blur(a * b, window) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return brightness * (2 * cov + c2) / (var_a + var_b + c2)


def _blur(x: Tensor, window: Window) -> Tensor:
    """Return the weighted mean in every window inside `x` (B, C, H, W)."""
    if window == "uniform":
        return functional.avg_pool2d(x, 7, stride=1)
    offset = torch.arange(-5, 6, dtype=x.dtype, device=x.device)
    weight = torch.exp(-0.5 * (offset / 1.5).square())
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, 11)
    x = functional.conv2d(x, weight, groups=x.shape[1])
    return functional.conv2d(x, weight.transpose(2, 3), groups=x.shape[1])


def _pair(
    image: ImageLike, clean: ImageLike, data_range: float | None, eight_bit: bool
) -> tuple[Tensor, Tensor, bool]:
    """Return both images as float64 (B, C, H, W) with white at 1, and whether they are batches."""
    if data_range is not None and not 0 < data_range < float("inf"):
        raise SettingError(
            f"data_range is {data_range}; it must be a positive number: white minus black, "
            "for example data_range=255 for floats from 0 to 255"
        )
    a, b = _standard(image, data_range), _standard(clean, data_range)
    if data_range is None:
        for x, stored in ((a, image), (b, clean)):
            _warn_of_scale(x, stored)
    if a.shape != b.shape or (image.ndim == 4) != (clean.ndim == 4):
        raise SizeError(
            f"the image is {tuple(image.shape)} and its clean reference {tuple(clean.shape)}; "
            "both need the same height, width and channels"
        )
    b = b.to(a.device)
    if eight_bit:
        a, b = ((x.clamp(0, 1) * 255).round() / 255 for x in (a, b))
    return a, b, image.ndim == 4


def _warn_of_scale(x: Tensor, stored: ImageLike) -> None:
    """Warn if an image, divided by the range of its dtype, cannot be on the 0..1 scale."""
    dtype = stored.dtype.name if isinstance(stored, np.ndarray) else str(stored.dtype)
    dtype = dtype.removeprefix("torch.")
    if dtype == "uint8":
        return
    mean, top = float(x.mean()), float(x.max())
    if dtype.startswith(("float", "bfloat")):
        if off_unit_scale(mean, mean):
            told = (
                f"floats from {float(x.min()):.6g} to {top:.6g} are taken to be on the 0..1 scale"
            )
            warnings.warn(
                f"{told}, where they are not; divide both images by their white first, or give "
                "data_range=...",
                stacklevel=4,
            )
    elif 0 < top <= DIM:
        white = float(np.iinfo(dtype).max)
        warnings.warn(
            f"values of {dtype} up to {round(top * white)} are taken to be on its scale, where "
            f"white is {white:.0f}: the numbers are far too good if it is not; divide both images "
            "by their white first, or give data_range=...",
            stacklevel=4,
        )


@torch.no_grad()
def _standard(image: ImageLike, data_range: float | None) -> Tensor:
    """Return the image as a float64 tensor (B, C, H, W), divided by the range of its values."""
    if not image.size if isinstance(image, np.ndarray) else not image.numel():
        raise SizeError(f"image of shape {tuple(image.shape)} has no pixels")
    x, top = _from_tensor(image) if isinstance(image, Tensor) else _from_array(image)
    if not bool(torch.isfinite(x).all()):
        raise PixelError("the image has NaN or infinite pixels; replace them before measuring")
    return x / (top if data_range is None else data_range)


def _from_tensor(image: Tensor) -> tuple[Tensor, float]:
    """Return float64 (B, C, H, W) on the stored scale, and the value of white."""
    if image.ndim not in (3, 4):
        raise SizeError(
            f"tensor of shape {tuple(image.shape)}; needed is (C, H, W) or (B, C, H, W), "
            "for a grey image image[None]"
        )
    x = image.detach()
    x = x.cpu() if x.device.type == "mps" else x  # which has no float64
    x = x if x.ndim == 4 else x[None]
    if x.is_floating_point():
        return x.to(torch.float64), 1.0
    if x.is_complex() or x.dtype == torch.bool:
        raise PixelError(f"pixels of type {x.dtype}; needed is an integer or a float type")
    return x.to(torch.float64), float(torch.iinfo(x.dtype).max)


def _from_array(image: npt.NDArray[Any]) -> tuple[Tensor, float]:
    """Return float64 (1, C, H, W) on the stored scale, and the value of white."""
    if image.ndim not in (2, 3):
        raise SizeError(
            f"array of shape {image.shape}; needed is (H, W) or (H, W, C); "
            "a batch must be a tensor (B, C, H, W)"
        )
    if image.dtype.kind not in "uif":
        raise PixelError(f"pixels of type {image.dtype}; needed is an integer or a float type")
    planes = np.moveaxis(image if image.ndim == 3 else image[..., None], 2, 0)
    top = float(np.iinfo(image.dtype).max) if image.dtype.kind in "ui" else 1.0
    return torch.from_numpy(np.ascontiguousarray(planes, np.float64))[None], top

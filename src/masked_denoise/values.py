"""Conversion of pictures: arrays and tensors of any type to float batches, and back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .checks import number
from .errors import PixelError, SettingError, SizeError
from .transfer import to_host

ValueRange = tuple[float, float]


class CountRange(NamedTuple):
    """A value range that also holds for integers of more than 8 bits, such as 12 bits in uint16.

    A plain (low, high) holds for floats only; the two kinds are never equal.
    """

    low: float
    high: float

    def __eq__(self, other: object) -> bool:
        """Return whether the other is a `CountRange` with the same limits."""
        return isinstance(other, CountRange) and tuple(self) == tuple(other)

    def __ne__(self, other: object) -> bool:
        """Return the opposite of `==`."""
        return not self == other

    def __hash__(self) -> int:
        """Return a hash consistent with `==`."""
        return hash((CountRange, *self))


def range_of_values(value: Any) -> ValueRange:
    """Return a value range as two floats (low, high); a `CountRange` remains one.

    Raises:
        SettingError: the value is not a pair of numbers with high > low.

    >>> range_of_values([0, 4095])
    (0.0, 4095.0)
    """
    needed = "(low, high) with high > low"
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise SettingError(f"value_range is {value!r}; {needed} is needed")
    ends = [number("value_range", one, needed) for one in value]
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise SettingError(f"value_range is {value!r}; {needed} is needed")
    low, high = ends
    return CountRange(low, high) if isinstance(value, CountRange) else (low, high)


_INTEGERS = ("uint8", "uint16", "int16", "uint32", "int32")  # accepted for pictures
_DOUBLE = ("uint32", "int32", "float64")  # need float64
BEYOND_UNIT_SCALE = 2.0
"""Floats above this are not on the 0..1 scale, where noise may exceed 1."""
FAINT = 0.07
"""An image counts as faint if no value exceeds this share of the scale: no photograph is so dark,
and 16-bit integers hold 12 bits or fewer then."""
DIM = 0.3
"""Integers of more than 8 bits leave their scale empty if none exceeds this share of it: 14 bits
stored in 16 reach a quarter."""


@dataclass(frozen=True)
class Form:
    """The form of a picture (type, layout, dtype, device, scale), to convert the result back."""

    is_array: bool
    layout: str  # "hw", "hwc", "chw" or "bchw"
    dtype: str
    device: torch.device
    low: float
    scale: float
    byte_order: str = "="  # of arrays

    @property
    def is_deep(self) -> bool:
        """Whether values are integers of more than 8 bits, which may leave their scale empty."""
        return self.dtype in _INTEGERS and self.dtype != "uint8"

    @property
    def is_float(self) -> bool:
        """Whether the values can be NaN or infinite."""
        return self.dtype not in _INTEGERS


def to_batch(
    picture: Tensor | NDArray[np.generic], *, value_range: ValueRange | None = None
) -> tuple[Tensor, Form]:
    """Return a float32 batch (B, C, H, W) on the 0..1 scale, and the form to convert it back.

    Args:
        picture: tensor (C, H, W) or (B, C, H, W), or array (H, W) or (H, W, C). Integers are
            divided by the largest value of their dtype (bool is not accepted); floats are not
            changed, unless a `value_range` is mapped to 0..1.
        value_range: (low, high) of float values; as a `CountRange` also of integers of more than
            8 bits.

    Raises:
        SizeError: the number of dimensions is not one of these, or a side is empty.
        PixelError: the picture is no tensor or array, or its dtype is not supported.
        SettingError: high is not above low.
    """
    if not isinstance(picture, Tensor | np.ndarray):
        raise PixelError(
            f"{type(picture).__name__} came; a tensor or a NumPy array is needed: "
            "pass np.asarray(picture)"
        )
    is_array, byte_order = not isinstance(picture, Tensor), "="
    if is_array:
        array = np.asarray(picture)
        name, byte_order = array.dtype.name, array.dtype.byteorder
        if array.ndim not in (2, 3):
            raise SizeError(f"array has shape {array.shape}; (H, W) or (H, W, C) is needed")
        if name not in _INTEGERS and array.dtype.kind != "f":
            raise PixelError(_other_dtype(f"array is of {array.dtype}", "picture.astype(np.uint8)"))
        wide = array.astype(np.float64 if name in _DOUBLE else np.float32)
        batch = torch.from_numpy(np.ascontiguousarray(wide))
        batch = batch[None, None] if array.ndim == 2 else batch.permute(2, 0, 1)[None]
        layout, device = ("hw", "hwc")[array.ndim - 2], torch.device("cpu")
    else:
        assert isinstance(picture, Tensor)
        name = str(picture.dtype).removeprefix("torch.")
        if picture.ndim not in (3, 4):
            raise SizeError(
                f"tensor has shape {tuple(picture.shape)}; (C, H, W) or (B, C, H, W) is needed"
            )
        if name not in _INTEGERS and not picture.is_floating_point():
            raise PixelError(
                _other_dtype(f"tensor is of {picture.dtype}", "picture.to(torch.uint8)")
            )
        batch = picture.detach()
        batch = _without_mps(batch).double() if name in _DOUBLE else batch.float()
        batch = batch[None] if picture.ndim == 3 else batch
        layout, device = ("chw", "bchw")[picture.ndim - 3], picture.device
    if 0 in batch.shape[1:]:
        raise SizeError(f"picture has shape {tuple(picture.shape)}; no side may be empty")
    low, scale = scale_of(name, value_range)
    if (low, scale) != (0.0, 1.0):
        # A tensor, as GPUs multiply by the inverse of a number, which rounds differently.
        batch = (batch - low) / torch.full((), scale, dtype=batch.dtype, device=batch.device)
    return batch.float(), Form(is_array, layout, name, device, low, scale, byte_order)


def from_batch(batch: Tensor, form: Form) -> Tensor | NDArray[np.generic]:
    """Return a batch (B, C, H, W) in the form of the original picture.

    Integers are rounded and clipped to their dtype; floats are not clipped.
    """
    batch = batch.detach()
    if form.dtype in _DOUBLE:
        batch = _without_mps(batch).double()
    if (form.low, form.scale) != (0.0, 1.0):
        batch = (batch * form.scale).add_(form.low)
    if form.dtype in _INTEGERS:
        batch = batch.round().clamp_(_bottom(form.dtype), _top(form.dtype))
    if form.is_array:
        small = batch[0].to(torch.uint8) if form.dtype == "uint8" else batch[0]
        rows = small[0] if form.layout == "hw" else small.permute(1, 2, 0)
        array = to_host(rows.contiguous()).numpy()
        stored = np.dtype(form.byte_order + np.dtype(form.dtype).str[1:])
        return array.astype(stored)
    batch = batch.to(getattr(torch, form.dtype)).to(form.device)
    return batch[0] if form.layout == "chw" else batch


def channels_hint(shape: tuple[int, ...], channels: int, *, is_array: bool) -> str:
    """Return a hint for a picture with the wrong axis order, else an empty string."""
    if len(shape) != 3:
        return ""
    if is_array and shape[0] == channels:
        return ". An array is (H, W, C): pass np.moveaxis(picture, 0, 2)"
    if not is_array and shape[2] == channels:
        return ". A tensor is (C, H, W): pass picture.permute(2, 0, 1)"
    return ""


def _other_dtype(came: str, way: str) -> str:
    accepted = ", ".join(_INTEGERS)
    return (
        f"{came}; floats or {accepted} are needed. The scale of integers is that of their dtype: "
        f"values up to 255 go into 8 bits with {way}, larger ones into 16"
    )


def channels_of(pixels: NDArray[Any]) -> int:
    """Return the number of channels of an array (H, W) or (H, W, C)."""
    return int(pixels.shape[2]) if pixels.ndim == 3 else 1


def middle(image: Any, side: int) -> Any:
    """Return a copy of the centre of an image, at most `side` pixels wide and high.

    Args:
        image: array (H, W) or (H, W, C), or tensor (..., H, W).
        side: in pixels.

    >>> middle(np.arange(25).reshape(5, 5), 1)
    array([[12]])
    """
    height, width = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    rows, columns = slice(top, top + side), slice(left, left + side)
    if isinstance(image, Tensor):
        return image[..., rows, columns].clone()
    return image[rows, columns].copy()


def check_finite(batch: Tensor) -> None:
    """Raise PixelError if a pixel is NaN or infinite; the message has the place of the first."""
    if bool(torch.isfinite(batch.sum())):  # a single NaN or infinity would show in the sum
        return
    finite = torch.isfinite(batch)
    if bool(finite.all()):
        return
    bad = (~finite).nonzero()
    _, channel, row, col = bad[0].tolist()
    raise PixelError(
        f"image has {len(bad)} values that are NaN or infinite, the first at channel {channel}, "
        f'row {row}, column {col}; replace them, or pass nan="mask" to have them predicted'
    )


def off_unit_scale(darkest: float, brightest: float) -> bool:
    """Return whether the means of pictures are far outside the scale from 0 to 1."""
    return not -0.25 <= darkest <= brightest <= 1.25


def warn_off_scale(batch: Tensor) -> None:
    """Warn if floats without a value range cannot be on the 0..1 scale."""
    mean = float(batch.mean()) if batch.numel() else 0.0
    if off_unit_scale(mean, mean):
        low, high = float(batch.min()), float(batch.max())
        whole = next((top for top in (255, 4095, 65535) if low >= 0 and high <= top), None)
        likely = f"({low:.6g}, {high:.6g})" if whole is None else f"(0, {whole})"
        warnings.warn(
            f"the image holds floats from {low:.6g} to {high:.6g}, which are taken to be on the "
            "scale from 0 to 1; give the denoiser the range of all such images, for example "
            f"denoiser.value_range = {likely}",
            stacklevel=3,
        )


def warn_of_empty_scale(batch: Tensor, form: Form) -> None:
    """Warn if integers of more than 8 bits leave most of their scale empty: they look black."""
    if not form.is_deep or not batch.numel():
        return
    top = float(batch.max())
    if 0 < top <= DIM:
        most = round(top * form.scale)
        bits = max(most.bit_length(), 8)
        warnings.warn(
            f"the values of {form.dtype} reach {most} of {form.scale:.0f}, and the model takes "
            "them for nearly black; if white is lower, fit a model on such pictures, or give "
            f"floats on the scale of this one (0 to 1 is that of picture / {2**bits - 1})",
            stacklevel=3,
        )


def scale_of(dtype: str, value_range: ValueRange | None) -> tuple[float, float]:
    """Return (low, scale): stored = low + scale · value.

    Integers have the scale of their dtype. If `value_range` is a `CountRange`, it replaces that of
    integers of more than 8 bits, as it does for floats.

    Args:
        dtype: its name.
        value_range: (low, high); None for 0 to 1.

    >>> scale_of("uint16", (0, 4095)), scale_of("uint16", CountRange(0, 4095))
    ((0.0, 65535.0), (0.0, 4095.0))
    """
    if "int" in dtype:
        info = np.iinfo(dtype)
        if info.bits == 8 or not isinstance(value_range, CountRange):
            return 0.0, float(info.max)
    if value_range is None:
        return 0.0, 1.0
    low, high = range_of_values(value_range)
    return low, high - low


def range_in_use(dtype: str, value_range: ValueRange | None) -> ValueRange | None:
    """Return the range if it sets the scale of a dtype; None if the dtype keeps its own scale."""
    return None if scale_of(dtype, value_range) == scale_of(dtype, None) else value_range


def _without_mps(batch: Tensor) -> Tensor:
    """Return the tensor on a device with float64, which Apple's GPUs lack."""
    return batch.cpu() if batch.device.type == "mps" else batch


def _top(dtype: str) -> float:
    return float(np.iinfo(dtype).max)


def _bottom(dtype: str) -> float:
    return float(np.iinfo(dtype).min)

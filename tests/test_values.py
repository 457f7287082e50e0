"""Pictures to batches and back: nothing lost, nothing shifted, nothing changed in kind."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.checks import number, whole
from masked_denoise.errors import PixelError, SettingError, SizeError
from masked_denoise.values import check_finite, from_batch, to_batch

TOPS = {"uint8": 255, "uint16": 65535, "int16": 32767, "uint32": 2**32 - 1, "int32": 2**31 - 1}
FLOATS = ("float16", "float32", "float64")


def example(dtype: str, shape: tuple[int, ...]) -> Any:
    generator = np.random.default_rng(0)
    if dtype in TOPS:
        bottom = np.iinfo(dtype).min
        values = generator.integers(bottom, TOPS[dtype], shape, dtype=dtype, endpoint=True)
        values.flat[:3] = bottom, 0, TOPS[dtype]
        return values
    return generator.normal(0.5, 1.0, shape).astype(dtype)


def close_enough(back: Any, picture: Any) -> bool:
    """32-bit integers and 64-bit floats keep the 24 bits of single precision; all else is exact."""
    if picture.dtype in (np.uint32, np.int32, np.float64):
        scale = max(TOPS.get(picture.dtype.name, 1), 1)
        difference = np.abs(back.astype(np.float64) - picture.astype(np.float64))
        return bool(difference.max() <= 4e-7 * scale)
    return bool(np.array_equal(back, picture))


@pytest.mark.parametrize("dtype", [*TOPS, *FLOATS])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (1, 1, 9)])
def test_arrays_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    picture = example(dtype, shape)
    kept = picture.copy()
    batch, form = to_batch(picture)
    channels = 1 if len(shape) == 2 else shape[2]
    assert batch.shape == (1, channels, *shape[:2])
    assert batch.dtype == torch.float32
    if dtype in TOPS:
        assert float(batch.max()) == 1
        assert float(batch.min()) == pytest.approx(np.iinfo(dtype).min / TOPS[dtype])
    back = from_batch(batch, form)
    assert isinstance(back, np.ndarray)
    assert (back.shape, back.dtype) == (picture.shape, picture.dtype)
    assert back.flags["C_CONTIGUOUS"]
    assert close_enough(back, picture)
    back[:] = 0
    assert np.array_equal(picture, kept)


@pytest.mark.parametrize("dtype", [*TOPS, *FLOATS, "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7), (1, 5, 7)])
def test_tensors_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    source = example("float32" if dtype == "bfloat16" else dtype, shape)
    picture = torch.from_numpy(source).to(getattr(torch, dtype))
    batch, form = to_batch(picture)
    assert batch.shape == (shape if len(shape) == 4 else (1, *shape))
    assert batch.dtype == torch.float32
    back = from_batch(batch, form)
    assert isinstance(back, torch.Tensor)
    assert (back.shape, back.dtype, back.device) == (picture.shape, picture.dtype, picture.device)
    if dtype == "bfloat16":
        assert torch.equal(back, picture)
    else:
        assert close_enough(back.numpy(), picture.numpy())


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order_and_strides_of_an_array_do_not_matter(order: str) -> None:
    picture = example("uint16", (6, 8, 3))
    view = np.ascontiguousarray(picture[::-1].astype(f"{order}u2"))[::-1]
    batch, form = to_batch(view)
    back = from_batch(batch, form)
    assert np.array_equal(back, picture)
    assert back.dtype == view.dtype


@pytest.mark.parametrize("dtype", TOPS)
def test_integers_are_rounded_and_clipped(dtype: str) -> None:
    top, bottom = TOPS[dtype], int(np.iinfo(dtype).min)
    _, form = to_batch(np.zeros((1, 4), dtype))
    values = torch.tensor([2.0, -2.0, 10.4 / top, 10.6 / top]).view(1, 1, 1, 4)
    assert from_batch(values, form).tolist() == [[top, min(bottom, 0), 10, 11]]


def test_floats_are_not_clipped() -> None:
    picture = np.array([[-3.0, 0.0, 7.5]], np.float32)
    batch, form = to_batch(picture)
    assert batch.flatten().tolist() == [-3.0, 0.0, 7.5]
    assert np.array_equal(from_batch(batch, form), picture)


@pytest.mark.parametrize("value_range", [(0, 255), (-1000.0, 3000.0), (0.25, 0.5)])
def test_value_range_maps_to_one(value_range: tuple[float, float]) -> None:
    low, high = value_range
    picture = np.array([[low, high, (low + high) / 2, high + (high - low)]], np.float64)
    batch, form = to_batch(picture, value_range=value_range)
    assert batch.flatten().tolist() == pytest.approx([0, 1, 0.5, 2])
    np.testing.assert_allclose(from_batch(batch, form), picture, rtol=1e-6, atol=1e-4)


def test_value_range_does_not_touch_integers() -> None:
    batch, _ = to_batch(np.array([[255]], np.uint8), value_range=(0, 10))
    assert batch.item() == 1


def test_large_offsets_are_taken_away_in_double_precision() -> None:
    picture = 1e9 + np.arange(12.0).reshape(3, 4)
    batch, form = to_batch(picture, value_range=(1e9, 1e9 + 11))
    np.testing.assert_allclose(from_batch(batch, form), picture, rtol=0, atol=1e-4)


def test_the_result_carries_no_gradient() -> None:
    picture = torch.rand(3, 4, 4, requires_grad=True)
    batch, form = to_batch(picture)
    back = from_batch(batch, form)
    assert isinstance(back, torch.Tensor)
    assert not batch.requires_grad
    assert not back.requires_grad


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros(4),
        np.zeros((1, 2, 3, 4)),
        np.zeros((0, 4)),
        np.zeros((4, 0, 3)),
        np.zeros((4, 4, 0)),
        torch.zeros(4, 4),
        torch.zeros(1, 1, 1, 4, 4),
        torch.zeros(3, 0, 4),
    ],
    ids=lambda picture: str(tuple(picture.shape)),
)
def test_shapes_that_are_no_picture_are_refused(picture: Any) -> None:
    with pytest.raises(SizeError, match="shape"):
        to_batch(picture)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4), complex),
        np.full((4, 4), "a"),
        torch.zeros(1, 4, 4, dtype=torch.bool),
        torch.zeros(1, 4, 4, dtype=torch.int64),
        torch.zeros(1, 4, 4, dtype=torch.complex64),
    ],
    ids=lambda picture: str(picture.dtype),
)
def test_dtypes_that_hold_no_picture_are_refused(picture: Any) -> None:
    with pytest.raises(PixelError, match="floats or uint8"):
        to_batch(picture)


@pytest.mark.parametrize("value_range", [(1.0, 1.0), (2.0, 1.0), (0.0, math.nan)])
def test_empty_value_range_is_refused(value_range: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match="high > low"):
        to_batch(np.zeros((4, 4)), value_range=value_range)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_bad_pixel_is_named(value: float) -> None:
    batch = torch.zeros(1, 3, 8, 9)
    check_finite(batch)
    batch[0, 1, 4, 6] = batch[0, 2, 7, 8] = value
    with pytest.raises(PixelError, match=r"2 values.*channel 1, row 4, column 6.*nan=\"mask\""):
        check_finite(batch)


@pytest.mark.parametrize("picture", [[[0.0, 1.0]], "photo.png", None])
def test_what_is_no_array_is_refused_with_what_to_type(picture: object) -> None:
    with pytest.raises(PixelError, match=r"np\.asarray"):
        to_batch(picture)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool"])
def test_a_dtype_that_no_picture_has_is_told_with_the_way_out(dtype: str) -> None:
    with pytest.raises(PixelError, match=r"uint8, uint16.*picture\.astype\(np\.uint8\)"):
        to_batch(np.zeros((4, 4), dtype))
    with pytest.raises(PixelError, match=r"uint8, uint16.*picture\.to\(torch\.uint8\)"):
        to_batch(torch.zeros((1, 4, 4), dtype=getattr(torch, dtype)))


def test_floats_that_cannot_be_on_the_usual_scale_are_told() -> None:
    denoiser = AsymmetricMaskDenoiser(torch.nn.Conv2d(3, 3, 3, padding=1))
    picture = 100 + 20 * np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"floats from 100.* to 1[12].*value_range = \(0, 255\)"):
        denoiser.denoise(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoiser.denoise(picture / 255)
        denoiser.denoise(picture.astype(np.uint8))
        denoiser.value_range = (0, 255)
        denoiser.denoise(picture)


@pytest.mark.parametrize("check", [number, whole])
@pytest.mark.parametrize("value", [True, "3", None, math.inf])
def test_what_is_no_number_is_refused(check: Any, value: Any) -> None:
    with pytest.raises(SettingError, match="size is"):
        check("size", value)


def test_a_number_beyond_all_floats_is_refused() -> None:
    with pytest.raises(SettingError, match="size is"):
        number("size", 10**400)

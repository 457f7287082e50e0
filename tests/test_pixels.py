"""Pixel downsampling: every pixel finds its place, and its way back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from masked_denoise import PixelDownsample
from masked_denoise.errors import SettingError, SizeError
from masked_denoise.pixels import reflect_pad

DTYPES = (torch.uint8, torch.float16, torch.bool, torch.int64, torch.float32)


def reflected(index: int, length: int) -> int:
    """Return where a walk that turns round at both ends stands after `index` steps."""
    place, step = 0, 1
    for _ in range(index):
        if length == 1:
            return 0
        if not 0 <= place + step < length:
            step = -step
        place += step
    return place


def slow_down(image: Tensor, stride: int) -> Tensor:
    """Return the sub-images, pixel by pixel."""
    b, c, h, w = image.shape
    height, width = -(-h // stride), -(-w // stride)
    out = torch.empty(b * stride * stride, c, height, width, dtype=image.dtype)
    for n in range(len(out)):
        image_index, offset = divmod(n, stride * stride)
        for i in range(height):
            for j in range(width):
                row = reflected(i * stride + offset // stride, h)
                col = reflected(j * stride + offset % stride, w)
                out[n, :, i, j] = image[image_index, :, row, col]
    return out


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(5, 5), (7, 12), (10, 6)])
def test_down_equals_a_slow_loop(stride: int, size: tuple[int, int]) -> None:
    image = torch.arange(2 * 3 * size[0] * size[1]).view(2, 3, *size)
    assert torch.equal(PixelDownsample(stride).down(image), slow_down(image, stride))


@pytest.mark.parametrize("stride", range(1, 8))
def test_up_undoes_down(stride: int) -> None:
    pixels = PixelDownsample(stride)
    for dtype in DTYPES:
        for size in [(7, 7), (8, 13), (stride, stride), (stride + 1, 2 * stride + 1)]:
            size = (max(size[0], stride), max(size[1], stride))
            image = torch.randint(0, 2 if dtype is torch.bool else 200, (2, 3, *size)).to(dtype)
            restored = pixels.up(pixels.down(image), size=size)
            assert restored.dtype == dtype
            assert torch.equal(restored, image)


def test_up_without_size_keeps_the_whole() -> None:
    pixels = PixelDownsample(3)
    assert pixels.up(pixels.down(torch.rand(2, 1, 6, 9))).shape == (2, 1, 6, 9)
    assert pixels.up(pixels.down(torch.rand(2, 1, 7, 9))).shape == (2, 1, 9, 9)


def test_gradient_reaches_every_pixel_once() -> None:
    image = torch.rand(1, 2, 8, 6, requires_grad=True)
    PixelDownsample(2).down(image).sum().backward()
    assert image.grad is not None
    assert torch.equal(image.grad, torch.ones_like(image))


@pytest.mark.parametrize(("length", "pad"), [(1, 5), (2, 7), (3, 20), (5, 3), (6, 0)])
def test_reflection_goes_back_and_forth(length: int, pad: int) -> None:
    image = torch.arange(length).view(1, 1, 1, length)
    expected = [reflected(index, length) for index in range(length + pad)]
    assert reflect_pad(image, 0, pad)[0, 0, 0].tolist() == expected
    assert reflect_pad(image.mT, pad, 0)[0, 0, :, 0].tolist() == expected


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_grid_names_the_pixel_each_value_came_from(stride: int) -> None:
    pixels, (h, w) = PixelDownsample(stride), (6, 12)
    rows, cols = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    grid = pixels.grid(2, (h, w), sample=7, origin=(6, 30))
    images = torch.stack([rows + 6, cols + 30])[None].repeat(2, 1, 1, 1)
    down = pixels.down(images)
    assert grid.shape == (2 * stride**2, 1, h // stride, w // stride)
    assert torch.equal(grid.row.expand(grid.shape), down[:, :1])
    assert torch.equal(grid.col.expand(grid.shape), down[:, 1:])
    assert grid.sample.flatten().tolist() == [7] * stride**2 + [8] * stride**2
    assert torch.equal(grid.sub_row.expand(grid.shape), down[:, :1] // stride)
    assert torch.equal(grid.sub_col.expand(grid.shape), down[:, 1:] // stride)
    assert (grid.rows, grid.columns) == ((6, 6 + h), (30, 30 + w))


def test_grid_takes_an_index_for_each_image() -> None:
    grid = PixelDownsample(2).grid(2, (4, 4), sample=torch.tensor([9, 4], dtype=torch.int32))
    assert grid.sample.dtype == torch.int64
    assert grid.sample.flatten().tolist() == [9] * 4 + [4] * 4


def test_unusable_sizes_are_named() -> None:
    with pytest.raises(SizeError, match=r"2 x 9.*stride, 3"):
        PixelDownsample(3).down(torch.rand(1, 1, 2, 9))
    with pytest.raises(SizeError, match=r"\(B, C, H, W\)"):
        PixelDownsample(2).down(torch.rand(3, 8, 8))
    with pytest.raises(SizeError, match="multiple of stride"):
        PixelDownsample(2).up(torch.rand(6, 1, 4, 4))
    with pytest.raises(SizeError, match="does not belong"):
        PixelDownsample(2).up(torch.rand(4, 1, 4, 4), size=(9, 8))
    with pytest.raises(SizeError, match=r"\(B·S·S, C, h, w\)"):
        PixelDownsample(2).up(torch.rand(1, 4, 4))
    with pytest.raises(SettingError, match="origin"):
        PixelDownsample(3).grid(1, (6, 6), origin=(3, 4))
    with pytest.raises(SizeError, match="3 sample"):
        PixelDownsample(2).grid(2, (6, 6), sample=torch.arange(3))


@pytest.mark.parametrize("stride", [0, -1, 2.0, "2", True, None])
def test_unusable_strides_are_refused(stride: object) -> None:
    with pytest.raises(SettingError, match="stride"):
        PixelDownsample(stride)  # type: ignore[arg-type]

"""The masking operators against slow loops, and what must never come through a hidden pixel."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from masked_denoise.errors import SettingError
from masked_denoise.ops import fill_hidden, merge_branches, reference


def random_case(
    shape: tuple[int, int, int, int], share: float, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(shape, generator=generator)
    hidden = torch.rand(shape[0], 1, *shape[2:], generator=generator) < share
    return image, hidden


def random_words(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**32, (shape[0], 1, *shape[2:]), generator=generator)


def slow_mean(image: Tensor, hidden: Tensor) -> Tensor:
    """Return the image with every hidden pixel replaced, one after the other."""
    out = image.clone()
    count, _, height, width = image.shape
    for n, row, col in itertools.product(range(count), range(height), range(width)):
        if not hidden[n, 0, row, col]:
            continue
        for radius in (1, 2, 3, max(height, width)):
            rows = range(max(row - radius, 0), min(row + radius + 1, height))
            cols = range(max(col - radius, 0), min(col + radius + 1, width))
            seen = [image[n, :, i, j] for i in rows for j in cols if not hidden[n, 0, i, j]]
            if seen:
                break
        out[n, :, row, col] = torch.stack(seen).mean(0) if seen else 0.0
    return out


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.93, 0.98, 1.0])
@pytest.mark.parametrize("size", [(11, 13), (1, 9), (2, 2), (7, 1), (1, 1)])
def test_mean_fill_equals_a_slow_loop(share: float, size: tuple[int, int]) -> None:
    image, hidden = random_case((2, 3, *size), share)
    expected = slow_mean(image, hidden)
    for form in (fill_hidden, reference.fill_hidden):
        torch.testing.assert_close(form(image, hidden, "mean"), expected)


@pytest.mark.parametrize(("hole", "reach"), [(1, 1), (3, 2), (5, 3), (7, 99), (9, 99)])
def test_mean_fill_widens_its_window_only_where_it_must(hole: int, reach: int) -> None:
    """In the middle of a square hole the mean is that of the ring around it, else of all."""
    image, hidden = random_case((1, 2, 15, 15), 0.0)
    low, high = 7 - hole // 2, 7 + hole // 2 + 1
    hidden[:, :, low:high, low:high] = True
    window = slice(max(7 - reach, 0), 7 + reach + 1)
    seen = ~hidden[0, 0, window, window]
    expected = image[0, :, window, window][:, seen].mean(1)
    torch.testing.assert_close(fill_hidden(image, hidden, "mean")[0, :, 7, 7], expected)


@pytest.mark.parametrize("fill", ["mean", "zero", 0.5])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_nothing_under_a_hidden_pixel_comes_through(fill: str | float, poison: float) -> None:
    for share in (0.5, 0.95, 1.0):
        image, hidden = random_case((2, 3, 16, 17), share)
        poisoned = torch.where(hidden, poison, image)
        assert torch.equal(fill_hidden(poisoned, hidden, fill), fill_hidden(image, hidden, fill))


@pytest.mark.parametrize("fill", ["mean", "zero", -3, 0.25, "neighbor"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_visible_pixels_and_dtype_stay(fill: str | float, dtype: torch.dtype) -> None:
    image, hidden = random_case((2, 3, 9, 8), 0.5)
    image = image.to(dtype)
    filled = fill_hidden(image, hidden, fill, word=random_words(image.shape))
    seen = (~hidden).expand_as(image)
    assert filled.dtype == dtype
    assert torch.equal(filled[seen], image[seen])
    if fill in (-3, 0.25, "zero"):
        assert bool((filled[~seen] == (0 if fill == "zero" else fill)).all())


@pytest.mark.parametrize("fill", ["mean", "zero", "neighbor"])
def test_the_image_that_came_is_left_alone(fill: str) -> None:
    image, hidden = random_case((1, 3, 8, 8), 0.5)
    image_before, hidden_before = image.clone(), hidden.clone()
    fill_hidden(image, hidden, fill, word=random_words(image.shape))
    assert torch.equal(image, image_before)
    assert torch.equal(hidden, hidden_before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mean_fill_in_half_precision(dtype: torch.dtype) -> None:
    for share in (0.5, 0.9):
        image, hidden = random_case((1, 3, 40, 41), share)
        exact = fill_hidden(image.to(dtype).float(), hidden, "mean")
        half = fill_hidden(image.to(dtype), hidden, "mean").float()
        torch.testing.assert_close(half, exact, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mean_of_a_large_sub_image_does_not_overflow(dtype: torch.dtype) -> None:
    """More visible pixels than half precision can count, and one hole that needs them all."""
    image, hidden = random_case((1, 1, 300, 300), 0.0)
    hidden[:, :, 100:109, 100:109] = True
    filled = fill_hidden(image.to(dtype), hidden, "mean")
    assert float(filled[0, 0, 104, 104]) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("fill", ["mean", "zero", "neighbor"])
def test_memory_layout_does_not_matter(fill: str) -> None:
    image, hidden = random_case((2, 3, 12, 10), 0.6)
    word = random_words(image.shape)
    expected = fill_hidden(image, hidden, fill, word=word)
    wide = torch.stack([image, torch.full_like(image, math.nan)], -1).flatten(3)[..., ::2]
    assert not wide.is_contiguous()
    mask = hidden.mT.contiguous().mT
    layouts = [
        image.contiguous(memory_format=torch.channels_last),
        wide,
        image.mT.contiguous().mT,
        image.flip(3).flip(3),
    ]
    for other in layouts:
        torch.testing.assert_close(fill_hidden(other, mask, fill, word=word), expected)


@pytest.mark.parametrize("fill", ["mean", "zero", "neighbor"])
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8)])
def test_empty_batch(fill: str, shape: tuple[int, int, int, int]) -> None:
    image, hidden = random_case(shape, 0.5)
    assert fill_hidden(image, hidden, fill, word=random_words(shape)).shape == shape


def test_mean_fill_lets_the_gradient_of_visible_pixels_through() -> None:
    image, hidden = random_case((1, 2, 6, 6), 0.6)
    image = image.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fill_hidden(x, hidden, "mean"), (image,))
    fill_hidden(image, hidden, "mean").sum().backward()
    assert image.grad is not None
    assert bool((image.grad[hidden.expand_as(image)] == 0).all())


@pytest.mark.parametrize("size", [(12, 12), (5, 5), (4, 9), (3, 3), (2, 6), (2, 2), (1, 5), (5, 1)])
def test_neighbor_is_another_pixel_of_the_5x5(size: tuple[int, int]) -> None:
    """Every other pixel within two rows and columns is picked equally often, the own one never."""
    height, width = size
    draws = 2400
    image = torch.arange(float(height * width)).view(1, 1, height, width).repeat(draws, 2, 1, 1)
    word = random_words(image.shape, seed=1)
    filled = fill_hidden(image, torch.ones_like(word, dtype=torch.bool), "neighbor", word=word)
    assert torch.equal(filled[:, 0], filled[:, 1])
    for row, col in itertools.product(range(height), range(width)):
        near = {
            i * width + j
            for i in range(max(row - 2, 0), min(row + 3, height))
            for j in range(max(col - 2, 0), min(col + 3, width))
        } - {row * width + col}
        counts = torch.bincount(filled[:, 0, row, col].long(), minlength=height * width)
        assert set(counts.nonzero().flatten().tolist()) == near
        expected = draws / len(near)
        assert (counts[sorted(near)] - expected).abs().max() <= 5.5 * math.sqrt(expected)


def test_neighbor_of_a_single_pixel_is_itself() -> None:
    one = torch.ones(1, 1, 1, 1)
    assert fill_hidden(one, one.bool(), "neighbor", word=random_words((1, 1, 1, 1))).item() == 1


def test_unknown_fill_is_refused() -> None:
    image, hidden = random_case((1, 1, 4, 4), 0.5)
    for fill in ("median", True, None, [0.0]):
        with pytest.raises(SettingError, match="'mean', 'zero', 'neighbor' or a number"):
            fill_hidden(image, hidden, fill)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="random bits"):
        fill_hidden(image, hidden, "neighbor")


@pytest.mark.parametrize("branches", [1, 2, 5])
def test_merge_takes_every_pixel_from_its_branch(branches: int) -> None:
    label = torch.randint(0, branches, (2, 1, 6, 7))
    outputs = [torch.full((2, 3, 6, 7), float(branch)) for branch in range(branches)]
    merged = merge_branches(outputs, [label == branch for branch in range(branches)])
    assert torch.equal(merged, label.float().expand(2, 3, 6, 7))


def test_merge_takes_nothing_from_the_other_branches() -> None:
    label = torch.randint(0, 3, (1, 1, 8, 8))
    outputs = [torch.where(label == branch, 1.0, math.nan) for branch in range(3)]
    outputs = [output.requires_grad_() for output in outputs]
    merged = merge_branches(outputs, [label == branch for branch in range(3)])
    assert bool((merged == 1).all())
    merged.sum().backward()
    for branch, output in enumerate(outputs):
        assert output.grad is not None
        assert torch.equal(output.grad, (label == branch).float())


def test_merge_needs_a_mask_for_each_output() -> None:
    with pytest.raises(ValueError, match="argument"):
        merge_branches([torch.ones(1, 1, 2, 2)] * 2, [torch.ones(1, 1, 2, 2).bool()])

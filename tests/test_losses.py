"""Losses: the right number, and a gradient that is finite wherever training may come."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from masked_denoise import mask_loss, smoothness_loss, total_loss
from masked_denoise.errors import SettingError, SizeError
from masked_denoise.ops import reference


def random_case(share: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    output = torch.rand(2, 3, 7, 6, generator=generator)
    target = torch.rand(2, 3, 7, 6, generator=generator)
    return output, target, torch.rand(2, 1, 7, 6, generator=generator) < share


def slow_smoothness(image: Tensor) -> float:
    """Return the mean over pixels and channels of sqrt(dy² + dx²), differences forward."""
    b, c, height, width = image.shape
    total = 0.0
    for plane in image.reshape(b * c, height, width):
        for row in range(height):
            for col in range(width):
                here = float(plane[row, col])
                dy = float(plane[row + 1, col]) - here if row + 1 < height else 0.0
                dx = float(plane[row, col + 1]) - here if col + 1 < width else 0.0
                total += math.hypot(dy, dx)
    return total / image.numel()


@pytest.mark.parametrize(("kind", "power"), [("l1", 1), ("l2", 2)])
def test_mask_loss_is_the_mean_over_scored_pixels_and_channels(kind: str, power: int) -> None:
    output, target, scored = random_case(0.3)
    distances = [
        abs(float(output[n, c, i, j] - target[n, c, i, j])) ** power
        for n, _, i, j in scored.nonzero().tolist()
        for c in range(3)
    ]
    loss = mask_loss(output, target, scored, kind=kind)  # type: ignore[arg-type]
    assert loss.shape == ()
    assert float(loss) == pytest.approx(sum(distances) / len(distances), rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "l2"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_pixels_that_are_not_scored_do_not_enter(kind: str, poison: float) -> None:
    output, target, scored = random_case()
    expected = mask_loss(output, target, scored, kind=kind)  # type: ignore[arg-type]
    output = torch.where(scored, output, poison).requires_grad_()
    target = torch.where(scored, target, poison)
    loss = mask_loss(output, target, scored, kind=kind)  # type: ignore[arg-type]
    assert torch.equal(loss, expected)
    loss.backward()
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())
    reached = (output.grad != 0).any(1, keepdim=True)
    assert torch.equal(reached, scored)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_nothing_scored_costs_nothing(kind: str) -> None:
    output, target, scored = random_case()
    output.requires_grad_()
    loss = mask_loss(output, target, torch.zeros_like(scored), kind=kind)  # type: ignore[arg-type]
    loss.backward()
    assert float(loss.detach()) == 0
    assert output.grad is not None
    assert not bool(output.grad.any())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    """A sum of 3·400·400 differences of 1 would be infinite, or stuck at 256, in half precision."""
    output = torch.ones(1, 3, 400, 400, dtype=dtype, requires_grad=True)
    target, scored = torch.zeros_like(output), torch.ones(1, 1, 400, 400).bool()
    for kind in ("l1", "l2"):
        loss = mask_loss(output, target, scored, kind=kind)  # type: ignore[arg-type]
        assert loss.dtype == torch.float32
        assert float(loss.detach()) == 1
    smooth = smoothness_loss(output)
    assert smooth.dtype == torch.float32
    (loss + smooth).backward()
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())


def test_large_half_values_do_not_overflow_when_squared() -> None:
    output = torch.full((1, 1, 2, 2), 1000.0, dtype=torch.float16)
    scored = torch.ones(1, 1, 2, 2).bool()
    assert float(mask_loss(output, -output, scored, kind="l2")) == 4e6


@pytest.mark.parametrize("kind", ["l1", "l2"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_gradient_is_that_of_the_definition(kind: str, scale: float) -> None:
    """For output and target, against autograd through the mean of the scored distances."""
    output, target, scored = random_case(0.4)
    ours = [output.clone().requires_grad_(), target.clone().requires_grad_()]
    plain = [output.clone().requires_grad_(), target.clone().requires_grad_()]
    (scale * mask_loss(*ours, scored, kind=kind)).backward()  # type: ignore[arg-type]
    difference = (plain[0] - plain[1])[scored.expand_as(output)]
    distance = difference.abs() if kind == "l1" else difference.square()
    (scale * distance.mean()).backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_constant_target_gets_no_gradient() -> None:
    output, target, scored = random_case()
    output.requires_grad_()
    mask_loss(output, target, scored).backward()
    assert target.grad is None


def test_equal_images_have_a_finite_gradient() -> None:
    output = torch.rand(1, 2, 4, 4).requires_grad_()
    mask_loss(output, output.detach(), torch.ones(1, 1, 4, 4).bool()).backward()
    assert output.grad is not None
    assert not bool(output.grad.any())


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 1, 5), (2, 1, 5, 1), (2, 3, 6, 7)])
def test_smoothness_equals_a_slow_loop(shape: tuple[int, int, int, int]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    assert float(smoothness_loss(image)) == pytest.approx(slow_smoothness(image), abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_smoothness_of_a_flat_image(dtype: torch.dtype, value: float) -> None:
    image = torch.full((1, 2, 6, 6), value, dtype=dtype, requires_grad=True)
    loss = smoothness_loss(image)
    loss.backward()
    assert float(loss.detach()) == 0
    assert image.grad is not None
    assert not bool(image.grad.any())


@pytest.mark.parametrize("step", [1e-12, 1e-7, 1e-6, 1e-3, 1.0, 1e4])
def test_gradient_of_smoothness_is_finite_and_bounded(step: float) -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = step
    image.requires_grad_()
    smoothness_loss(image).backward()
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
    assert float(image.grad.abs().max()) <= 4 / 25


def test_smoothness_of_no_image_is_zero() -> None:
    assert float(smoothness_loss(torch.zeros(0, 3, 4, 4))) == 0


def test_total_is_the_sum_of_branches_and_lambda_times_smoothness() -> None:
    image = torch.rand(1, 3, 8, 8)
    losses = torch.tensor([0.25, 0.5, 1.0])
    expected = 1.75 + 0.05 * float(smoothness_loss(image))
    assert float(total_loss(losses, image, smoothness=0.05)) == pytest.approx(expected)
    expected = 0.25 + 0.01 * float(smoothness_loss(image))
    assert float(total_loss(losses[0], image)) == pytest.approx(expected)


def test_shapes_that_do_not_fit_are_named() -> None:
    output, target, scored = random_case()
    for case in (
        (output, target[:1], scored),
        (output, target, scored[:, 0]),
        (output, target, scored.expand(-1, 3, -1, -1)),
        (output, target, scored[..., 1:]),
    ):
        with pytest.raises(SizeError, match=r"\(2, 3, 7, 6\)"):
            mask_loss(*case)
    with pytest.raises(SizeError, match=r"\(B, C, H, W\)"):
        smoothness_loss(torch.rand(3, 4, 4))
    with pytest.raises(SettingError, match="'l1' or 'l2'"):
        mask_loss(output, target, scored, kind="huber")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_many_values_are_summed_precisely(kind: str) -> None:
    """A hundred million of them, of which the sum in one row of float32 is off by a fifth."""
    image = torch.full((1, 1, 1, 1), 0.1).expand(1, 3, 3000, 3000)
    scored = torch.ones(1, 1, 3000, 3000, dtype=torch.bool)
    loss = mask_loss(image, torch.zeros(()).expand_as(image), scored, kind=kind)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(0.1 if kind == "l1" else 0.01, rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_double_precision_is_taken(kind: str) -> None:
    output, target, scored = random_case()
    expected = mask_loss(output, target, scored, kind=kind)  # type: ignore[arg-type]
    wide = output.double().requires_grad_()
    loss = mask_loss(wide, target, scored, kind=kind)  # type: ignore[arg-type]
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    loss.backward()  # type: ignore[no-untyped-call]
    assert wide.grad is not None
    assert wide.grad.dtype == torch.float64


def definition(kind: str, output: Tensor, target: Tensor, scored: Tensor) -> Tensor:
    error = (output - target)[scored.expand_as(output)]
    return error.abs().mean() if kind == "l1" else error.square().mean()


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_gradients_can_be_differentiated_again(kind: str) -> None:
    """As meta-learning and penalties on gradients do."""
    output, target, scored = random_case()

    def second(loss: Callable[[Tensor], Tensor]) -> Tensor:
        x = output.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss(3 * x.square()), x, create_graph=True)
        assert first.requires_grad
        return torch.autograd.grad(first.square().sum(), x)[0]

    ours = second(lambda x: mask_loss(x, target, scored, kind=kind))  # type: ignore[arg-type]
    assert torch.allclose(ours, second(lambda x: definition(kind, x, target, scored)), rtol=1e-4)
    smooth = second(smoothness_loss)
    plain = second(lambda x: reference.smoothness(x, 1e-6))
    assert torch.allclose(smooth, plain, rtol=1e-4)


def test_functional_transforms_are_taken() -> None:
    output, target, scored = random_case()
    x = output.clone().requires_grad_()
    mask_loss(x, target, scored).backward()  # type: ignore[no-untyped-call]
    found = torch.func.grad(lambda o: mask_loss(o, target, scored))(output)
    assert torch.allclose(found, x.grad)  # type: ignore[arg-type]
    one_by_one = [
        mask_loss(o[None], t[None], scored[:1]) for o, t in zip(output, target, strict=True)
    ]
    mapped = torch.func.vmap(lambda o, t: mask_loss(o[None], t[None], scored[:1]))(output, target)
    assert torch.allclose(mapped, torch.stack(one_by_one))
    value, slope = torch.func.jvp(smoothness_loss, (output,), (torch.ones_like(output),))
    assert torch.allclose(value, smoothness_loss(output))
    assert float(slope) == pytest.approx(0, abs=1e-6)  # brighter everywhere is as smooth


def test_a_mask_of_weights_is_refused() -> None:
    output, target, scored = random_case()
    with pytest.raises(SettingError, match=r"scored is of torch\.float32; bool"):
        mask_loss(output, target, 0.25 * scored)

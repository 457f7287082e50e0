"""The losses as operators registered with PyTorch; `library` says what their arguments are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..pixels import PixelDownsample
from . import eager, launch, reference
from .library import MASK, PLAN, Gradients, on_gpu, operator, picked_pixels

# -- distance over scored pixels ------------------------------------------------------------------


def _error(
    output: Tensor,
    image: Tensor,
    masks: Sequence[Tensor | None],
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
) -> tuple[Tensor, Tensor]:
    """Return output - image where scored, 0 elsewhere; and one over the number of values."""
    picked, padded = picked_pixels(image.shape, image.device, masks, plan, place, branch, True)
    scored = picked if padded is None else picked & ~padded
    error, scale = eager.error_where(output, PixelDownsample(place[0]).down(image), scored)
    return error, torch.as_tensor(scale, dtype=torch.float32, device=image.device)


def _masked_distance(
    output: Tensor,
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    squared: bool,
) -> tuple[Tensor, Tensor]:
    error, scale = _error(output, image, (sample, draw, mask), plan, place, branch)
    return eager.distance_of(error, scale, squared=squared), scale


def _masked_distance_backward(
    grad: Tensor,
    scale: Tensor,
    output: Tensor,
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    squared: bool,
) -> Tensor:
    error, _ = _error(output, image, (sample, draw, mask), plan, place, branch)
    grad_input = 2 * error.float() if squared else error.sign()
    return torch.empty_like(output).copy_(grad_input * (grad * scale))


masked_distance = operator(
    "masked_distance",
    f"(Tensor output, Tensor image, {MASK}, {PLAN}, bool squared) -> (Tensor, Tensor)",
)(_masked_distance)
masked_distance_backward = operator(
    "masked_distance_backward",
    f"(Tensor grad, Tensor scale, Tensor output, Tensor image, {MASK}, {PLAN}, bool squared) "
    "-> Tensor",
)(_masked_distance_backward)
on_gpu(masked_distance, launch.masked_distance, _masked_distance)
on_gpu(masked_distance_backward, launch.masked_distance_backward, _masked_distance_backward)


def _fake_masked_distance(output: Tensor, image: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    scalar = output.new_empty((), dtype=torch.float32)
    return scalar, torch.empty_like(scalar)


masked_distance.register_fake(_fake_masked_distance)


def _fake_masked_distance_backward(
    grad: Tensor, scale: Tensor, output: Tensor, *args: Any
) -> Tensor:
    return torch.empty_like(output)


masked_distance_backward.register_fake(_fake_masked_distance_backward)


def _distance_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs[:5])
    ctx.settings = inputs[5:]
    ctx.mark_non_differentiable(output[1])


def _distance_gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> Gradients:
    scale, output, image, *masks = ctx.saved_tensors
    first, second = ctx.needs_input_grad[:2]
    grad_input = masked_distance_backward(grad, scale, output, image, *masks, *ctx.settings)
    size = (image.shape[2], image.shape[3])
    back = -PixelDownsample(ctx.settings[1][0]).up(grad_input, size=size) if second else None
    return (
        grad_input if first else None,
        None if back is None else back.to(image.dtype),
        *[None] * 7,
    )


masked_distance.register_autograd(_distance_gradient, setup_context=_distance_setup)


# -- smoothness -----------------------------------------------------------------------------------


def _smoothness(image: Tensor, epsilon: float) -> Tensor:
    return reference.smoothness(image, epsilon)


def _smoothness_backward(grad: Tensor, image: Tensor, epsilon: float) -> Tensor:
    _, down, across = eager.smoothness_slopes(image, epsilon)
    return torch.empty_like(image).copy_(eager.smoothness_gradient(down, across, grad))


smoothness = operator("smoothness", "(Tensor image, float epsilon) -> Tensor")(_smoothness)
smoothness_backward = operator(
    "smoothness_backward", "(Tensor grad, Tensor image, float epsilon) -> Tensor"
)(_smoothness_backward)
on_gpu(smoothness, launch.smoothness, _smoothness)
on_gpu(smoothness_backward, launch.smoothness_backward, _smoothness_backward)


def _fake_smoothness(image: Tensor, epsilon: float) -> Tensor:
    return image.new_empty((), dtype=torch.float32)


smoothness.register_fake(_fake_smoothness)


def _fake_smoothness_backward(grad: Tensor, image: Tensor, epsilon: float) -> Tensor:
    return torch.empty_like(image)


smoothness_backward.register_fake(_fake_smoothness_backward)


def _smoothness_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.epsilon = inputs[1]


def _smoothness_gradient(ctx: Any, grad: Tensor) -> Gradients:
    return smoothness_backward(grad, ctx.saved_tensors[0], ctx.epsilon), None


smoothness.register_autograd(_smoothness_gradient, setup_context=_smoothness_setup)

"""The operators where no kernel runs: the forms for CPUs on a CPU, the definitions elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..scheme import Fill, check_fill
from . import cpu, reference


def _needs_definition(*images: Tensor) -> bool:
    """Return whether the forms for CPUs do not serve: elsewhere, or where gradients are due."""
    due = torch.is_grad_enabled() and any(image.requires_grad for image in images)
    return due or any(image.device.type != "cpu" or not image.numel() for image in images)


def fill_hidden(image: Tensor, hidden: Tensor, fill: Fill, *, word: Tensor | None = None) -> Tensor:
    """Return the image with its hidden pixels filled in; see `reference.fill_hidden`."""
    check_fill(fill, sparse=True)
    if fill == "neighbor" or _needs_definition(image):
        return reference.fill_hidden(image, hidden, fill, word=word)
    if fill == "mean":
        return cpu.fill_mean(image, hidden)
    return cpu.fill_value(image, hidden, 0.0 if fill == "zero" else float(fill))


def select(mask: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """Return torch.where(mask, x, other)."""
    if _needs_definition(x, other) or x.dtype != other.dtype:
        return torch.where(mask, x, other)
    return cpu.select(mask, x, other)


def merge_branches(outputs: Sequence[Tensor], scored: Sequence[Tensor]) -> Tensor:
    """Return the image whose every pixel comes from the branch that scores it (Eq. 7).

    Args:
        outputs: K tensors (N, C, h, w), one a branch.
        scored: K tensors bool (N, 1, h, w) that partition the pixels.
    """
    merged = outputs[0]
    for output, mask in zip(outputs[1:], scored[1:], strict=True):
        merged = select(mask, output, merged)
    return merged


def error_where(output: Tensor, target: Tensor, scored: Tensor) -> tuple[Tensor, Any]:
    """Return output - target where scored, 0 elsewhere; and one over the number of values."""
    if output.device.type == "cpu":
        error, number = cpu.error_where(output, target, scored)
        return error, 1 / max(number * output.shape[1], 1)
    error = torch.where(scored, output - target, 0.0)
    return error, 1 / (scored.sum() * output.shape[1]).clamp_min(1)


def distance_of(error: Tensor, scale: Any, *, squared: bool) -> Tensor:
    """Return the float32 mean of |error| or error²; `scale` is one over the number of values."""
    if squared:
        return error.float().square().sum().mul(scale)
    return error.abs().sum(dtype=torch.float32).mul(scale)


def differentiably(
    definition: Callable[..., Tensor],
    images: Sequence[Tensor],
    wanted: Sequence[bool],
    grad: Tensor,
) -> list[Tensor | None]:
    """Return the gradients to some of the images, in a graph: a derivative of them may follow.

    Args:
        definition: called with the images, returns a scalar.
        images: its arguments.
        wanted: whether the gradient to each of them is.
        grad: that to the scalar.
    """
    inputs = [image for image, due in zip(images, wanted, strict=True) if due]
    found = iter(torch.autograd.grad(definition(*images), inputs, grad, create_graph=True))
    return [next(found) if due else None for due in wanted]


def masked_distance(output: Tensor, target: Tensor, scored: Tensor, *, squared: bool) -> Tensor:
    """Return the mean distance over scored pixels; one tensor is kept for the gradient."""
    loss: Tensor = _MaskedDistance.apply(output, target, scored, squared)
    return loss


class _MaskedDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor, scored: Tensor, squared: bool) -> Tensor:
        error, scale = error_where(output, target, scored)
        ctx.save_for_backward(error, output, target, scored)
        ctx.scale, ctx.squared, ctx.dtypes = scale, squared, (output.dtype, target.dtype)
        return distance_of(error, scale, squared=squared)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        error, output, target, scored = ctx.saved_tensors
        first, second = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():

            def distance(output: Tensor, target: Tensor) -> Tensor:
                return reference.masked_distance(output, target, scored, squared=ctx.squared)

            back = differentiably(distance, (output, target), (first, second), grad)
            return back[0], back[1], None, None
        grad_input = 2 * error.float() if ctx.squared else error.sign()
        grad_input = grad_input * (grad * ctx.scale)
        return (
            grad_input.to(ctx.dtypes[0]) if first else None,
            -grad_input.to(ctx.dtypes[1]) if second else None,
            None,
            None,
        )


def smoothness(image: Tensor, epsilon: float) -> Tensor:
    """Return `reference.smoothness`; the image and its slopes are kept for the gradient."""
    loss: Tensor = _Smoothness.apply(image, epsilon)
    return loss


def smoothness_slopes(
    image: Tensor, epsilon: float, *, wanted: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the length of each pixel's gradient and, where wanted, its slopes to dy and dx."""
    x = image.float()
    dy, dx = torch.empty_like(x), torch.empty_like(x)
    torch.sub(x[:, :, 1:], x[:, :, :-1], out=dy[:, :, :-1])
    torch.sub(x[..., 1:], x[..., :-1], out=dx[..., :-1])
    dy[:, :, -1:].zero_()
    dx[..., -1:].zero_()
    length = torch.addcmul(x.new_full((), epsilon**2), dy, dy, out=None if wanted else dy)
    length.addcmul_(dx, dx).sqrt_()
    return (length, dy.div_(length), dx.div_(length)) if wanted else (length, dy, dx)


def smoothness_gradient(down: Tensor, across: Tensor, scale: Tensor) -> Tensor:
    """Return the gradient to the image, from the slopes."""
    grad_input = torch.add(down, across).neg_()
    grad_input[:, :, 1:] += down[:, :, :-1]
    grad_input[..., 1:] += across[..., :-1]
    return grad_input.mul_(scale / max(grad_input.numel(), 1))


class _Smoothness(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, epsilon: float) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        length, down, across = smoothness_slopes(image, epsilon, wanted=wanted)
        if wanted:
            ctx.save_for_backward(image, down, across)
        ctx.epsilon = epsilon
        return length.sub_(epsilon).sum().div_(max(image.numel(), 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        image, down, across = ctx.saved_tensors
        if torch.is_grad_enabled():

            def smoothness(image: Tensor) -> Tensor:
                return reference.smoothness(image, ctx.epsilon)

            return differentiably(smoothness, (image,), (True,), grad)[0], None
        return smoothness_gradient(down, across, grad).to(image.dtype), None

"""The operators where no kernel runs: the forms for CPUs on a CPU, the definitions elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..scheme import Fill
from . import cpu, reference


def fill_hidden(image: Tensor, hidden: Tensor, fill: Fill, *, word: Tensor | None = None) -> Tensor:
    """Return the image with its hidden pixels filled in; see `reference.fill_hidden`."""
    plain = image.requires_grad and torch.is_grad_enabled()
    if fill == "mean" and image.device.type == "cpu" and not plain and image.numel():
        return cpu.fill_mean(image, hidden)
    return reference.fill_hidden(image, hidden, fill, word=word)


def merge_branches(outputs: Sequence[Tensor], scored: Sequence[Tensor]) -> Tensor:
    """Return the image whose every pixel comes from the branch that scores it."""
    return reference.merge_branches(outputs, scored)


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
    length: Tensor = torch.linalg.vector_norm(error, 1, dtype=torch.float32)
    return length.mul(scale)


def masked_distance(output: Tensor, target: Tensor, scored: Tensor, *, squared: bool) -> Tensor:
    """Return the mean distance over scored pixels; one tensor is kept for the gradient."""
    loss: Tensor = _MaskedDistance.apply(output, target, scored, squared)
    return loss


class _MaskedDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor, scored: Tensor, squared: bool) -> Tensor:
        error, scale = error_where(output, target, scored)
        ctx.save_for_backward(error)
        ctx.scale, ctx.squared, ctx.dtypes = scale, squared, (output.dtype, target.dtype)
        return distance_of(error, scale, squared=squared)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (error,) = ctx.saved_tensors
        slope = 2 * error.float() if ctx.squared else error.sign()
        slope = slope * (grad * ctx.scale)
        first, second = ctx.needs_input_grad[:2]
        return (
            slope.to(ctx.dtypes[0]) if first else None,
            -slope.to(ctx.dtypes[1]) if second else None,
            None,
            None,
        )


def smoothness(image: Tensor, epsilon: float) -> Tensor:
    """Return `reference.smoothness`, its slopes kept for the gradient."""
    loss: Tensor = _Smoothness.apply(image, epsilon)
    return loss


def smoothness_slopes(image: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the length of each pixel's gradient, less epsilon, and its slopes to dy and dx."""
    x = image.float()
    dy, dx = torch.zeros_like(x), torch.zeros_like(x)
    torch.sub(x[:, :, 1:], x[:, :, :-1], out=dy[:, :, :-1])
    torch.sub(x[..., 1:], x[..., :-1], out=dx[..., :-1])
    length = (dy * dy).addcmul_(dx, dx).add_(epsilon**2).sqrt_()
    return length, dy.div_(length), dx.div_(length)


def smoothness_gradient(down: Tensor, across: Tensor, scale: Tensor) -> Tensor:
    """Return the gradient to the image, from the slopes."""
    slope = torch.add(down, across).neg_()
    slope[:, :, 1:] += down[:, :, :-1]
    slope[..., 1:] += across[..., :-1]
    return slope.mul_(scale / max(slope.numel(), 1))


class _Smoothness(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, epsilon: float) -> Tensor:
        length, down, across = smoothness_slopes(image, epsilon)
        ctx.save_for_backward(down, across)
        ctx.dtype = image.dtype
        return length.sub_(epsilon).sum().div_(max(image.numel(), 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        down, across = ctx.saved_tensors
        return smoothness_gradient(down, across, grad).to(ctx.dtype), None

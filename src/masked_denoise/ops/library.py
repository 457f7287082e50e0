"""The fused operators, registered with PyTorch: `torch.ops.masked_denoise.*`.

Each has a plain form for every device, a Triton kernel for GPUs, a fake form (shapes only) and a
gradient, so that torch.compile, torch.export, autocast and CUDA graphs take them as they are.

Arguments that they share:
    sample: int64 (B,), index of each image; None: `place` holds that of the first one.
    draw: int64 (2,), hash of the key and number of the branch, where these must be able to change
        without a new call, as in a CUDA graph; else None, and `plan` and `branch` hold them.
    mask: bool or uint8 (N, 1, h, w), not 0 where a pixel is picked; None: drawn after `plan`.
    bad: bool (B, 1, H, W), pixels that no branch may see; or None.
    plan, place: the numbers of a `MaskPlan` and of an `Origin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..hashing import WORD, hash_words
from ..pixels import Grid, PixelDownsample, outside
from . import eager, launch, reference
from .fast import why_eager
from .plan import MaskPlan, Origin, plan_hidden, plan_label

Gradients = tuple[Tensor | None, ...]
MASK = "Tensor? sample, Tensor? draw, Tensor? mask"
PLAN = "SymInt[] plan, SymInt[] place, SymInt branch"


def operator(name: str, schema: str) -> Any:
    """Return the decorator that registers a plain form as an operator."""
    return torch.library.custom_op(f"masked_denoise::{name}", mutates_args=(), schema=schema)


def on_gpu(operator: Any, kernel: Any, plain: Any) -> None:
    """Register the kernel for GPUs; tensors it cannot take go the plain way."""

    def run(*args: Any) -> Any:
        tensors = [x for x in args if isinstance(x, Tensor) and x.is_floating_point()]
        return (plain if any(map(why_eager, tensors)) else kernel)(*args)

    operator.register_kernel("cuda")(run)


def _grid(shape: Sequence[int], sample: Tensor | None, place: Origin, device: Any) -> Grid:
    return PixelDownsample(place.stride).grid(
        shape[0],
        (shape[2], shape[3]),
        sample=place.sample if sample is None else sample,
        origin=(place.row, place.col),
        device=device,
    )


def picked_pixels(
    shape: Sequence[int],
    device: torch.device,
    masks: Sequence[Tensor | None],
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    scored: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return what is picked in sub-images of images of a shape, and what only padding made."""
    sample, draw, mask = masks
    spec, where = MaskPlan(*plan), Origin(*place)
    grid = _grid(shape, sample, where, device)
    padded = outside(grid, (where.row + shape[2], where.col + shape[3]))
    if mask is not None:
        return mask != 0, padded
    chosen: Tensor | int = branch if draw is None else draw[1]
    label = plan_label(spec, grid, spec.state if draw is None else draw[0])
    return (label == chosen) if scored else plan_hidden(spec, label, chosen), padded


def _either(mask: Tensor, other: Tensor | None) -> Tensor:
    return mask if other is None else mask | other


# -- hide and downsample --------------------------------------------------------------------------


def _hidden(
    shape: Sequence[int],
    device: torch.device,
    masks: Sequence[Tensor | None],
    bad: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    scored: bool,
) -> Tensor:
    picked, padded = picked_pixels(shape, device, masks, plan, place, branch, scored)
    hidden = _either(~picked if scored else picked, padded)
    return _either(hidden, None if bad is None else PixelDownsample(place[0]).down(bad))


def _hide_down(
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    bad: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    scored: bool,
    mean: bool,
    value: float,
    channels_last: bool,
) -> Tensor:
    masks = (sample, draw, mask)
    hidden = _hidden(image.shape, image.device, masks, bad, plan, place, branch, scored)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    sub_images = PixelDownsample(place[0]).down(image)
    filled = eager.fill_hidden(sub_images, hidden, "mean" if mean else value)
    return filled.contiguous(memory_format=layout)


hide_down = operator(
    "hide_down",
    f"(Tensor image, {MASK}, Tensor? bad, {PLAN}, bool scored, bool mean, float value, "
    "bool channels_last) -> Tensor",
)(_hide_down)
on_gpu(hide_down, launch.hide_down, _hide_down)


def _fake_hide_down(image: Tensor, *args: Any) -> Tensor:
    s, (b, c, height, width) = args[5][0], image.shape
    layout = torch.channels_last if args[10] else torch.contiguous_format
    shape = (b * s * s, c, (height + s - 1) // s, (width + s - 1) // s)
    return torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=layout)


hide_down.register_fake(_fake_hide_down)


def _hide_down_backward(
    grad: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    bad: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    scored: bool,
    mean: bool,
    size: Sequence[int],
) -> Tensor:
    shape = (len(grad) // place[0] ** 2, grad.shape[1], *size)
    masks = (sample, draw, mask)
    hidden = _hidden(shape, grad.device, masks, bad, plan, place, branch, scored)
    grad_input = reference.fill_gradient(grad, hidden, mean=mean)
    return PixelDownsample(place[0]).up(grad_input, size=(size[0], size[1])).contiguous()


hide_down_backward = operator(
    "hide_down_backward",
    f"(Tensor grad, {MASK}, Tensor? bad, {PLAN}, bool scored, bool mean, SymInt[] size) -> Tensor",
)(_hide_down_backward)


def _fake_hide_down_backward(grad: Tensor, *args: Any) -> Tensor:
    s, size = args[5][0], args[9]
    return grad.new_empty((grad.shape[0] // (s * s), grad.shape[1], *size))


hide_down_backward.register_fake(_fake_hide_down_backward)


def _hide_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:5])
    ctx.settings = (*inputs[5:10], inputs[0].shape[2:])


def _hide_gradient(ctx: Any, grad: Tensor) -> Gradients:
    return (hide_down_backward(grad, *ctx.saved_tensors, *ctx.settings), *[None] * 11)


hide_down.register_autograd(_hide_gradient, setup_context=_hide_setup)


# -- merge and upsample ---------------------------------------------------------------------------


def _labels(
    shape: Sequence[int],
    device: torch.device,
    masks: Sequence[Tensor | None],
    plan: Sequence[int],
    place: Sequence[int],
) -> Tensor:
    sample, draw, label = masks
    if label is not None:
        return label
    grid, spec = _grid(shape, sample, Origin(*place), device), MaskPlan(*plan)
    return plan_label(spec, grid, spec.state if draw is None else draw[0])


def _merge_up(
    outputs: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    height: int,
    width: int,
) -> Tensor:
    shape = (outputs.shape[1] // place[0] ** 2, 1, height, width)
    label = _labels(shape, outputs.device, (sample, draw, mask), plan, place)
    scored = [label == branch for branch in range(len(outputs))]
    merged = eager.merge_branches(list(outputs), scored)
    whole = PixelDownsample(place[0]).up(merged, size=(height, width))
    return whole.clone(memory_format=torch.contiguous_format)


merge_up = operator(
    "merge_up",
    f"(Tensor outputs, {MASK}, SymInt[] plan, SymInt[] place, SymInt height, SymInt width) "
    "-> Tensor",
)(_merge_up)
on_gpu(merge_up, launch.merge_up, _merge_up)


def _fake_merge_up(outputs: Tensor, *args: Any) -> Tensor:
    s = args[4][0]
    return outputs.new_empty((outputs.shape[1] // (s * s), outputs.shape[2], *args[5:7]))


merge_up.register_fake(_fake_merge_up)


def _merge_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:4])
    ctx.branches, ctx.plan, ctx.place = len(inputs[0]), inputs[4], inputs[5]


def _merge_gradient(ctx: Any, grad: Tensor) -> Gradients:
    sample, draw, label = ctx.saved_tensors
    slopes = []
    for branch in range(ctx.branches):
        mask, at = None, draw
        if label is not None:
            mask = (label == branch) if branch else (label == 0) | (label >= ctx.branches)
        elif draw is not None:
            at = torch.stack([draw[0], torch.full_like(draw[0], branch)])
        slopes.append(
            hide_down(
                grad, sample, at, mask, None, ctx.plan, ctx.place, branch, True, False, 0.0, False
            )
        )
    return (torch.stack(slopes), *[None] * 7)


merge_up.register_autograd(_merge_gradient, setup_context=_merge_setup)


# -- replace --------------------------------------------------------------------------------------


def _replace(
    noisy: Tensor,
    denoised: Tensor,
    sample: Tensor | None,
    bad: Tensor | None,
    states: Sequence[int],
    turns: Sequence[int],
    threshold: int,
    place: Sequence[int],
) -> Tensor:
    grid = _grid(noisy.shape, sample, Origin(*place), noisy.device)
    copies = []
    for state, turn in zip(states, turns, strict=True):
        word = hash_words(state, grid.sample, grid.row, grid.col)
        back = (word + turn & WORD) < threshold
        back = back if bad is None else back & ~bad
        copies.append(eager.select(back, noisy, denoised))
    return torch.cat(copies)


replace = operator(
    "replace",
    "(Tensor noisy, Tensor denoised, Tensor? sample, Tensor? bad, SymInt[] states, "
    "SymInt[] turns, SymInt threshold, SymInt[] place) -> Tensor",
)(_replace)
on_gpu(replace, launch.replace, _replace)


def _fake_replace(noisy: Tensor, denoised: Tensor, *args: Any) -> Tensor:
    return noisy.new_empty((len(args[2]) * noisy.shape[0], *noisy.shape[1:]))


replace.register_fake(_fake_replace)


def _replace_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[2:4])
    ctx.settings = inputs[4:]


def _replace_gradient(ctx: Any, grad: Tensor) -> Gradients:
    """The noisy image gets what its pixels got, copy by copy; the denoised one the rest."""
    sample, bad = ctx.saved_tensors
    states, turns, *rest = ctx.settings
    copies, zero = grad.chunk(len(states)), torch.zeros_like(grad[: len(grad) // len(states)])
    first, second = [], []
    for copy, state, turn in zip(copies, states, turns, strict=True):
        first.append(replace(copy, zero, sample, bad, [state], [turn], *rest))
        second.append(replace(zero, copy, sample, bad, [state], [turn], *rest))
    return (torch.stack(first).sum(0), torch.stack(second).sum(0), *[None] * 6)


replace.register_autograd(_replace_gradient, setup_context=_replace_setup)

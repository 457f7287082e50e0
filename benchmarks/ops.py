"""The masking operators: each beside its definition and beside the obvious implementation.

Imported by run.py. An operator takes an image, or outputs of a network, and does all that it needs,
masks and downsampling included. It is compared with two other forms: the definition in
`ops/reference.py`, with the same masks ("eager"), and the obvious one with `torch.rand`,
`PixelUnshuffle` and boolean indexing ("indexing").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timing import Run, copy_of, in_turns
from torch import Tensor

from masked_denoise import PixelDownsample, RandomPartition, smoothness_loss
from masked_denoise.hashing import Key
from masked_denoise.memory import held_memory
from masked_denoise.ops import MaskedImage, reference, replace, why_eager
from masked_denoise.ops.reference import replacement

KEY, STRIDE, SHARE, EPSILON = Key(0, 0, 1), 2, 0.16, 1e-6


class Case(NamedTuple):
    """An operator in three forms, and the bytes that it must at least move.

    `indexing` takes the random mask that it would otherwise draw, so that it can be checked, too.
    """

    name: str
    fused: Run
    eager: Run
    indexing: Callable[..., Any]
    mask: Tensor | None
    moved: int
    exact: bool = False


def run_operators(
    shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...], repeat: int, device: str
) -> list[dict[str, Any]]:
    """Return a row a dtype and operator; all are checked before the first is timed.

    Raises:
        AssertionError: a form does not give what the definition gives.
    """
    batches = []
    for dtype in dtypes:
        image = torch.rand(shape, device=device).to(dtype)
        reason = why_eager(image)
        if image.is_cuda and reason:
            raise RuntimeError(f"the fused path is off: {reason}")
        cases = operators(image)
        for case in cases:
            check(case)
        batches.append((dtype, cases))
    with held_memory():  # as in training
        return [measure(case, dtype, repeat, device) for dtype, cases in batches for case in cases]


def operators(image: Tensor) -> list[Case]:
    """Return every operator on an image batch, with one random mask of two branches."""
    losses = [*distances(image), *smoothnesses(image)]
    return [*hides(image), *losses, merge(image), replaces(image), masking_of_step(image)]


def hides(image: Tensor) -> list[Case]:
    """Return hide-and-downsample with both fills."""

    def fused(fill: Any) -> Tensor:
        return MaskedImage(image, RandomPartition(2, fill=fill), KEY, STRIDE).show(0)

    def eager(fill: Any) -> Tensor:
        sub_images, label = drawn(image)
        return reference.fill_hidden(sub_images, label == 0, fill)

    def zero(mask: Tensor | None = None) -> Tensor:
        sub_images = unshuffled(image)
        mask = coin(sub_images) if mask is None else mask
        sub_images[mask.expand_as(sub_images)] = 0
        return sub_images

    def mean(mask: Tensor | None = None) -> Tensor:
        sub_images = unshuffled(image)
        return indexed_mean(sub_images, coin(sub_images) if mask is None else mask)

    mask, moved = drawn(image)[1] == 0, 2 * image.nbytes

    def case(fill: str, indexing: Callable[..., Tensor], exact: bool) -> Case:
        forms = (partial(fused, fill), partial(eager, fill), indexing)
        return Case(f"hide, {fill}", *forms, mask, moved, exact)

    return [case("zero", zero, True), case("mean", mean, False)]


def distances(image: Tensor) -> list[Case]:
    """Return the masked distance, forward and backward."""
    sub_images, label = drawn(image)
    output = torch.rand_like(sub_images).requires_grad_()

    def fused() -> Tensor:
        return MaskedImage(image, RandomPartition(2), KEY, STRIDE).distance(output, 0)

    def eager() -> Tensor:
        sub_images, label = drawn(image)
        return reference.masked_distance(output, sub_images, label == 0, squared=False)

    def indexing(mask: Tensor | None = None) -> Tensor:
        sub_images = unshuffled(image)
        mask = (coin(sub_images) if mask is None else mask).expand_as(sub_images)
        return (output[mask] - sub_images[mask]).abs().float().mean()

    mask = label == 0
    forward = Case("distance", fused, eager, indexing, mask, 2 * image.nbytes)
    return [forward, backward(forward, output, 3 * image.nbytes)]


def smoothnesses(image: Tensor) -> list[Case]:
    """Return the smoothness loss, forward and backward; nothing of it is indexed by a mask."""
    rough = torch.rand_like(image)
    leaf = rough.clone().requires_grad_()

    def straightforward(x: Tensor) -> Tensor:
        x = x.float()
        dy = F.pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 1))
        dx = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
        return ((dx**2 + dy**2 + EPSILON**2).sqrt() - EPSILON).mean()

    def case(x: Tensor) -> Case:
        return Case(
            "smoothness",
            lambda: smoothness_loss(x),
            lambda: reference.smoothness(x, EPSILON),
            lambda mask=None: straightforward(x),
            None,
            image.nbytes,
        )

    return [case(rough), backward(case(leaf), leaf, 2 * image.nbytes)]


def merge(image: Tensor) -> Case:
    """Return merge-and-upsample of two branches."""
    size, pixels = (image.shape[2], image.shape[3]), PixelDownsample(STRIDE)
    sub_images, label = drawn(image)
    outputs = torch.rand(2, *sub_images.shape, device=image.device).to(image.dtype)

    def fused() -> Tensor:
        return MaskedImage(image, RandomPartition(2), KEY, STRIDE).merge(outputs)

    def eager() -> Tensor:
        label = label_of(image)
        merged = reference.merge_branches(list(outputs), [label == 0, label == 1])
        return pixels.up(merged, size=size).contiguous()

    def indexing(mask: Tensor | None = None) -> Tensor:
        merged = outputs[0].clone()
        mask = (coin(merged) if mask is None else mask).expand_as(merged)
        merged[mask] = outputs[1][mask]
        return shuffled(merged)

    return Case("merge", fused, eager, indexing, label == 1, 3 * image.nbytes, exact=True)


def replaces(image: Tensor) -> Case:
    """Return the replacement of R3, two copies."""
    noisy, size, keys = torch.rand_like(image), (image.shape[2], image.shape[3]), [Key(0), Key(1)]

    def drawn_masks() -> Tensor:
        return torch.stack(
            [
                replacement(size, len(image), SHARE, key=key, device=image.device)
                for key in keys
            ]
        )  # fmt: skip

    def eager() -> Tensor:
        return torch.cat([torch.where(mask, noisy, image) for mask in drawn_masks()])

    def indexing(masks: Tensor | None = None) -> Tensor:
        copies = []
        for turn in range(len(keys)):
            mask = torch.rand_like(image[:, :1]) < SHARE if masks is None else masks[turn]
            copy, mask = image.clone(), mask.expand_as(image)
            copy[mask] = noisy[mask]
            copies.append(copy)
        return torch.cat(copies)

    fused = partial(replace, noisy, image, SHARE, keys)
    return Case("replace", fused, eager, indexing, drawn_masks(), 4 * image.nbytes, exact=True)


def masking_of_step(image: Tensor) -> Case:
    """Return all masking of a training step: hide, distance, and its gradient to the output."""
    sub_images, label = drawn(image)
    output = torch.rand_like(sub_images).requires_grad_()

    def slope(loss: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(loss, output)
        return found

    def fused() -> tuple[Tensor, Tensor]:
        seen = MaskedImage(image, RandomPartition(2), KEY, STRIDE)
        return seen.show(0), slope(seen.distance(output, 0))

    def eager() -> tuple[Tensor, Tensor]:
        sub_images, label = drawn(image)
        shown = reference.fill_hidden(sub_images, label == 0, "mean")
        loss = reference.masked_distance(output, sub_images, label == 0, squared=False)
        return shown, slope(loss)

    def indexing(mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sub_images = unshuffled(image)
        mask = coin(sub_images) if mask is None else mask
        shown, wide = indexed_mean(sub_images, mask), mask.expand_as(sub_images)
        return shown, slope((output[wide] - sub_images[wide]).abs().float().mean())

    return Case(
        "masking of a training step", fused, eager, indexing, label == 0, 7 * image.nbytes
    )  # fmt: skip


# -- the parts of the other two forms -------------------------------------------------------------


def label_of(image: Tensor) -> Tensor:
    """Return the labels that the definition draws."""
    size = (image.shape[2], image.shape[3])
    grid = PixelDownsample(STRIDE).grid(len(image), size, device=image.device)
    return RandomPartition(2).label(grid, KEY)


def drawn(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return sub-images and labels, by the definition."""
    return PixelDownsample(STRIDE).down(image), label_of(image)


def coin(sub_images: Tensor) -> Tensor:
    """Return a random bool mask (N, 1, h, w), half of it True."""
    return torch.rand_like(sub_images[:, :1]) < 0.5


def unshuffled(image: Tensor) -> Tensor:
    """Return sub-images as one makes them with PixelUnshuffle."""
    b, c, h, w = image.shape
    apart = F.pixel_unshuffle(image, STRIDE).view(b, c, STRIDE**2, h // STRIDE, w // STRIDE)
    return apart.transpose(1, 2).reshape(b * STRIDE**2, c, h // STRIDE, w // STRIDE)


def shuffled(sub_images: Tensor) -> Tensor:
    """Return the images that `unshuffled` took apart."""
    n, c, h, w = sub_images.shape
    apart = sub_images.view(n // STRIDE**2, STRIDE**2, c, h, w).transpose(1, 2)
    return F.pixel_shuffle(apart.reshape(n // STRIDE**2, c * STRIDE**2, h, w), STRIDE)


def indexed_mean(sub_images: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean fill with convolutions and boolean indexing, window after window."""
    filled, channels, left = sub_images.clone(), sub_images.shape[1], hidden
    seen = (~hidden).to(sub_images.dtype)
    for radius in (1, 2, 3):
        side = 2 * radius + 1
        kernel = torch.ones(channels, 1, side, side, dtype=seen.dtype, device=seen.device)
        total = F.conv2d(sub_images * seen, kernel, padding=radius, groups=channels)
        count = F.conv2d(seen, kernel[:1], padding=radius)
        mask = (left & (count > 0)).expand_as(filled)
        filled[mask] = (total / count)[mask]
        left = left & (count == 0)
        if not left.any():
            return filled
    mask = left.expand_as(filled)
    total = (sub_images * seen).sum((2, 3), keepdim=True)
    whole = total / seen.sum((2, 3), keepdim=True).clamp_min(1)
    filled[mask] = whole.expand_as(filled)[mask]
    return filled


class Gradient:
    """The gradient of a loss; the loss itself is prepared and not counted."""

    def __init__(self, forward: Callable[..., Tensor], leaf: Tensor) -> None:
        self.forward, self.leaf = forward, leaf
        self.loss: Tensor | None = None

    def prepare(self) -> None:
        self.loss = self.forward()

    def __call__(self, mask: Tensor | None = None) -> Tensor:
        loss = self.loss if mask is None and self.loss is not None else self.forward(mask)
        (slope,) = torch.autograd.grad(loss, self.leaf)
        self.loss = None
        return slope


def backward(forward: Case, leaf: Tensor, moved: int) -> Case:
    """Return the gradient of a loss as a case of its own."""

    def of(form: Callable[..., Tensor]) -> Gradient:
        return Gradient(lambda mask=None: form() if mask is None else form(mask), leaf)

    forms = (of(forward.fused), of(forward.eager), of(forward.indexing))
    return Case(f"{forward.name}, backward", *forms, forward.mask, moved)


# -- checking and timing --------------------------------------------------------------------------


def check(case: Case) -> None:
    """Raise AssertionError where a form differs from the definition."""
    wanted = case.eager()
    _same(case.fused(), wanted, case.exact, case.name)
    told = case.indexing() if case.mask is None else case.indexing(case.mask)
    _same(told, wanted, case.exact, f"{case.name}, by indexing")


def _same(found: Any, wanted: Any, exact: bool, name: str) -> None:
    if isinstance(wanted, tuple):
        for one, other in zip(found, wanted, strict=True):
            _same(one, other, exact, name)
        return
    if exact:
        assert torch.equal(found, wanted), f"{name}: not the same bits"
        return
    share = 2e-2 if wanted.dtype.itemsize < 4 else 1e-5
    tolerance = share * float(wanted.detach().float().abs().max())
    torch.testing.assert_close(
        found.float(), wanted.float(), atol=tolerance, rtol=1e-3, msg=lambda text: f"{name}: {text}"
    )


def measure(case: Case, dtype: torch.dtype, repeat: int, device: str) -> dict[str, Any]:
    """Return a row of the table."""
    runs = {
        "fused": case.fused,
        "copy": copy_of(case.moved, device),
        "eager": case.eager,
        "indexing": case.indexing,
    }
    seconds = in_turns(runs, repeat, device)
    fused = seconds["fused"]
    return {
        "what": case.name,
        "dtype": str(dtype).removeprefix("torch."),
        "milliseconds": fused * 1e3,
        "bytes": case.moved,
        "copy_milliseconds": seconds["copy"] * 1e3,
        "share_of_copy": seconds["copy"] / fused,
        "eager_takes": seconds["eager"] / fused,
        "indexing_takes": seconds["indexing"] / fused,
    }

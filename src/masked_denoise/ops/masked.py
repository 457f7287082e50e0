"""What a draw of a mask scheme makes of a batch: where the operators are chosen and joined."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ..errors import SettingError, SizeError
from ..hashing import WORD, Key, Purpose, hash_key
from ..pixels import Grid, PixelDownsample, outside
from ..scheme import MaskScheme, NothingHidden, check_label
from . import eager, library, library_losses, reference
from .fast import why_eager
from .plan import READ, MaskPlan, Origin, plan_of

DistanceKind = Literal["l1", "l2"]


def _fused(*images: Tensor) -> bool:
    """Return whether the registered operators are called, rather than their plain forms.

    On a CPU they compute the same, and cost more to call; a compiler must not look inside.
    """
    if torch.compiler.is_compiling():
        return True
    return not any(map(why_eager, images))


class MaskedImage:
    """One draw of a mask scheme over a batch of images, seen by its branches in turn.

    On a GPU every method is one pass of a kernel that computes the mask as it goes; elsewhere
    sub-images and masks are made once and kept.

    Args:
        image: (B, C, H, W) float, sides of at least the stride.
        scheme: which pixels are hidden and scored.
        key: of the draw.
        stride: S.
        sample: index of the first image, or int64 (B,), one index an image.
        origin: row and column of the first pixel in a larger image; multiples of S.
        bad: bool (B, 1, H, W), pixels that no branch may see; or None.
        of_pass: whether `key.draw` is the number of one of several averaged passes, whose masks
            complement each other (`MaskScheme.label_of_pass`).
        draw: int64 (2,) on the device of the image, from `draw_of`: takes the place of the key and
            of `branch`, so that a recorded CUDA graph goes on with new masks. Kernels only.

    Raises:
        SizeError, SettingError: the image or the origin does not fit the stride.

    >>> from masked_denoise import RandomPartition
    >>> masked = MaskedImage(torch.rand(1, 3, 9, 8), RandomPartition(2), Key(), stride=2)
    >>> outputs = [masked.show(branch) for branch in range(2)]
    >>> outputs[0].shape, masked.merge(outputs).shape
    (torch.Size([4, 3, 5, 4]), torch.Size([1, 3, 9, 8]))
    >>> bool(masked.distance(outputs[0], 0) > 0)
    True
    """

    def __init__(
        self,
        image: Tensor,
        scheme: MaskScheme,
        key: Key,
        stride: int = 1,
        *,
        sample: Tensor | int = 0,
        origin: tuple[int, int] = (0, 0),
        bad: Tensor | None = None,
        of_pass: bool = False,
        draw: Tensor | None = None,
    ) -> None:
        self.of_pass = of_pass
        self.image, self.scheme, self.key, self.bad, self.draw = image, scheme, key, bad, draw
        self.pixels, self.sample, self.origin = PixelDownsample(stride), sample, origin
        if image.ndim != 4 or min(image.shape[2:]) < stride or not image.is_floating_point():
            self.pixels.down(image)
            raise SettingError(f"image is of {image.dtype}; a float dtype is needed")
        self.size = (image.shape[2], image.shape[3])
        self.fused = _fused(image)
        self.plan = plan_of(scheme, key, of_pass=of_pass) if self.fused else None
        if draw is not None and scheme.fill == "neighbor":
            raise SettingError("draw cannot be given with fill='neighbor', which follows the key")
        if draw is not None and self.plan is None:
            raise SettingError(
                "draw needs a built-in scheme and the fused operators: "
                f"{why_eager(image) or type(scheme).__name__ + ' has no plan'}"
            )

    def show(self, branch: int, *, channels_last: bool = False) -> Tensor:
        """Return (B·S·S, C, h, w): the sub-images as one branch sees them, hidden pixels filled.

        Args:
            branch: in [0, K).
            channels_last: whether they come in that memory layout.
        """
        self._check_branch(branch)
        fill = self.scheme.fill
        layout = torch.channels_last if channels_last else torch.contiguous_format
        if self._all_is_seen:
            return self.sub_images.contiguous(memory_format=layout)
        if not self.fused or fill == "neighbor":
            return self._fill(branch).contiguous(memory_format=layout)
        mask = None if self.plan else self.scheme.hidden(self.label, branch)
        filled: Tensor = library.hide_down(
            self.image,
            *self._masks(mask),
            self.bad,
            *self._numbers,
            branch,
            False,
            fill == "mean",
            0.0 if isinstance(fill, str) else float(fill),
            channels_last,
        )
        return filled

    def distance(self, output: Tensor, branch: int, *, kind: DistanceKind = "l1") -> Tensor:
        """Return the mean distance of a branch's output and the image where the branch scores.

        A float32 scalar; see `mask_loss`. Pixels that only padding made are not scored.

        Args:
            output: (B·S·S, C, h, w) float.
            branch: in [0, K).
            kind: "l1" or "l2".
        """
        self._check(output)
        self._check_branch(branch)
        if not self.fused:
            scored = self.scheme.scored(self.label, branch)
            padded = outside(self.grid, self._end)
            scored = scored if padded is None else scored & ~padded
            scored = scored.expand(self.grid.shape)
            return mask_distance(output, self.sub_images, scored, squared=_squared(kind))
        mask = None if self.plan else self.scheme.scored(self.label, branch)
        loss: Tensor
        loss, _ = library_losses.masked_distance(
            output, self.image, *self._masks(mask), *self._numbers, branch, _squared(kind)
        )
        return loss

    def merge(self, outputs: Sequence[Tensor] | Tensor) -> Tensor:
        """Return (B, C, H, W): every pixel from the branch that scores it (Eq. 7, 8).

        Args:
            outputs: K tensors (B·S·S, C, h, w), or one (K, B·S·S, C, h, w).
        """
        if len(outputs) != self.scheme.branches:
            raise SettingError(
                f"{len(outputs)} outputs came; one of each branch is needed, {self.scheme.branches}"
            )
        for output in outputs:
            self._check(output)
        if not self.fused:
            scored = [self.scheme.scored(self.label, branch) for branch in range(len(outputs))]
            merged = eager.merge_branches(list(outputs), scored)
            return self.pixels.up(merged, size=self.size)
        stacked = outputs if isinstance(outputs, Tensor) else torch.stack(list(outputs))
        label = None if self.plan else self._branches(len(outputs))
        whole: Tensor
        whole = library.merge_up(stacked, *self._masks(label), *self._numbers, *self.size)
        return whole

    # -- what the plain way keeps -----------------------------------------------------------------

    @cached_property
    def sub_images(self) -> Tensor:
        """The image, downsampled: (B·S·S, C, h, w)."""
        return self.pixels.down(self.image)

    @cached_property
    def grid(self) -> Grid:
        """Coordinates of the sub-images."""
        return self.pixels.grid(
            len(self.image),
            self.size,
            sample=self.sample,
            origin=self.origin,
            device=self.image.device,
        )

    @cached_property
    def label(self) -> Tensor:
        """The branch that scores each pixel: uint8 (B·S·S, 1, h, w)."""
        label = self.scheme.label_of_pass if self.of_pass else self.scheme.label
        return check_label(self.scheme, label(self.grid, self.key), self.grid)

    @cached_property
    def unseen(self) -> Tensor | None:
        """Pixels that no branch sees, bool (B·S·S, 1, h, w): bad ones, and copies by padding."""
        unseen = outside(self.grid, self._end)
        if self.bad is None:
            return unseen
        bad = self.pixels.down(self.bad)
        return bad if unseen is None else unseen | bad

    @property
    def _all_is_seen(self) -> bool:
        """Whether nothing is filled in: neither by the scheme, nor bad pixels, nor padding."""
        whole = not any(side % self.pixels.stride for side in self.size)
        return type(self.scheme) is NothingHidden and self.bad is None and whole

    @property
    def _end(self) -> tuple[int, int]:
        return (self.origin[0] + self.size[0], self.origin[1] + self.size[1])

    def _fill(self, branch: int) -> Tensor:
        sub_images, hidden = self.sub_images, self.scheme.hidden(self.label, branch)
        hidden = hidden if self.unseen is None else hidden | self.unseen
        if self.scheme.fill != "neighbor":
            return eager.fill_hidden(sub_images, hidden, self.scheme.fill)
        if self.unseen is not None:  # what padding copied may be the very pixel that is hidden
            clean = eager.fill_hidden(sub_images, hidden, "mean")
            sub_images, hidden = torch.where(self.unseen, clean, sub_images), hidden & ~self.unseen
        key = self.key._replace(purpose=self.key.purpose + Purpose.NEIGHBOR)
        word = self.scheme.bits(self.grid, key)
        return eager.fill_hidden(sub_images, hidden, "neighbor", word=word)

    # -- what the operators are told --------------------------------------------------------------

    @property
    def _numbers(self) -> tuple[MaskPlan, Origin]:
        s, (row, col) = self.pixels.stride, self.origin
        if row % s or col % s:
            raise SettingError(f"origin {self.origin} must be a multiple of the stride, {s}")
        first = 0 if isinstance(self.sample, Tensor) else self.sample
        return self.plan or READ, Origin(s, row, col, first)

    def _masks(self, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        sample = self.sample if isinstance(self.sample, Tensor) else None
        if sample is not None:
            if sample.shape != (len(self.image),):
                raise SizeError(
                    f"{sample.numel()} sample indices came for {len(self.image)} images"
                )
            sample = sample.to(self.image.device, torch.int64, non_blocking=True)
        return sample, self.draw, None if mask is None else mask.expand(self.grid.shape)

    def _branches(self, branches: int) -> Tensor:
        """Return uint8 (N, 1, h, w): the branch that a scheme of a user's own takes each from."""
        label = torch.zeros_like(self.label)
        for branch in range(1, branches):
            label = torch.where(self.scheme.scored(self.label, branch), branch, label)
        return label

    def _check_branch(self, branch: int) -> None:
        if not 0 <= branch < self.scheme.branches:
            last = self.scheme.branches - 1
            raise SettingError(f"branch is {branch}; a number from 0 to {last} is needed")

    def _check(self, output: Tensor) -> None:
        s, (b, c) = self.pixels.stride, self.image.shape[:2]
        shape = (b * s * s, c, -(-self.size[0] // s), -(-self.size[1] // s))
        if output.shape != shape:
            raise SizeError(f"output has shape {tuple(output.shape)}; {shape} is needed")


def draw_of(key: Key, branch: int = 0, *, device: torch.device | str | None = None) -> Tensor:
    """Return int64 (2,), the hash of a key and a branch, for the `draw` of `MaskedImage`."""
    numbers = torch.tensor([hash_key(key), branch])
    return numbers.to(device) if device is not None else numbers


def mask_distance(output: Tensor, target: Tensor, scored: Tensor, *, squared: bool) -> Tensor:
    """Return the mean distance of two images (N, C, h, w) where scored, bool (N, 1, h, w)."""
    if _transformed():
        return reference.masked_distance(output, target, scored, squared=squared)
    if _fused(output, target):
        loss: Tensor
        loss, _ = library_losses.masked_distance(
            output, target, None, None, scored, READ, Origin(), 0, squared
        )
        return loss
    return eager.masked_distance(output, target, scored, squared=squared)


def replace(
    noisy: Tensor,
    denoised: Tensor,
    share: float,
    keys: Sequence[Key],
    *,
    draws: int = 0,
    sample: Tensor | int = 0,
    origin: tuple[int, int] = (0, 0),
    bad: Tensor | None = None,
) -> Tensor:
    """Return (T·B, C, H, W): a copy of the denoised images a key, with noisy pixels put back.

    Args:
        noisy: (B, C, H, W) float.
        denoised: (B, C, H, W), of the same dtype.
        share: the odds that a pixel is put back, in [0, 1).
        keys: T keys; their purpose becomes `Purpose.REPLACE`.
        draws: as in `reference.replacement`: T where the copies share one random number a pixel, so
            that all pixels are put back equally often; 0 where each draws its own.
        sample: index of the first image, or int64 (B,).
        origin: row and column of the first pixel in a larger image.
        bad: bool (B, 1, H, W), pixels that are never put back; or None.
    """
    if not _fused(noisy, denoised):
        size, copies = (noisy.shape[2], noisy.shape[3]), []
        for key in keys:
            back = reference.replacement(
                size, len(noisy), share, key=key, draws=draws, sample=sample, origin=origin,
                device=noisy.device,
            )  # fmt: skip
            back = back if bad is None else back & ~bad
            copies.append(eager.select(back, noisy, denoised))
        return torch.cat(copies)
    turns = [(key.draw << 32) // draws & WORD if draws else 0 for key in keys]
    keys = [key._replace(purpose=Purpose.REPLACE, draw=0 if draws else key.draw) for key in keys]
    first, numbers = (0, sample) if isinstance(sample, Tensor) else (sample, None)
    if numbers is not None:
        numbers = numbers.to(noisy.device, torch.int64, non_blocking=True)
    states = [hash_key(key) for key in keys]
    replaced: Tensor = library.replace(
        noisy, denoised, numbers, bad, states, turns, int(share * 2**32), Origin(1, *origin, first)
    )
    return replaced


def smoothness(image: Tensor, epsilon: float) -> Tensor:
    """Return the mean length of the colour gradient; see `smoothness_loss`."""
    if _transformed():
        return reference.smoothness(image, epsilon)
    loss: Tensor = (library_losses if _fused(image) else eager).smoothness(image, epsilon)
    return loss


def _transformed() -> bool:
    """Return whether `torch.func` is at work, which takes nothing but plain operations."""
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is not None and not torch.compiler.is_compiling() and active()


def _squared(kind: str) -> bool:
    if kind not in ("l1", "l2"):
        raise SettingError(f"kind is {kind!r}; 'l1' or 'l2' is needed")
    return kind == "l2"

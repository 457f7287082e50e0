"""How good the weights are: against clean pictures, or under fixed masks where there are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..errors import DataError, PixelError, SizeError
from ..hashing import Purpose
from ..values import middle, range_in_use
from .pictures import Array

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

Image = Tensor | Array

WORSE = 0.05  # dB below the best score that count as clearly worse
SIDE = 256  # side of the central square that pictures are scored in


class Validation(Protocol):
    """Scores weights during a run, in dB; higher is better."""

    times: int  # scores per run
    supervised: bool

    def score(self, denoiser: AsymmetricMaskDenoiser, smoothness: float | None) -> float:
        """Return the score of the denoiser's current weights, under the loss of a stage."""


class CleanPairs:
    """Mean PSNR in dB of denoised pictures against clean ones, in the middle 256 x 256 pixels.

    One pass of `denoise` is scored. Each pair is on its own scale: 0 to the maximum of an integer
    dtype, 0 to 1 for floats; or on the denoiser's `value_range` where that is in use.

    Args:
        pairs: (noisy, clean) pictures, arrays or tensors as `denoise` takes them; or two folders,
            whose files pair by name (see `images.pairs.find_pairs`).

    Raises:
        DataError: there is no pair, or `pairs` is not a sequence of pairs.
        SizeError: the two pictures of a pair differ in shape.
    """

    times = 10
    supervised = True

    def __init__(self, pairs: Any) -> None:
        if not isinstance(pairs, Iterable):
            raise DataError(
                f"validation is {pairs!r}; pairs (noisy, clean), a pair of folders, or False are "
                "needed"
            )
        folders = pairs if isinstance(pairs, tuple | list) and len(pairs) == 2 else ()
        if folders and all(isinstance(item, str | Path) for item in folders):
            pairs = _read_pairs(Path(folders[0]), Path(folders[1]))
        self.pairs: list[tuple[Image, Image]] = []
        for number, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise DataError(
                    f"validation item {number} is a {type(pair).__name__}; pairs (noisy, clean) "
                    "are needed, or a pair of folders"
                )
            noisy, clean = pair
            if noisy.shape != clean.shape:
                raise SizeError(
                    f"validation pair {number}: noisy {tuple(noisy.shape)} and clean "
                    f"{tuple(clean.shape)} must have the same shape"
                )
            self.pairs.append((middle(noisy, SIDE), middle(clean, SIDE)))
        if not self.pairs:
            raise DataError("validation holds no pair; one (noisy, clean) or more is needed")

    def score(self, denoiser: AsymmetricMaskDenoiser, smoothness: float | None = None) -> float:
        """Return the mean PSNR in dB; the stage does not matter."""
        from ..metrics import psnr

        total = 0.0
        for noisy, clean in self.pairs:
            output = denoiser.denoise(noisy, passes=1)
            used = range_in_use(str(noisy.dtype).removeprefix("torch."), denoiser.value_range)
            span = None if used is None else used[1] - used[0]
            decibel = float(psnr(output, clean, data_range=span).mean())
            if math.isnan(decibel):
                raise PixelError("a clean picture of the validation has NaN or infinite pixels")
            total += min(decibel, 200.0)
        return total / len(self.pairs)


class FixedMasks:
    """The loss of a stage (Eq. 4 or 10) on the same crops under the same masks, in dB.

    -20·log10 of an L1 loss, -10·log10 of an L2 loss: 0.1 dB is about one percent of an L1 loss, two
    of an L2 loss.

    Args:
        batches: float (B, C, H, W) on the 0..1 scale.
        loss: "l1" or "l2".
        seed: of the masks.
    """

    times = 20
    supervised = False

    def __init__(self, batches: Sequence[Tensor], *, loss: str, seed: int) -> None:
        self.batches, self.loss, self.seed = list(batches), loss, seed

    @torch.no_grad()
    def score(self, denoiser: AsymmetricMaskDenoiser, smoothness: float | None = None) -> float:
        """Return the loss in dB; the denoiser must be in training mode, but not its backbone."""
        device = denoiser.device
        losses = [
            denoiser(
                batch.to(device), step=number, seed=self.seed, purpose=Purpose.VALIDATE,
                smoothness=smoothness, loss=self.loss,
            )
            for number, batch in enumerate(self.batches)
        ]  # fmt: skip
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            return -math.inf
        return (-20 if self.loss == "l1" else -10) * math.log10(max(mean, 1e-12))


class Scores:
    """The scores of a run: when one is due, which weights were best, whether it is getting worse.

    Args:
        validation: None for no scores at all.
        every: steps between scores; None for `validation.times` scores per run.
    """

    def __init__(self, validation: Validation | None, every: int | None) -> None:
        self.validation, self.every = validation, every
        self.smooth = False  # in stage P
        self.count = 0  # scores due so far
        self.worse = 0  # scores in a row that are clearly below the best
        self.best: dict[str, Any] | None = None  # score, step, weights

    def enter(self, smooth: bool) -> None:
        """Forget earlier scores when a new stage changes the loss, unless clean pictures decide."""
        if smooth != self.smooth and self.validation and not self.validation.supervised:
            self.best, self.worse = None, 0
        self.smooth = smooth

    def due(self, step: int, progress: float) -> bool:
        """Return whether a score is due after a step, at a share `progress` of the budget."""
        if self.validation is None:
            return False
        before, times = self.count, self.validation.times
        self.count = step // self.every if self.every else math.floor(times * progress + 1e-9)
        return self.count > before

    def add(self, score: float, step: int, weights: dict[str, Tensor]) -> bool:
        """Record a score; return whether it is the best, in which case the weights are copied."""
        if math.isfinite(score) and (self.best is None or score > self.best["score"]):
            copied = {name: value.detach().clone() for name, value in weights.items()}
            self.best = {"score": score, "step": step, "weights": copied}
            self.worse = 0
            return True
        worse = self.best is None or score < self.best["score"] - WORSE
        self.worse = self.worse + 1 if worse else 0
        return False

    def state(self) -> dict[str, Any]:
        """Return the state for `load_state`, as tensors and plain values."""
        return {
            "count": self.count, "worse": self.worse, "best": self.best, "smooth": self.smooth
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state of a run."""
        self.count, self.worse, self.best = state["count"], state["worse"], state["best"]
        self.smooth = state["smooth"]


def _read_pairs(noisy: Path, clean: Path) -> Iterator[tuple[Array, Array]]:
    """Yield the pictures of two folders that pair by name."""
    from ..images import read_image
    from ..images.pairs import find_pairs

    found = find_pairs(noisy, clean).pairs
    for pair in found:
        yield read_image(pair.image).pixels, read_image(pair.clean).pixels

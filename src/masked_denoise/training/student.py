"""Students: plain networks that see the whole noisy image and are trained on targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import DataError, SettingError, SizeError, unknown_name
from ..presets import preset
from ..scheme import NothingHidden
from ..values import to_batch
from .batches import Batches, LoaderBatches
from .learner import Learner
from .loop import Trainer, train
from .settings import FitOptions, FitSettings, fit_settings
from .validation import Validation

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

Pair = tuple[Tensor, Tensor] | list[Tensor]
NEW_SHARE = 0.65  # of the new weights, in the mean with those of a student trained before


def train_student(
    student: AsymmetricMaskDenoiser, pairs: Iterable[Pair], **settings: Any
) -> AsymmetricMaskDenoiser:
    """Return the student, trained to map noisy images to targets in one pass, with no pixel hidden.

    The loop is that of `fit`: averaged weights, warm-up and cosine decay, Ctrl-C, checkpoints.

    Args:
        student: a denoiser, usually `AsymmetricMaskDenoiser("fast-student", preset="student")`;
            trained in place.
        pairs: batches (noisy, target), each (B, C, H, W), of floats on the 0..1 scale or of
            integers; both are used as they come. A list, a DataLoader or another iterable is read
            as often as needed; a generator must yield enough of them.
        settings: of `fit`, by name: `minutes` or `steps`, `loss`, `learning_rate`, `validation`,
            `output`, `progress` and so on. Without `validation`, the score is the PSNR against the
            targets of the first batches.

    Raises:
        SettingError, UnknownNameError: a setting is out of range, or not known.
        DataError, SizeError: `pairs` does not yield pairs of batches, or too few.
        TrainingError, CheckpointError: as for `fit`.

    >>> from masked_denoise import AsymmetricMaskDenoiser
    >>> student = AsymmetricMaskDenoiser("fast-student", channels=1, preset="student")
    >>> noisy, clean = torch.rand(2, 1, 32, 32), torch.full((2, 1, 32, 32), 0.5)
    >>> student = train_student(student, [(noisy, clean)], steps=2, progress=False)
    >>> student.denoise(noisy).shape
    torch.Size([2, 1, 32, 32])
    """
    check_student(student)
    run_settings, options = split_settings(settings)

    def make_batches(process: tuple[int, int]) -> Batches:
        source = joined(pairs, student.channels)
        twice = 2 * student.channels
        return LoaderBatches(source, twice, seed=run_settings.seed, hold_out=False, process=process)

    train(StudentTrainer, student, make_batches, run_settings, options)
    return student


def split_settings(given: Mapping[str, Any]) -> tuple[FitSettings, FitOptions]:
    """Return the settings and the options among named arguments; the student preset adds the rest.

    Raises:
        UnknownNameError: a name is neither.
        SettingError: a value is out of its range.
    """
    names = {field.name for field in fields(FitSettings)} - {"smooth_steps", "smoothness"}
    others = {field.name for field in fields(FitOptions)}
    for name in given:
        if name not in names | others:
            raise unknown_name("setting", name, names | others)
    settings = {name: value for name, value in given.items() if name in names}
    options = {name: value for name, value in given.items() if name in others}
    return fit_settings(preset("student")["fit"], settings), FitOptions(**options)


def check_student(student: AsymmetricMaskDenoiser) -> None:
    """Raise SettingError unless the denoiser's network sees every pixel, at stride 1."""
    if not isinstance(student.scheme, NothingHidden) or student.stride != 1:
        raise SettingError(
            f"the model is no student: it has {student.scheme!r} and stride {student.stride}, and "
            "a plain network is needed, such as camera-small, the result of `distill`, or "
            "AsymmetricMaskDenoiser('fast-student', preset='student')"
        )


def blend_weights(student: AsymmetricMaskDenoiser, old: Mapping[str, Tensor]) -> None:
    """Average the student's weights with its old ones, which is better than either."""
    mean = {
        name: old[name].to(value.device).lerp(value, NEW_SHARE)
        if value.is_floating_point()
        else value
        for name, value in student.backbone.state_dict().items()
    }
    student.backbone.load_state_dict(mean)


def joined(pairs: Iterable[Pair], channels: int) -> Iterable[Tensor]:
    """Return the pairs as float batches (B, 2C, H, W), which can be read as often as the pairs.

    Raises:
        DataError: `pairs` is not an iterable.
        DataError, SizeError: when read, if an item is not a pair of batches of one shape.
    """
    if isinstance(pairs, Iterator):
        return (_join(pair, channels) for pair in pairs)
    if not isinstance(pairs, Iterable) or isinstance(pairs, str | bytes | Mapping | Tensor):
        raise DataError(
            f"a {type(pairs).__name__} came as pairs; an iterable of batches (noisy, target) is "
            "needed"
        )
    return _Joined(pairs, channels)


class _Joined:
    """The pairs, each concatenated along its channels when it is read."""

    def __init__(self, pairs: Iterable[Pair], channels: int) -> None:
        self.pairs, self.channels = pairs, channels

    def __iter__(self) -> Iterator[Tensor]:
        return (_join(pair, self.channels) for pair in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]  # TypeError where it has no length


def _join(pair: Pair, channels: int) -> Tensor:
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2
    if not is_pair or not all(isinstance(one, Tensor) for one in pair):
        raise DataError(f"a {type(pair).__name__} came; two tensors (noisy, target) are needed")
    noisy, target = pair
    if noisy.ndim != 4 or noisy.shape != target.shape or noisy.shape[1] != channels:
        raise SizeError(
            f"noisy {tuple(noisy.shape)} and target {tuple(target.shape)} came; (B, {channels}, "
            "H, W) is needed twice"
        )
    return torch.cat([to_batch(noisy)[0], to_batch(target)[0].to(noisy.device)], dim=1)


class StudentLearner(Learner):
    """Takes optimizer steps on targets; batches (B, 2C, H, W) are noisy images and targets."""

    def loss(self, image: Tensor, batch: int, smoothness: float | None) -> Tensor:
        """Return the distance between the student's output and the targets, a scalar."""
        noisy, target = image.chunk(2, dim=1)
        loss: Tensor = self.model(noisy, target=target, step=batch, loss=self.settings.loss)
        return loss


class StudentTrainer(Trainer):
    """A run on targets. Its batches are (B, 2C, H, W) on the 0..1 scale."""

    measures = False  # nothing is hidden, so the result contains each pixel's own value

    def _make_learner(self) -> Learner:
        return StudentLearner(self.denoiser, self.settings, self.accelerator)

    def _make_validation(self) -> Validation:
        return Targets(self.batches.held_out(self.denoiser.traits.size_multiple))


class Targets:
    """PSNR in dB of the student's output against the targets, always on the same batches.

    Args:
        batches: float (B, 2C, H, W) on the 0..1 scale: noisy images and targets.
    """

    times = 10
    supervised = False

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self.batches = batches

    @torch.no_grad()
    def score(self, denoiser: AsymmetricMaskDenoiser, smoothness: float | None = None) -> float:
        """Return the PSNR of the mean squared error over all batches."""
        device = denoiser.device
        total, count = 0.0, 0
        for batch in self.batches:
            noisy, target = batch.to(device).chunk(2, dim=1)
            total += float((denoiser.predict(noisy).float() - target).square().sum())
            count += target.numel()
        mean = total / count
        return -10 * math.log10(max(mean, 1e-12)) if math.isfinite(mean) else -math.inf

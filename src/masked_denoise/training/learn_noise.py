"""Train a student on noisy images alone, with noise simulated on reduced versions of them.

A noisy photograph at half its size has less noise (independent noise falls to 0.4, noise correlated
as that of cameras to about 0.7), and its surfaces and colours are those of the pictures to denoise.
Denoising it with the student first leaves less noise still: it is then clean enough to simulate
noise on. If the student is trained already, photographs reduced without denoising are used as well,
as they keep the detail that a student at that stage mistakes for noise. Such pairs teach it to
remove noise that is correlated over many pixels. Hiding pixels cannot teach that, as the noise of a
hidden pixel can then be read off its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..camera_noise import CameraNoise, Range
from ..checkpoint import save_model
from ..checks import whole
from ..cosine import PHOTOGRAPHS
from ..errors import DataError, PixelError, SettingError
from ..noise import measure_noise
from ..values import ValueRange
from .batches import Batches, windows_of
from .distill import denoised, share_of_budget
from .loop import restored_on_failure, train
from .pictures import Array, range_of_windows
from .settings import FitOptions, FitSettings
from .simulated import SimulatedPairs, smaller
from .states import check_output
from .student import StudentTrainer, Targets, blend_weights, check_student, split_settings

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

MEGAPIXELS = 24.0
SHRINK = 2.0
SCALE: Range = (0.7, 2.5)
OPTIMIZER = "auto"  # Muon for all but very large networks
GENTLE = 1e-3  # learning rate for a student that is already trained
LOOKS, LOOK_PIXELS = 24, 1 << 16  # pictures to measure the noise in, and pixels of each
HEADROOM = 2.5  # simulated over measured noise: flat areas have less noise than others


def learn_noise(
    student: AsymmetricMaskDenoiser,
    noisy: object,
    *,
    noise: CameraNoise | None = None,
    shrink: float = SHRINK,
    scale: Range = SCALE,
    rounds: int = 1,
    megapixels: float = MEGAPIXELS,
    **settings: Any,
) -> AsymmetricMaskDenoiser:
    """Return the student, trained in place; see `AsymmetricMaskDenoiser.learn_noise`."""
    check_student(student)
    if student.channels not in (1, 3):
        raise SettingError(
            f"the student has {student.channels} channels; noise is simulated for 1 or 3"
        )
    if settings.get("optimizer") is None:
        settings["optimizer"] = OPTIMIZER
    gentle = settings.get("learning_rate") or GENTLE
    run_settings, options = split_settings(settings)
    _check(run_settings, options, shrink, rounds, megapixels)
    with restored_on_failure(student):
        taken = windows_of(noisy, student.channels, megapixels, run_settings.seed)
        if not student.fit_record and "dct_threshold" not in student.given:
            student.dct_threshold = PHOTOGRAPHS
        if student.value_range is None:
            student.value_range = range_of_windows(taken)
        if options.device is not None:
            student.to(options.device)
        began = time.perf_counter()
        noise = noise or noise_like(taken, student.value_range)
        seconds = time.perf_counter() - began
        for number in range(rounds):
            began = time.perf_counter()
            learnt = bool(student.fit_record)
            clean = [_cleaned(window, student, shrink) for window in taken]
            if learnt:
                clean += [smaller(window, shrink, student.value_range) for window in taken]
            seconds += time.perf_counter() - began
            last = number == rounds - 1
            part = share_of_budget(run_settings, rounds)
            part = replace(part, learning_rate=gentle) if learnt else part
            where = options if last else replace(options, output=None)
            _train(student, clean, noise, scale, part, where, blend=learnt)
            if student.fit_record["stopped"] == "interrupted":
                break
    student.fit_record["learn_noise"] = {
        "shrink": shrink,
        "rounds": rounds,
        "megapixels": round(sum(window[0].size for window in taken) / 1e6, 3),
        "sigma": [round(level, 5) for level in noise.sigma],
        "looking_seconds": round(seconds, 3),
    }
    _save(student, options)
    return student


def _check(
    settings: FitSettings, options: FitOptions, shrink: float, rounds: int, megapixels: float
) -> None:
    """Raise SettingError or CheckpointError for what is bound to fail, before any work."""
    check_output(options.output)
    if not shrink >= 1 or whole("rounds", rounds) < 1 or not megapixels > 0:
        raise SettingError(
            f"shrink is {shrink}, rounds {rounds} and megapixels {megapixels}; needed are a shrink "
            "of 1 or more, a whole number of rounds and megapixels above 0"
        )
    if settings.epochs is not None:
        raise SettingError("crops are drawn without end, so there are no epochs; give steps=")
    if rounds > 1 and options.resume:
        raise SettingError(f"a run of {rounds} rounds cannot be resumed; use rounds=1")


def noise_like(pictures: Sequence[Array], value_range: ValueRange | None = None) -> CameraNoise:
    """Return camera noise that reaches `HEADROOM` times the pictures' median level.

    The range is at least that of `CameraNoise()`.

    Args:
        pictures: (C, H, W); integers on the scale of their dtype, floats and counts on that of
            `value_range`.
        value_range: (low, high) of floats; default (0, 1).
    """
    levels = []
    for picture in pictures[:: -(-len(pictures) // LOOKS) or 1]:
        try:
            report = measure_noise(
                np.moveaxis(picture, 0, 2), max_pixels=LOOK_PIXELS, value_range=value_range
            )
        except (DataError, PixelError):  # too small, or it has NaN
            continue
        levels.append(report.luma.sigma)
    usual = CameraNoise()
    strongest = HEADROOM * float(np.median(levels)) if levels else 0.0
    return replace(usual, sigma=(usual.sigma[0], min(max(usual.sigma[1], strongest), 1.0)))


def train_on_simulated(
    student: AsymmetricMaskDenoiser,
    clean: Sequence[Array],
    *,
    noise: CameraNoise | None = None,
    scale: Range = SCALE,
    **settings: Any,
) -> AsymmetricMaskDenoiser:
    """Return the student, trained in place on clean pictures with simulated noise.

    The old weights are kept where they denoise simulated noise better than the new ones.

    Args:
        student: a denoiser with the preset "student".
        clean: uint8 or float32 (C, H, W) of any sizes; floats on the 0..1 scale.
        noise: to simulate; default `CameraNoise()`.
        scale: (smallest, largest) factor by which crops are scaled before noise is added.
        settings: of `fit`, by name.

    Raises:
        SettingError, UnknownNameError, DataError: as for `AsymmetricMaskDenoiser.learn_noise`.
    """
    check_student(student)
    run_settings, options = split_settings(settings)
    _train(student, clean, noise or CameraNoise(), scale, run_settings, options)
    _save(student, options)
    return student


def _save(student: AsymmetricMaskDenoiser, options: FitOptions) -> None:
    """Write the model again, as other weights than those of the run may have been kept."""
    if options.output is not None:
        save_model(student, options.output)


def _cleaned(window: Array, student: AsymmetricMaskDenoiser, shrink: float) -> Array:
    """Return a noisy window (C, H, W), denoised by the student as it is now and reduced, uint8."""
    return smaller(denoised(window, student.denoise), shrink, student.value_range)


def _train(
    student: AsymmetricMaskDenoiser,
    clean: Sequence[Array],
    noise: CameraNoise,
    scale: Range,
    settings: FitSettings,
    options: FitOptions,
    *,
    blend: bool = False,
) -> None:
    """Train on pairs simulated on clean pictures; keep the old weights where they are better.

    Args:
        blend: average the new weights with the old ones.
    """

    def make_batches(process: tuple[int, int]) -> Batches:
        return SimulatedPairs(clean, settings, noise=noise, scale=scale, process=process)

    before = {name: value.clone() for name, value in student.backbone.state_dict().items()}
    pairs = SimulatedPairs(clean, settings, noise=noise, scale=scale)
    card = dict(student.card)
    judge = Targets(pairs.held_out(student.traits.size_multiple))
    student.eval()
    old = judge.score(student)
    train(StudentTrainer, student, make_batches, settings, options)
    if blend:
        blend_weights(student, before)
    new = judge.score(student)
    student.fit_record["score"] = {"before": round(old, 3), "after": round(new, 3)}
    student.fit_record["kept"] = "before" if new < old else "after"
    if new < old:
        student.backbone.load_state_dict(before)
        student.card = card

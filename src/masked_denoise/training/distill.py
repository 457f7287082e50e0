"""Distillation: a student learns to do in one pass what the teacher does in many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..checks import whole
from ..errors import SettingError
from ..values import ValueRange, range_in_use
from .batches import Batches, pictures_from
from .crops import CropBatches
from .loop import train
from .pictures import (
    Array,
    Pictures,
    count_windows,
    windows,
)
from .settings import BUDGETS, FitOptions, FitSettings
from .states import check_output
from .student import StudentTrainer, check_student, split_settings

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

MEGAPIXELS = 32.0
ROUND_PASSES = 8  # orientations that a student averages for the targets of the next round ...
FIRST_PASSES = 4  # ... and for its share of the first targets

Denoise = Callable[[Array], Array]


def distill(
    teacher: AsymmetricMaskDenoiser,
    noisy: object,
    *,
    student: AsymmetricMaskDenoiser | nn.Module | str = "fast-student",
    student_args: dict[str, Any] | None = None,
    passes: int | None = None,
    trust: float = 1.0,
    rounds: int = 1,
    megapixels: float = MEGAPIXELS,
    **settings: Any,
) -> AsymmetricMaskDenoiser:
    """Return a trained student; see `AsymmetricMaskDenoiser.distill`."""
    run_settings, options = split_settings(settings)
    check_distillation(rounds, megapixels, trust, options)
    check_output(options.output)
    made = _make_student(teacher, student, student_args, run_settings.seed)
    pictures = pictures_from(noisy, teacher.channels, megapixels, run_settings.seed)
    began = time.perf_counter()

    def ask_teacher(picture: Array) -> Array:
        result: Array = teacher.denoise(picture, passes=passes, seed=run_settings.seed)
        return result

    taken = windows(pictures, megapixels, run_settings.seed)
    pairs = [
        _with_target(window, ask_teacher, teacher.value_range)
        for window in _bar(taken, pictures, megapixels, options.progress)
    ]
    if trust < 1:
        _mix_in(pairs, made, 1 - trust, FIRST_PASSES)
    seconds = time.perf_counter() - began
    for number in range(rounds):
        last = number == rounds - 1
        if number:
            _mix_in(pairs, made, 0.5, ROUND_PASSES)
        part = share_of_budget(run_settings, rounds)
        _train(made, pairs, part, options if last else replace(options, output=None))
        if made.fit_record["stopped"] == "interrupted":
            break
    made.fit_record["distillation"] = {
        "teacher_passes": teacher.passes if passes is None else passes,
        "megapixels": round(sum(pair[0].size for pair in pairs) / 1e6, 3),
        "teacher_seconds": round(seconds, 3),
        "trust": trust,
        "rounds": rounds,
    }
    if options.output is not None:
        from ..checkpoint import save_model

        save_model(made, options.output)
    return made


def check_distillation(rounds: int, megapixels: float, trust: float, options: FitOptions) -> None:
    """Raise SettingError where an argument is out of range, or contradicts another."""
    if whole("rounds", rounds) < 1:
        raise SettingError(f"rounds is {rounds!r}; 1 or more is needed")
    if not megapixels > 0:
        raise SettingError(f"megapixels is {megapixels!r}; a number above 0 is needed")
    if not 0 < trust <= 1:
        raise SettingError(f"trust is {trust}; a share above 0, at most 1, is needed")
    if rounds > 1 and options.resume:
        raise SettingError(f"a run of {rounds} rounds cannot be resumed; use rounds=1")


def _make_student(
    teacher: AsymmetricMaskDenoiser,
    student: AsymmetricMaskDenoiser | nn.Module | str,
    arguments: dict[str, Any] | None,
    seed: int,
) -> AsymmetricMaskDenoiser:
    """Return a new student for the teacher's pictures, or the given one, checked."""
    from ..denoiser import AsymmetricMaskDenoiser

    if not isinstance(student, AsymmetricMaskDenoiser):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return AsymmetricMaskDenoiser(
                student, preset="student", channels=teacher.channels,
                value_range=teacher.value_range, dct_threshold=teacher.dct_threshold,
                backbone_args=arguments,
            )  # fmt: skip
    check_student(student)
    same = student.channels == teacher.channels and student.value_range == teacher.value_range
    if arguments or not same:
        raise SettingError(
            f"the student has {student.channels} channels and value_range {student.value_range}, "
            f"the teacher {teacher.channels} and {teacher.value_range}; they must be alike, and "
            "student_args are for a network given by name"
        )
    return student


def _bar(
    taken: Iterator[Array], pictures: Pictures, megapixels: float, progress: bool
) -> Iterable[Array]:
    from tqdm.auto import tqdm

    total = count_windows(pictures, megapixels) or len(pictures)
    bar: Iterable[Array] = tqdm(
        taken, total=total, unit="picture", desc="teacher", disable=not progress
    )
    return bar


# -- targets --------------------------------------------------------------------------------------


def _with_target(window: Array, denoise: Denoise, value_range: ValueRange | None = None) -> Array:
    """Return noisy pixels and their target, concatenated to (2C, H, W).

    uint8 becomes uint16, with the same values on the 0..1 scale and room for finer targets, unless
    16 bits are on the scale of `value_range`. Floats become float32.
    """
    if window.dtype == np.uint8 and range_in_use("uint16", value_range) is None:
        window = window.astype(np.uint16) * 257
    elif window.dtype.kind == "f":
        window = window.astype(np.float32)
    return np.concatenate([window, denoised(window, denoise)])


def _mix_in(
    pairs: list[Array], student: AsymmetricMaskDenoiser, share: float, orientations: int
) -> None:
    """Move every target by `share` towards the student's result, averaged over orientations."""

    def ask_student(picture: Array) -> Array:
        result: Array = student.denoise(picture, passes=orientations)
        return result

    for pair in pairs:
        noisy, target = np.split(pair, 2)
        own = denoised(noisy, ask_student).astype(np.float64)
        mean = (1 - share) * target + share * own
        pair[len(noisy) :] = np.rint(mean) if pair.dtype.kind in "iu" else mean


def denoised(window: Array, denoise: Denoise) -> Array:
    """Return a window (C, H, W) denoised by a function of arrays (H, W, C)."""
    picture: Array = np.ascontiguousarray(np.moveaxis(window, 0, 2))
    made: Array = np.moveaxis(denoise(picture), 2, 0)
    return made


# -- training -------------------------------------------------------------------------------------


def share_of_budget(settings: FitSettings, rounds: int) -> FitSettings:
    """Return the settings of one of `rounds` rounds, with its part of the budget."""
    budget = next(name for name in BUDGETS if getattr(settings, name) is not None)
    share = getattr(settings, budget) / rounds
    return replace(settings, **{budget: math.ceil(share) if budget == "steps" else share})


def _train(
    student: AsymmetricMaskDenoiser,
    pairs: list[Array],
    settings: FitSettings,
    options: FitOptions,
) -> None:
    """Train on crops, cut from noisy pixels and targets at the same places."""
    areas = [pair[0].size for pair in pairs]
    shortest = min(side for pair in pairs for side in pair.shape[1:])
    pictures = Pictures(pairs.__getitem__, areas, shortest, arrays=pairs)

    def make_batches(process: tuple[int, int]) -> Batches:
        batches = CropBatches(pictures, settings, hold_out=False, process=process)
        batches.value_range = student.value_range
        return batches

    train(StudentTrainer, student, make_batches, settings, options)

"""Adaptation: train a student further on noisy images, with a masked network as second opinion.

The masked network has seen only these pictures, and keeps their detail; the student has seen the
noise of many cameras, and recognises it where it is correlated. The two make different errors. With
a cosine threshold after it, though, their mean is no better on photographs whose noise the student
knows: adaptation is for others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint import save_model
from ..errors import DataError, SettingError
from .distill import check_distillation, distill, share_of_budget
from .loop import restored_on_failure
from .ranking import MEGAPIXELS, rank_models
from .settings import BUDGETS
from .states import check_output
from .student import blend_weights, check_student, split_settings

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

GENTLE = {"optimizer": "auto", "learning_rate": 5e-4}  # the student is already trained
OBSERVATION = 0.15  # of the masked network: no cosine threshold restores texture in its targets
SHARED = ("seed", "progress", "device")  # settings that apply to both networks


def adapt(
    student: AsymmetricMaskDenoiser,
    noisy: object,
    *,
    trust: float,
    megapixels: float,
    **settings: Any,
) -> AsymmetricMaskDenoiser:
    """Return the student, adapted in place; see `AsymmetricMaskDenoiser.adapt`."""
    check_student(student)
    with restored_on_failure(student):
        return _adapted(student, noisy, trust, megapixels, settings)


def _adapted(
    student: AsymmetricMaskDenoiser,
    noisy: object,
    trust: float,
    megapixels: float,
    settings: dict[str, Any],
) -> AsymmetricMaskDenoiser:
    if isinstance(noisy, Iterator):
        raise DataError(
            f"a {type(noisy).__name__} came, which can be read once; adapt reads the pictures "
            "three times: give a list, an array, paths or a DataLoader"
        )
    for name, value in GENTLE.items():
        if settings.get(name) is None:
            settings[name] = value
    run_settings, options = split_settings(settings)
    check_distillation(1, megapixels, trust, options)
    check_output(options.output)
    settings["validation"] = options.validation  # read, maybe from an iterator
    if run_settings.epochs is not None or options.resume:
        raise SettingError("adapt takes minutes= or steps=, and cannot be resumed")
    half = share_of_budget(run_settings, 2)
    budget = {name: getattr(half, name) for name in BUDGETS}
    masked = _new_masked(student, run_settings.seed)
    shared = {name: settings[name] for name in SHARED if name in settings}
    masked.fit(noisy, **budget, **shared, validation=False)
    if masked.fit_record["stopped"] == "interrupted":
        kept = {"masked_steps": masked.fit_record["steps"], "kept": "before"}
        student.fit_record = {**student.fit_record, "stopped": "interrupted", "adaptation": kept}
        return _saved(student, options.output)
    student.value_range = masked.value_range
    student.to(masked.device)
    before = copy.deepcopy(student).eval()
    threshold, student.dct_threshold = student.dct_threshold, 0.0  # targets keep all detail
    try:
        distill(
            masked, noisy, student=student, trust=trust, megapixels=megapixels,
            **{**settings, **budget},
        )  # fmt: skip
    finally:
        student.dct_threshold = threshold
    student.fit_record["adaptation"] = {
        "masked_steps": masked.fit_record["steps"], "trust": trust, **budget,
    }  # fmt: skip
    outcome: dict[str, object] = {"kept": "after"}
    blend_weights(student, before.backbone.state_dict())
    if student.channels in (1, 3) and student.fit_record["stopped"] != "interrupted":
        try:
            outcome = _restore_if_worse(
                before, student, noisy, min(megapixels, MEGAPIXELS), run_settings.seed
            )
        except KeyboardInterrupt:
            student.fit_record["stopped"] = "interrupted"
    student.fit_record["adaptation"].update(outcome)
    return _saved(student, options.output)


def _new_masked(student: AsymmetricMaskDenoiser, seed: int) -> AsymmetricMaskDenoiser:
    """Return a masked network for the student's pictures, its first weights drawn from the seed."""
    from ..denoiser import AsymmetricMaskDenoiser

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AsymmetricMaskDenoiser(
            channels=student.channels, value_range=student.value_range, dct_threshold=0.0,
            observation=OBSERVATION,
        )  # fmt: skip


def _saved(student: AsymmetricMaskDenoiser, output: str | Path | None) -> AsymmetricMaskDenoiser:
    if output is not None:
        save_model(student, output)
    return student


def _restore_if_worse(
    before: AsymmetricMaskDenoiser,
    student: AsymmetricMaskDenoiser,
    noisy: object,
    megapixels: float,
    seed: int,
) -> dict[str, object]:
    """Restore the old weights if only they denoise simulated noise; return the outcome."""
    models = {"before": before, "after": student}
    ranks = {
        rank.name: rank for rank in rank_models(models, noisy, megapixels=megapixels, seed=seed)
    }
    kept = "after" if ranks["after"].helps or not ranks["before"].helps else "before"
    if kept == "before":
        student.backbone.load_state_dict(before.backbone.state_dict())
        student.card = before.card
    gains = {name: round(rank.gain, 3) for name, rank in ranks.items()}
    return {"kept": kept, "simulated_gain": gains}

"""The settings of a training run: plain values that serialise to JSON, with their checks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checks import number, whole
from ..errors import SettingError
from .validation import CleanPairs

BUDGETS = ("steps", "epochs", "minutes")
DEFAULT_MINUTES = 2.0
_WHOLE = ("steps", "batch_size", "crop", "warmup_steps", "accumulate", "patience")
_REAL = (
    "epochs", "minutes", "learning_rate", "weight_decay", "ema_decay", "clip_norm", "smooth_steps",
    "smoothness",
)  # fmt: skip


@dataclass(frozen=True)
class FitSettings:
    """Everything that determines the weights of a run; stored in every checkpoint.

    Exactly one of `steps`, `epochs` and `minutes` is set. `AsymmetricMaskDenoiser.fit` explains
    each setting.

    Raises:
        SettingError: a value is out of its range, or not exactly one budget is set.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 2
    crop: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup_steps: int = 50
    ema_decay: float = 0.998
    clip_norm: float = 1.0
    loss: str = "l1"
    smooth_steps: float = 0
    smoothness: float = 0.01
    augment: bool = True
    accumulate: int = 1
    mixed_precision: str = "no"
    compile: bool = False
    keep: str = "auto"
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise SettingError(
                f"{' and '.join(given) or 'no budget'} given; exactly one of steps, epochs and "
                "minutes is needed, for example minutes=5"
            )
        self._make_plain()
        self._check_numbers(given[0])
        _one_of("loss", self.loss, ("l1", "l2", "psnr"))
        _one_of("optimizer", self.optimizer, ("adamw", "muon", "auto"))
        _one_of("mixed_precision", self.mixed_precision, ("no", "fp16", "bf16", "auto"))
        _one_of("keep", self.keep, ("auto", "best", "last"))
        for name in ("compile", "augment"):
            if not isinstance(getattr(self, name), bool):
                raise SettingError(f"{name} is {getattr(self, name)!r}; True or False is needed")
        share = self.smooth_steps
        if share < 0 or (share >= 1 and share != int(share)):
            raise SettingError(
                f"smooth_steps is {share}; a share in [0, 1) or a number of steps is needed"
            )
        if share >= 1 and self.steps is None:
            raise SettingError(
                f"smooth_steps is {share}, a number of steps, but the budget is in {given[0]}; "
                "give a share of it, for example smooth_steps=0.2"
            )
        if self.steps is not None and share > self.steps:
            raise SettingError(f"smooth_steps is {share}, more than the {self.steps} steps in all")

    def _make_plain(self) -> None:
        """Convert numbers of other types, such as NumPy's, to Python's, which JSON can hold."""
        plain: dict[str, object] = {"seed": whole("seed", self.seed)}
        plain["betas"] = tuple(number("betas", one) for one in self.betas)
        for name in (*_WHOLE, *_REAL):
            value = getattr(self, name)
            if value is None or isinstance(value, bool):
                continue
            plain[name] = number(name, value)
            if name in _WHOLE:
                if plain[name] != int(value):
                    raise SettingError(f"{name} is {value}; a whole number is needed")
                plain[name] = int(value)
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def _check_numbers(self, budget: str) -> None:
        for name in (budget, "batch_size", "crop", "accumulate", "patience", "learning_rate"):
            _check(name, getattr(self, name), above=0)
        for name in ("weight_decay", "warmup_steps", "clip_norm", "smoothness"):
            _check(name, getattr(self, name), least=0)
        for name, values in (("ema_decay", (self.ema_decay,)), ("betas", self.betas)):
            for value in values:
                _check(name, value, least=0, below=1)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold."""
        return dict(json.loads(json.dumps(asdict(self))))


@dataclass(frozen=True)
class FitOptions:
    """Options of a run beside its settings; a resumed run may have others.

    `AsymmetricMaskDenoiser.fit` explains each option. Pairs for validation are read when the
    options are made, before any work, and become `CleanPairs`.

    Raises:
        SettingError: a value is out of its range, or an argument that another one needs is missing.
        DataError, SizeError: the validation holds no pairs.
    """

    validation: Any = None  # None, False or CleanPairs, whatever was passed
    validate_every: int | None = None
    output: str | Path | None = None
    save_every: int | None = None
    resume: bool | str | Path = False
    progress: bool = True
    log_with: Any = None
    device: str | None = None
    callback: Callable[[dict[str, Any]], object] | None = None

    def __post_init__(self) -> None:
        for name in ("validate_every", "save_every"):
            value = getattr(self, name)
            if value is not None and whole(name, value) < 1:
                raise SettingError(f"{name} is {value!r}; a number of steps, 1 or more, is needed")
        if not isinstance(self.validation, CleanPairs | None) and self.validation is not False:
            object.__setattr__(self, "validation", CleanPairs(self.validation))
        if self.callback is not None and not callable(self.callback):
            raise SettingError(f"callback is {self.callback!r}; a function of one dict is needed")
        if self.resume is True and self.output is None:
            raise SettingError("resume=True needs output=..., the folder of the run to go on with")


def fit_settings(preset: Mapping[str, Any], given: Mapping[str, Any]) -> FitSettings:
    """Return the settings of a run: those given, else the preset's, else the defaults.

    A given budget replaces the preset's, whichever of the three it is.

    Args:
        preset: the preset's arguments of `fit`.
        given: the user's; None means not given.

    >>> fit_settings({"steps": 25_000, "crop": 160}, {"minutes": 5, "crop": None}).crop
    160
    """
    told = {name: value for name, value in given.items() if value is not None}
    merged = dict(preset)
    if any(name in told for name in BUDGETS):
        merged = {name: value for name, value in merged.items() if name not in BUDGETS}
    merged.update(told)
    if not any(name in merged for name in BUDGETS):
        merged["minutes"] = DEFAULT_MINUTES
    if "betas" in merged:
        betas = merged["betas"]
        merged["betas"] = tuple(betas) if isinstance(betas, Iterable) else (betas,)
        if len(merged["betas"]) != 2:
            raise SettingError(f"betas is {betas}; two numbers are needed")
    return FitSettings(**merged)


def _check(
    name: str,
    value: float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Raise SettingError unless the value is a number within its bounds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and least <= value < below and value > above:
        return
    bounds = f"above {above}" if above > -math.inf else f"of {least} or more"
    bounds += f" and below {below}" if below < math.inf else ""
    raise SettingError(f"{name} is {value!r}; a number {bounds} is needed")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingError(f"{name} is {value!r}; one of {', '.join(known)} is needed")

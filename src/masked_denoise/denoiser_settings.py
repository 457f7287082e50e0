"""The settings of a denoiser: checked, with defaults from a preset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import nn

from .checks import number, whole
from .errors import SettingError
from .noise_advice import SMOOTH_STRIDE
from .observation import NoiseLevel, check_levels
from .pixels import PixelDownsample
from .presets import preset as named_preset
from .probe import Traits
from .refine import Refinement
from .scheme import MaskScheme
from .values import ValueRange, range_of_values

_DECIDED = (
    "scheme", "train_strides", "stride", "passes", "refinement", "observation", "chroma_radius",
    "dct_threshold", "turns", "residual",
)  # fmt: skip
"""Attributes that a preset decides; see `DenoiserSettings.decide`."""
UNIT, _SHARE = "a number from 0 to 1", 'a share in [0, 1) or "measured"'


class DenoiserSettings(nn.Module):
    """The settings of an `AsymmetricMaskDenoiser`: its arguments, as attributes.

    Attributes:
        given: the settings that the user passed, by argument name.
        undecided: whether the first `fit` decides the rest.
        preset: name of the preset used; None while undecided.
        level_given: whether the user set the noise level, so that `fit` keeps it.
    """

    channels: int
    traits: Traits
    given: dict[str, Any]
    undecided: bool
    preset: str | None
    level_given: bool
    scheme: MaskScheme
    train_strides: tuple[int, ...]
    stride: int
    passes: int
    refinement: Refinement | None
    residual: bool
    observation: float | str
    chroma_radius: int
    dct_threshold: float
    turns: bool
    _taken: dict[str, Any]

    @property
    def value_range(self) -> ValueRange | None:
        """(low, high) of float images, or a `CountRange`; None for the usual scales."""
        return self._value_range

    @value_range.setter
    def value_range(self, limits: Sequence[float] | None) -> None:
        self._value_range = None if limits is None else range_of_values(limits)

    @property
    def train_stride(self) -> tuple[int, ...]:
        """The training strides, of which each step draws one; same as `train_strides`."""
        return self.train_strides

    @train_stride.setter
    def train_stride(self, strides: int | Sequence[int]) -> None:
        several = strides if isinstance(strides, Iterable) else (strides,)
        self.train_strides = tuple(whole("train_stride", stride) for stride in several)

    @property
    def refine(self) -> Refinement | None:
        """The settings of R3, or None for no R3; same as `refinement`."""
        return self.refinement

    @refine.setter
    def refine(self, settings: Refinement | bool | None) -> None:
        self.refinement = Refinement() if settings is True else settings or None

    @property
    def noise_level(self) -> tuple[NoiseLevel, ...] | None:
        """(slope, offset) of the variance of the noise, one per channel; None if not known.

        A level that is set is kept by `fit`; after None, `fit` measures it.
        """
        return self._noise_level

    @noise_level.setter
    def noise_level(self, levels: Sequence[Sequence[float]] | None) -> None:
        self.found_level(levels)
        self.level_given = levels is not None

    def found_level(self, levels: Sequence[Sequence[float]] | None) -> None:
        """Set a measured `noise_level`, which the next `fit` measures again.

        Raises:
            SettingError: see `check_levels`.
        """
        self.level_given = False
        self._noise_level = None if levels is None else check_levels(levels, self.channels)

    @property
    def inference_scheme(self) -> MaskScheme:
        """The scheme used by `denoise`: `scheme.inference` if set, else `scheme`."""
        return self.scheme.inference or self.scheme

    @property
    def shortest_side(self) -> int:
        """Shortest side in pixels of pictures to train on: the largest training stride.

        Strides that `fit` may still choose are included.
        """
        decides = self.undecided and "train_stride" not in self.given
        return max(*self.train_strides, SMOOTH_STRIDE if decides else 1)

    def decide(self, preset: str, **settings: Any) -> None:
        """Apply a preset to every setting that the user neither passed nor changed.

        `fit` calls this without a preset (`undecided`), once it has measured the noise.

        Args:
            preset: its name.
            settings: override the preset.

        Raises:
            UnknownNameError, SettingError: there is no such preset, or a value is out of range.
        """
        before = self._values()
        own = {name: value for name, value in before.items() if value != self._taken[name]}
        try:
            residual = self._choose_residual(self._take(preset, settings))
            taken = {**self._values(), "residual": residual}
            self._put({**taken, **own})
            self._check_settings()
        except Exception:
            self._put(before)
            raise
        self._taken = {**taken, **{name: self._taken[name] for name in own}}
        self.preset, self.undecided = preset, False

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _DECIDED}

    def _remember(self) -> None:
        """Remember the current values: the user set those that differ later, and they are kept."""
        self._taken = self._values()

    def _put(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def _take(self, preset: str, settings: dict[str, Any]) -> bool | str:
        """Apply a preset, then `settings`, then `given`; return the requested `residual`."""
        recipe = {**named_preset(preset)["denoiser"], **settings, **self.given}
        self.scheme = recipe["scheme"]
        self.train_stride = recipe["train_stride"]
        self.stride = whole("stride", recipe["stride"])
        self.passes = whole("passes", recipe["passes"])
        self.refine = recipe["refine"]
        share = recipe["observation"]
        self.observation = share if share == "measured" else number("observation", share, _SHARE)
        self.chroma_radius = whole("chroma_radius", recipe["chroma_radius"])
        self.dct_threshold = number("dct_threshold", recipe["dct_threshold"], UNIT)
        self.turns = recipe["turns"]
        self._check_settings()
        residual: bool | str = recipe["residual"]
        return residual

    def _choose_residual(self, wish: bool | str) -> bool:
        if isinstance(wish, bool):
            return wish
        if wish != "auto":
            raise SettingError(f"residual is {wish!r}; True, False or 'auto' is needed")
        blind = self.scheme.blind or self.inference_scheme.blind
        return self.scheme.fill == "mean" and not blind and not self.traits.global_skip

    def _check_settings(self) -> None:
        if not isinstance(self.scheme, MaskScheme):
            raise SettingError(f"scheme is {self.scheme!r}; a MaskScheme object is needed")
        if not isinstance(self.refinement, Refinement | None):
            raise SettingError(
                f"refine is {self.refinement!r}; True, False or a Refinement is needed"
            )
        for stride in (*self.train_strides, self.stride):
            PixelDownsample(stride)
        if not self.train_strides:
            raise SettingError("train_stride is empty; a stride, or several, is needed")
        if not isinstance(self.turns, bool | np.bool_):
            raise SettingError(f"turns is {self.turns!r}; True or False is needed")
        if not isinstance(self.passes, Integral) or self.passes < 1:
            raise SettingError(f"passes is {self.passes!r}; 1 or more is needed")
        if not isinstance(self.dct_threshold, Real) or not 0 <= self.dct_threshold <= 1:
            raise SettingError(f"dct_threshold is {self.dct_threshold!r}; {UNIT} is needed")
        if not isinstance(self.chroma_radius, Integral) or self.chroma_radius < 0:
            raise SettingError(
                f"chroma_radius is {self.chroma_radius!r}; 0 pixels or more is needed"
            )
        share = 0.0 if self.observation == "measured" else self.observation
        if not isinstance(share, Real) or not 0 <= share < 1:
            raise SettingError(f"observation is {self.observation!r}; {_SHARE} is needed")

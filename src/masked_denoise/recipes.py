"""Recipes to compare: named plain settings, from presets or a small TOML or JSON file.

A recipe determines everything except the budget, the seed and the pictures:

    [coarse]
    train_stride = 5

    [paper-K4]
    preset = "amsnet-p-e"
    scheme = {name = "random", branches = 4, fill = "zero"}
    crop = 80
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MissingExtraError, SettingError, unknown_name
from .presets import PRESETS, preset
from .refine import Refinement
from .scheme import MaskScheme, create_scheme
from .training.settings import BUDGETS, FitSettings, fit_settings

if TYPE_CHECKING:
    from .denoiser import AsymmetricMaskDenoiser

DEFAULT_BACKBONE = "fast-unet"

_FROM_CALLER = {"channels", "value_range", "seed", *BUDGETS}
_INFERENCE = {
    "stride",
    "passes",
    "refine",
    "observation",
    "chroma_radius",
    "dct_threshold",
    "turns",
}


@dataclass(frozen=True)
class Recipe:
    """A name and plain settings, checked when the recipe is created.

    Args:
        name: of the recipe, as in tables.
        settings: any of `preset` (a preset's name, for all other settings), `backbone` (a
            registered name), `fill` (replaces that of the scheme), and the arguments of
            `AsymmetricMaskDenoiser` and of `fit`. `scheme` is a registered name, or a mapping with
            "name" and the scheme's arguments; `refine` is true, false, or a mapping.

    Raises:
        UnknownNameError: a setting, preset or scheme is not known; the nearest one is suggested.
        SettingError: a value cannot be used.

    >>> recipe = Recipe("sparse", {"scheme": {"name": "random", "branches": 4}, "crop": 64})
    >>> recipe.denoiser(channels=1).scheme.branches, recipe.fit_arguments
    (4, {'crop': 64})
    >>> Recipe("typo", {"strid": 2})
    Traceback (most recent call last):
    masked_denoise.errors.UnknownNameError: unknown setting in recipe 'typo': 'strid'; did you mean
    'stride'? Known: ...
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = _denoiser_names() | _fit_names() | {"preset", "backbone", "fill"}
        for key in self.settings:
            if key not in known:
                raise unknown_name(f"setting in recipe '{self.name}':", key, known)
        preset(self._preset)
        fit_settings({}, {"steps": 1, **self.fit_arguments})
        self._denoiser_arguments()

    @property
    def _preset(self) -> str:
        return str(self.settings.get("preset", "default"))

    @property
    def backbone(self) -> str:
        """The name of the network."""
        return str(self.settings.get("backbone", DEFAULT_BACKBONE))

    @property
    def fit_arguments(self) -> dict[str, Any]:
        """The arguments of `fit` that the recipe sets, without those of its preset."""
        return {key: value for key, value in self.settings.items() if key in _fit_names()}

    def denoiser(self, *, channels: int, seed: int = 0) -> AsymmetricMaskDenoiser:
        """Return a new denoiser, whose initial weights are determined by the seed.

        Raises:
            SettingError, UnknownNameError, BackboneError: an argument cannot be used.
        """
        from .jobs.models import new_denoiser

        return new_denoiser(
            self.backbone, channels=channels, preset=self._preset, seed=seed,
            **self._denoiser_arguments(),
        )  # fmt: skip

    def training_key(self) -> str:
        """Return a string that is equal for recipes that differ in inference only."""
        arguments = {**preset(self._preset)["denoiser"], **self._denoiser_arguments()}
        kept = {key: repr(value) for key, value in arguments.items() if key not in _INFERENCE}
        kept["noise_level"] = str(arguments["observation"] == "measured")  # `fit` measures it then
        told = {**preset(self._preset)["fit"], **self.fit_arguments}
        told = {key: value for key, value in told.items() if key not in BUDGETS}
        fit = fit_settings(told, {"steps": 10**9}).to_json()
        return json.dumps([self.backbone, kept, fit], sort_keys=True)

    def _denoiser_arguments(self) -> dict[str, Any]:
        """Return the denoiser arguments that the recipe sets, with scheme and refine as objects."""
        names = _denoiser_names()
        told = {key: copy.copy(value) for key, value in self.settings.items() if key in names}
        if "scheme" in told:
            told["scheme"] = self._scheme(told["scheme"])
        if "fill" in self.settings:
            scheme = told.get("scheme") or preset(self._preset)["denoiser"]["scheme"]
            told["scheme"] = create_scheme(
                scheme.name, **{**scheme.settings(), "fill": self.settings["fill"]}
            )
        if isinstance(told.get("refine"), Mapping):
            told["refine"] = self._made("refine", Refinement, told["refine"])
        return told

    def _scheme(self, value: object) -> MaskScheme:
        if isinstance(value, str):
            return create_scheme(value)
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise SettingError(
                f"scheme of recipe '{self.name}' is {value!r}; a name, or a mapping with the key "
                '"name" is needed, such as {"name": "random", "branches": 4}'
            )
        arguments = dict(value)
        if arguments.get("inference") is not None:
            arguments["inference"] = self._scheme(arguments["inference"])
        made = self._made("scheme", lambda **told: create_scheme(**told), arguments)
        assert isinstance(made, MaskScheme)
        return made

    def _made(self, key: str, build: Any, arguments: Mapping[str, Any]) -> Any:
        try:
            return build(**arguments)
        except TypeError as error:
            raise SettingError(
                f"{key} of recipe '{self.name}' is {dict(arguments)!r}, which cannot be used: "
                f"{error}"
            ) from error


def read_recipes(path: str | Path) -> list[Recipe]:
    """Return the recipes of a file, in its order: one table (TOML) or object (JSON) per recipe.

    Raises:
        SettingError: the file is missing, is no TOML or JSON, or does not hold recipes.
        UnknownNameError: a setting is not known.
        MissingExtraError: the file is TOML, and Python is 3.10, which cannot read it.
    """
    path = Path(path)
    if path.suffix.lower() not in (".toml", ".json"):
        raise SettingError(f"recipes {path}: a file that ends in .toml or .json is needed")
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else _parse_toml(text)
    except OSError as error:
        raise SettingError(f"cannot read the recipes {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise SettingError(f"cannot read the recipes {path}: {error}") from error
    if not isinstance(values, dict) or not values:
        raise SettingError(f"{path} holds no recipe; a table a recipe is needed, such as [mine]")
    for name, settings in values.items():
        if not isinstance(settings, dict):
            raise SettingError(
                f"{path}: '{name}' is {settings!r}, outside of any recipe; a table a recipe is "
                "needed, such as [mine]"
            )
    return [Recipe(name, settings) for name, settings in values.items()]


def preset_recipe(text: str) -> Recipe:
    """Return the recipe for a preset's name, or for "PRESET:BACKBONE".

    >>> preset_recipe("amsnet-p:dncnn").settings
    {'preset': 'amsnet-p', 'backbone': 'dncnn'}
    """
    name, _, backbone = text.partition(":")
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return Recipe(text, {"preset": name, **({"backbone": backbone} if backbone else {})})


def _parse_toml(text: str) -> Any:
    try:
        tomllib = importlib.import_module("tomllib")
    except ImportError as error:  # Python 3.10
        raise MissingExtraError(
            "Python 3.10 does not read TOML: write JSON instead, or take Python 3.11 or newer"
        ) from error
    return tomllib.loads(text)


def _denoiser_names() -> set[str]:
    from .denoiser import AsymmetricMaskDenoiser

    names = set(inspect.signature(AsymmetricMaskDenoiser.__init__).parameters)
    return names - {"self", "backbone", "preset"} - _FROM_CALLER


def _fit_names() -> set[str]:
    return {one.name for one in fields(FitSettings)} - _FROM_CALLER

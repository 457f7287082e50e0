"""The registry of backbones: names and properties."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from ..errors import MaskedDenoiseError, SettingError, unknown_name
from ..plugins import BACKBONES, load_plugins

# Modules of this package, each of which registers its networks.
_BUILT_IN = ("fast_unet", "student", "unet", "restormer", "nafnet", "deamnet", "dncnn", "dbsn")
_TIMM = "timm:"

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class BackboneInfo:
    """The properties of a registered backbone.

    Attributes:
        name: argument for `create_backbone`.
        build: called as build(channels=C, **arguments) -> nn.Module, (B, C, H, W) in and out.
        size_multiple: height and width must be multiples of this; None: detected by a trial.
        global_skip: True if the network adds its input to its output by itself; None: detected by
            a trial.
        blind: True if no output pixel depends on the input pixel at the same place.
        trains_in_bf16: True if its gradients in bfloat16 equal those in float32 up to rounding, so
            that `fit` may use it on a CPU. For some convolutions PyTorch computes others there.
        license: of the code, as an SPDX identifier.
        source: the paper that describes the network.
        note: one line for the table of backbones.
    """

    name: str
    build: Callable[..., nn.Module]
    size_multiple: int | None = None
    global_skip: bool | None = None
    blind: bool = False
    trains_in_bf16: bool = False
    license: str = "unknown"
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Entry:
    """A registered backbone, before its arguments are known.

    Attributes:
        facts: properties that do not depend on the arguments.
        rules: the others by name, as functions of all arguments, including defaults.
    """

    facts: BackboneInfo
    rules: Mapping[str, Callable[[dict[str, Any]], object]]

    @classmethod
    def of(cls, **facts: Any) -> _Entry:
        """Return the entry for attributes of `BackboneInfo`, each a value or a rule."""
        rules = {name: fact for name, fact in facts.items() if callable(fact) and name != "build"}
        return cls(BackboneInfo(**{k: v for k, v in facts.items() if k not in rules}), rules)

    def info(self, given: Mapping[str, object]) -> BackboneInfo:
        """Return the properties of a network with these arguments."""
        arguments = _with_defaults(self.facts, given)
        found: dict[str, Any] = {
            name: _follow(rule, self.facts, arguments, given) for name, rule in self.rules.items()
        }
        return replace(self.facts, **found)


_KNOWN: dict[str, _Entry] = {}


def register_backbone(
    name: str,
    *,
    size_multiple: int | Callable[[dict[str, Any]], int] | None = None,
    global_skip: bool | Callable[[dict[str, Any]], bool] | None = None,
    blind: bool | Callable[[dict[str, Any]], bool] = False,
    trains_in_bf16: bool = False,
    license: str = "unknown",
    source: str = "",
    note: str = "",
) -> Callable[[Builder], Builder]:
    """Return a decorator that registers a network class or function under a name.

    The class or function is called with `channels=C` and the user's arguments, and must return a
    module that keeps the shape of (B, C, H, W). The other parameters are those of `BackboneInfo`;
    `size_multiple`, `global_skip` and `blind` may be functions of a dict of the network's
    arguments, including defaults.

    Raises:
        SettingError: the name is taken.

    >>> @register_backbone("pool-example", size_multiple=lambda a: 2 ** a["levels"])
    ... class Pool(nn.Module):
    ...     def __init__(self, channels=3, *, levels=3):
    ...         super().__init__()
    >>> backbone_info("pool-example").size_multiple
    8
    >>> backbone_info("pool-example", levels=5).size_multiple
    32
    """

    def register(build: Builder) -> Builder:
        if not build.__module__.startswith(f"{__package__}."):
            _load_built_in()  # so that their names count as taken
        known = _KNOWN.get(name)
        if known is not None and _origin(known.facts.build) != _origin(build):
            raise SettingError(
                f"backbone name '{name}' is taken by {known.facts.build!r}; choose another"
            )
        if name.startswith(_TIMM):
            raise SettingError(
                f"backbone name '{name}' is taken by timm's encoders; choose another"
            )
        _KNOWN[name] = _Entry.of(
            name=name, build=build, size_multiple=size_multiple, global_skip=global_skip,
            blind=blind, trains_in_bf16=trains_in_bf16, license=license, source=source, note=note,
        )  # fmt: skip
        return build

    return register


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the sorted names of registered backbones that match a shell-style pattern.

    Installed plug-ins are included. The encoders of timm are not: any model of
    `timm.list_models()` with a pyramid of feature maps is available as "timm:<name>".

    >>> list_backbones("*unet")
    ['fast-unet', 'unet']
    """
    _load_built_in()
    _load_plugins()
    return sorted(fnmatch.filter(_KNOWN, pattern))


def backbone_info(name: str, **arguments: object) -> BackboneInfo:
    """Return the properties of a backbone with the given arguments.

    Raises:
        UnknownNameError: no backbone has that name; the nearest one is suggested.
        SettingError: it does not accept those arguments.
    """
    return _find(name).info(arguments)


def create_backbone(name: str, *, channels: int = 3, **arguments: object) -> nn.Module:
    """Return a new network for images of `channels` channels, with random weights.

    Args:
        name: one of `list_backbones()`, or "timm:" and the name of an encoder of timm, for a U-Net
            around it.
        channels: C, of input and output.
        arguments: of the network, for example `widths` of "fast-unet".

    Raises:
        UnknownNameError: no backbone has that name.
        SettingError: `channels` is not positive, or an argument cannot be used.

    >>> network = create_backbone("fast-unet", channels=1)
    """
    if not isinstance(channels, int) or channels < 1:
        raise SettingError(f"channels is {channels!r}; 1 or more is needed")
    facts = _find(name).facts
    _with_defaults(facts, arguments)
    try:
        return facts.build(channels=channels, **arguments)
    except MaskedDenoiseError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        if not arguments:
            raise
        raise _unusable(facts, arguments, error) from error


def _find(name: str) -> _Entry:
    if name.startswith(_TIMM):
        from .timm_unet import find_encoder

        return _Entry.of(name=name, **find_encoder(name.removeprefix(_TIMM)))
    _load_built_in()
    if name not in _KNOWN:
        _load_plugins()
    if name not in _KNOWN:
        raise unknown_name("backbone", name, _KNOWN)
    return _KNOWN[name]


def _with_defaults(facts: BackboneInfo, given: Mapping[str, object]) -> dict[str, Any]:
    """Return all arguments of a network: those given, and defaults for the others."""
    try:
        signature = inspect.signature(facts.build)
    except ValueError:  # of a class written in C
        return dict(given)
    try:
        bound = signature.bind(**{"channels": 3, **given})
    except TypeError as error:
        raise _unusable(facts, given, error) from error
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name)
    return arguments


def _follow(
    rule: Callable[[dict[str, Any]], object],
    facts: BackboneInfo,
    arguments: dict[str, Any],
    given: Mapping[str, object],
) -> object:
    """Return the result of a rule; raise SettingError if the given arguments do not suit it."""
    try:
        return rule(arguments)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        if isinstance(error, MaskedDenoiseError) or not given:
            raise
        raise _unusable(facts, given, error) from error


def _unusable(facts: BackboneInfo, given: Mapping[str, object], error: Exception) -> SettingError:
    came = ", ".join(f"{key}={value!r}" for key, value in given.items())
    takes = [
        str(parameter.replace(annotation=inspect.Parameter.empty))
        for parameter in inspect.signature(facts.build).parameters.values()
        if parameter.name != "channels"
    ]
    return SettingError(
        f"backbone '{facts.name}' cannot be made with {came or 'no arguments'}: {error}; it takes "
        f"{', '.join(takes) or 'no arguments'}"
    )


def _origin(build: Callable[..., nn.Module]) -> tuple[str, str]:
    """Return what stays the same if a module or notebook cell is run again."""
    return build.__module__, getattr(build, "__qualname__", repr(build))


def _load_built_in() -> None:
    for module in _BUILT_IN:
        importlib.import_module(f".{module}", __package__)


def _load_plugins() -> None:
    load_plugins(BACKBONES, _accept)


def _accept(plugin: object) -> None:
    """Raise SettingError unless the object of an entry point has registered a backbone."""
    builds = [entry.facts.build for entry in _KNOWN.values()]
    if isinstance(plugin, ModuleType):
        package = plugin.__name__.partition(".")[0]
        found = any(build.__module__.partition(".")[0] == package for build in builds)
    else:
        found = any(build is plugin for build in builds)
    if not found:
        raise SettingError(f"{plugin!r} registers no backbone; decorate it with @register_backbone")

"""The names of backbones, and what is known of each."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..errors import SettingError, unknown_name

_BUILT_IN = (
    "fast_unet",
    "unet",
    "restormer",
    "nafnet",
    "deamnet",
    "dncnn",
    "dbsn",
)  # modules of this package; each registers its networks
_KNOWN: dict[str, BackboneInfo] = {}


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a registered backbone.

    Attributes:
        name: what `create_backbone` is asked for.
        build: called as build(channels=C, **arguments) -> nn.Module, (B, C, H, W) in and out.
        size_multiple: height and width must be multiples of this.
        global_skip: True when the network adds its input to its output by itself.
        blind: True when an output pixel cannot depend on the input pixel at the same place.
        license: of the code, as an SPDX name.
        source: the paper that the network comes from.
        note: one line for the table of backbones.
    """

    name: str
    build: Callable[..., nn.Module]
    size_multiple: int = 1
    global_skip: bool = False
    blind: bool = False
    license: str = "Apache-2.0"
    source: str = ""
    note: str = ""


def register_backbone(
    name: str,
    *,
    size_multiple: int = 1,
    global_skip: bool = False,
    blind: bool = False,
    license: str = "unknown",
    source: str = "",
    note: str = "",
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Return a decorator that makes a network class or function available by name.

    It is called with `channels=C` and the user's arguments, and must return a module that keeps
    the shape of (B, C, H, W). The other parameters are those of `BackboneInfo`.

    Raises:
        SettingError: the name is taken.

    >>> @register_backbone("identity-example", license="CC0-1.0")
    ... def identity(channels=3):
    ...     return nn.Identity()
    >>> create_backbone("identity-example")
    Identity()
    """

    def register(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if not build.__module__.startswith(f"{__package__}."):
            _load_built_in()  # their names are taken, even where none was used yet
        known = _KNOWN.get(name)
        if known is not None and _origin(known.build) != _origin(build):
            raise SettingError(
                f"backbone name '{name}' is taken by {known.build!r}; choose another"
            )
        _KNOWN[name] = BackboneInfo(
            name, build, size_multiple, global_skip, blind, license, source, note
        )
        return build

    return register


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the sorted names of the registered backbones that match a shell-style pattern.

    >>> list_backbones("*unet")
    ['fast-unet', 'unet']
    """
    _load_built_in()
    return sorted(fnmatch.filter(_KNOWN, pattern))


def backbone_info(name: str) -> BackboneInfo:
    """Return what is known of a backbone.

    Raises:
        UnknownNameError: no backbone has that name; the nearest one is suggested.
    """
    _load_built_in()
    if name not in _KNOWN:
        raise unknown_name("backbone", name, _KNOWN)
    return _KNOWN[name]


def create_backbone(name: str, *, channels: int = 3, **arguments: object) -> nn.Module:
    """Return a new network for images of `channels` channels, with random weights.

    Args:
        name: one of `list_backbones()`.
        channels: C, of input and output.
        arguments: the network's own, for example `widths` of "fast-unet".

    Raises:
        UnknownNameError: no backbone has that name.
        SettingError: `channels` is not positive.

    >>> network = create_backbone("fast-unet", channels=1)
    """
    if channels < 1:
        raise SettingError(f"channels is {channels}; 1 or more is needed")
    return backbone_info(name).build(channels=channels, **arguments)


def _origin(build: Callable[..., nn.Module]) -> tuple[str, str]:
    """Return what stays the same where a module or a notebook cell is run again."""
    return build.__module__, getattr(build, "__qualname__", repr(build))


def _load_built_in() -> None:
    for module in _BUILT_IN:
        importlib.import_module(f".{module}", __package__)

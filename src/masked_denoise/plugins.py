"""Backbones and schemes of other packages, found by their entry points on demand.

A package declares them in its pyproject.toml:

```toml
[project.entry-points."masked_denoise.backbones"]
my-net = "my_package.my_net:MyNet"  # decorated with @register_backbone, or a module that does so

[project.entry-points."masked_denoise.schemes"]
diagonal = "my_package.diagonal:Diagonal"  # a MaskScheme with a name
```
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

BACKBONES = "masked_denoise.backbones"
SCHEMES = "masked_denoise.schemes"

_LOADED: set[str] = set()
_LOADING = threading.RLock()


class PluginWarning(UserWarning):
    """A plug-in of another package cannot be used; everything else can."""


def load_plugins(group: str, accept: Callable[[object], None]) -> None:
    """Load the entry points of a group, once per process, and pass each object to `accept`.

    A plug-in that cannot be loaded, or for which `accept` raises, is skipped with a `PluginWarning`
    that names it, its distribution and the error.

    Args:
        group: `BACKBONES` or `SCHEMES`.
        accept: called with the object of each entry point.
    """
    troubles = []
    with _LOADING:  # other threads wait; a plug-in that calls this while it is loaded does not
        if group in _LOADED:
            return
        _LOADED.add(group)
        try:
            plugins = sorted(entry_points(group=group), key=lambda one: (one.name, one.value))
        except Exception as error:  # the metadata of any installed package may be damaged
            plugins, told = [], f"{type(error).__name__}: {error}"
            troubles.append(f"plug-ins of {group} are left out, installed metadata fails: {told}")
        for plugin in plugins:
            try:
                accept(plugin.load())
            except (Exception, SystemExit) as error:  # whatever another package does wrong
                troubles.append(_trouble(plugin, error))
    for trouble in troubles:
        warnings.warn(trouble, PluginWarning, stacklevel=4)


def _trouble(plugin: EntryPoint, error: BaseException) -> str:
    owner = plugin.dist.name if plugin.dist else None
    told = f"{owner} {plugin.dist.version}" if plugin.dist else "an unknown distribution"
    cure = f"upgrade or remove it (pip uninstall {owner})" if owner else "remove it"
    return (
        f"plug-in '{plugin.name}' ({plugin.value}) of {told} is left out: "
        f"{type(error).__name__}: {error}; {cure}"
    )

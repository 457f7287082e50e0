"""What the argument of `from_pretrained` means: a folder, a named model, or a repository."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import SettingError, WeightsError, first_line
from .shipped import SHIPPED

if TYPE_CHECKING:
    from .table import PretrainedModel

LOCAL, HUB = "local-dir:", "hf-hub:"
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_FOLDER = re.compile(r"[^/\\:\0]+")


@dataclass(frozen=True)
class ModelSource:
    """Where a model is.

    Attributes:
        folder: on this machine, or a training checkpoint; None if it is on the Hub.
        repository: owner/name on the Hub.
        revision: branch, tag or commit there; None for the main branch.
        subfolder: of the repository; a local one is part of `folder`.
        model: the named model that this is, if it is one.
        sha256: of the weights, if known beforehand.
    """

    folder: Path | None = None
    repository: str = ""
    revision: str | None = None
    subfolder: str | None = None
    model: PretrainedModel | None = None
    sha256: str | None = None


def find_place(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> ModelSource:
    """Return where a model is, by its name, repository, folder or file; no connection is made.

    In this order: the prefixes "local-dir:" and "hf-hub:"; a name of the table of pretrained
    models; what exists on disk; "owner/name" on the Hub.

    Raises:
        SettingError: the arguments contradict each other, or could mean two things.
        WeightsError: the source means nothing.

    >>> place = find_place("hf-hub:me/mine@v1")
    >>> place.repository, place.revision
    ('me/mine', 'v1')
    """
    if local_files_only and force_download:
        raise SettingError("local_files_only and force_download contradict each other; give one")
    check_subfolder(subfolder)
    if not isinstance(source, str):
        return _local(Path(source), revision, subfolder)
    if source.startswith(LOCAL):
        return _local(Path(source.removeprefix(LOCAL)).expanduser(), revision, subfolder)
    if source.startswith(HUB):
        return _hub(source.removeprefix(HUB), revision, subfolder)
    name = source.partition("@")[0]
    model = pretrained_models().get(name)
    exists = bool(source) and os.path.lexists(os.path.expanduser(source))
    if model is not None and exists:
        raise SettingError(
            f"'{source}' is a pretrained model and a local folder; write '{LOCAL}{source}' for the "
            f"folder, '{HUB}{model.repository}' for the model"
        )
    if name in SHIPPED:
        return _shipped(source, revision, subfolder, exists)
    if model is not None:
        return _named(model, source, revision, subfolder)
    if exists:
        return _local(Path(source).expanduser(), revision, subfolder)
    if _REPOSITORY.fullmatch(name):
        return _hub(source, revision, subfolder)
    raise WeightsError(_unknown(source, name))


def pretrained_models() -> Mapping[str, PretrainedModel]:
    """Return the named models, by name."""
    from .table import PRETRAINED

    return PRETRAINED


def check_subfolder(subfolder: str | None) -> None:
    """Raise SettingError if a subfolder could lead out of the folder it is in."""
    if subfolder is None:
        return
    parts = subfolder.split("/") if isinstance(subfolder, str) else [""]
    if any(part in (".", "..") or not _FOLDER.fullmatch(part) for part in parts):
        raise SettingError(
            f"subfolder is {subfolder!a}; names of folders with / between them are needed, "
            "for example 'models/small'"
        )


def check_target(device: str | torch.device | None, dtype: torch.dtype | None) -> None:
    """Raise SettingError if a network cannot go to a device, or cannot have a dtype."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise SettingError(f"dtype is {dtype!r}; a floating one, as torch.bfloat16, is needed")
    if device is not None:
        try:
            torch.empty(0, device=device)
        except Exception as error:  # its type depends on the device
            raise SettingError(
                f"device {str(device)!r} cannot be used: {first_line(error)}"
            ) from error


def _local(path: Path, revision: str | None, subfolder: str | None) -> ModelSource:
    if revision is not None:
        raise SettingError(
            f"revision={revision!r} is for the Hub, and {path} is on this machine; write "
            f"'{HUB}owner/name' if you mean a repository, or leave the revision out"
        )
    return ModelSource(folder=path if subfolder is None else path.joinpath(*subfolder.split("/")))


def _hub(text: str, revision: str | None, subfolder: str | None) -> ModelSource:
    name, revision = _split(text, revision)
    if not _REPOSITORY.fullmatch(name):
        raise WeightsError(
            f"{name!a} is not a repository of the Hub; '{HUB}owner/name' or "
            f"'{HUB}owner/name@revision' is needed"
        )
    return ModelSource(repository=name, revision=revision, subfolder=subfolder)


def _named(
    model: PretrainedModel, text: str, revision: str | None, subfolder: str | None
) -> ModelSource:
    _, wanted = _split(text, revision)
    pinned = wanted is None or wanted == model.revision
    return ModelSource(
        repository=model.repository,
        revision=model.revision if wanted is None else wanted,
        subfolder=subfolder,
        model=model,
        sha256=model.sha256 if pinned else None,
    )


def _shipped(source: str, revision: str | None, subfolder: str | None, exists: bool) -> ModelSource:
    """Return where a model of the package is."""
    name, wanted = _split(source, revision)
    if exists:
        raise SettingError(
            f"'{source}' is a model of the package and a local folder; write '{LOCAL}{source}' for "
            "the folder, or rename it"
        )
    if wanted is not None or subfolder is not None:
        raise SettingError(
            f"{name} came with the package and has neither revisions nor subfolders; leave them out"
        )
    return ModelSource(folder=SHIPPED[name].folder)


def _split(text: str, revision: str | None) -> tuple[str, str | None]:
    """Return the name and the revision, which follows an @ or is given separately."""
    name, at, behind = text.partition("@")
    if at and revision is not None:
        raise SettingError(
            f"the revision is given twice, as '@{behind}' and as revision={revision!r}; give one"
        )
    revision = behind if at else revision
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise SettingError(
            f"revision is {revision!a}; a branch, tag or commit is needed, for example 'main'"
        )
    return name, revision


def _unknown(source: str, name: str) -> str:
    """Return the message for a string that means nothing."""
    web = re.match(r"https?://[^/]+/([^/]+/[^/?#]+)", source)
    if web:
        return f"{source!a} is a web address; write '{HUB}{web[1]}'"
    if os.sep in source or "/" in source or source.startswith((".", "~")):
        return f"there is no model in {source!a}: no such file or folder"
    known = sorted({*pretrained_models(), *SHIPPED})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return (
        f"{source!a} is no file, folder or pretrained model{hint} Pretrained: "
        f"{', '.join(known)}. A repository of the Hub is written owner/name"
    )

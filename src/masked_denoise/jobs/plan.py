"""Where results go: which file is denoised into which, and whether it can be written at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..atomic import try_folder, write_whole
from ..errors import DataError, ImageWriteError, SettingError
from ..images import OTHER_SUFFIXES, SUFFIXES, find_images, output_path, output_paths


@dataclass(frozen=True)
class Task:
    """A file to denoise, the folder that it was found in, and where the result goes."""

    source: Path
    root: Path
    target: Path

    @property
    def name(self) -> str:
        """The path of the file below the folder that was given."""
        return self.source.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Plan:
    """The files to denoise, and those skipped because their results exist."""

    tasks: tuple[Task, ...]
    skipped: tuple[Task, ...] = ()


def make_plan(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    suffix: str = "",
    format: str | None = None,
    existing: str = "error",
) -> Plan:
    """Return which files are denoised into which; no file is written and no folder made.

    Args:
        inputs: files and folders; folders are searched recursively, and their sub-folders kept. If
            `output` lies inside one of them, results of an earlier run in it are no inputs.
        output: a folder; for one input file also the file to write, with its extension.
        suffix: added to the names of the results.
        format: "png", "jpeg", "tiff" or "npy"; by default that of the input, PNG for JPEG.
        existing: what to do where a result exists: "error", "overwrite", or "skip".

    Raises:
        ImageReadError, DataError: a path does not exist, or there are no images.
        SettingError: results exist, or would replace an input or one another, or an argument is out
            of range.
        ImageWriteError: the results cannot be written there.
        UnknownNameError: `format` is not known.
    """
    if existing not in ("error", "overwrite", "skip"):
        raise SettingError(f"existing is {existing!r}; 'error', 'overwrite' or 'skip' is needed")
    output = Path(output)
    found = find_images(inputs)
    if len(found) == 1 and found[0][0] == Path(inputs[0]) and _names_a_file(output):
        _check_file(output, suffix, format)
        targets = [output]
        if output.resolve() == found[0][0].resolve():
            raise SettingError(f"the result would replace its input {output}; choose another name")
    else:
        if _names_a_file(output) and not output.exists():
            raise SettingError(
                f"{output} looks like a file, but there are {len(found)} pictures, or a folder of "
                "them, to denoise; give a folder for the results"
            )
        _check_folder_name(output, len(found))
        found = _without_results(found, output)
        if suffix and existing != "overwrite":  # which could replace a user's picture
            made = {
                output_path(file, root, output, suffix=suffix, format=format).resolve()
                for file, root in found
            }
            found = [(file, root) for file, root in found if file.resolve() not in made]
        targets = output_paths(found, output, suffix=suffix, format=format)
    tasks = [Task(file, root, target) for (file, root), target in zip(found, targets, strict=True)]
    if not suffix:
        _check_apart(tasks, inputs, output)
    there = [task for task in tasks if os.path.lexists(task.target)]
    if there and existing == "error":
        more = f" and {len(there) - 1} more exist" if len(there) > 1 else " exists"
        raise SettingError(
            f"{there[0].target}{more} already; choose another folder, or replace what is there "
            "(--overwrite), or denoise only the rest (--skip-existing)"
        )
    for folder in sorted({task.target.parent for task in tasks}):
        check_writable(folder)
    folders = [task.target for task in there if task.target.is_dir()]
    if folders:
        raise ImageWriteError(f"{folders[0]} is a folder, where a file must go; move it away")
    skipped = set(there) if existing == "skip" else set()
    return Plan(
        tuple(task for task in tasks if task not in skipped), tuple(there) if skipped else ()
    )


def check_writable(folder: str | Path) -> None:
    """Raise ImageWriteError unless files can be written in a folder, which need not exist yet.

    Tries it with a file of 64 KB, which is removed again.
    """
    try:
        try_folder(folder)
    except OSError as error:
        raise ImageWriteError(
            f"cannot write into {folder}: {error.strerror or error}; choose another folder"
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        ImageWriteError: it cannot be written; an older file of that name is kept.
    """
    path = Path(path)
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise ImageWriteError(
            f"cannot write {path}: {error.strerror or error}; choose another folder"
        ) from error


def _names_a_file(output: Path) -> bool:
    return output.suffix.lower() in SUFFIXES and not output.is_dir()


def _check_folder_name(output: Path, count: int) -> None:
    """Raise if one picture would go into a new folder that is named like a picture."""
    if count == 1 and output.suffix.lower() in OTHER_SUFFIXES and not output.exists():
        raise SettingError(
            f"{output} looks like a file, and {output.suffix} cannot be written; end it in "
            f"{', '.join(SUFFIXES)}"
        )


def _check_file(output: Path, suffix: str, format: str | None) -> None:
    """Raise for settings that contradict an output file."""
    if suffix:
        raise SettingError(
            f"a suffix ({suffix}) and a file to write ({output}) contradict each other; give one"
        )
    kind = SUFFIXES[output.suffix.lower()]
    if format is not None and SUFFIXES.get(f".{format.lower().lstrip('.')}") != kind:
        raise SettingError(
            f"format {format} and the file to write, {output}, contradict each other; give one"
        )


def _check_apart(tasks: Sequence[Task], inputs: Sequence[str | Path], output: Path) -> None:
    """Raise if results would go among the pictures of a folder, and pass for some of them."""
    named = {Path(one) for one in inputs}
    for task in tasks:
        beside = task.target.parent.resolve() == task.source.parent.resolve()
        if beside and task.source not in named:
            raise SettingError(
                f"the results would lie in {output} among the pictures, and pass for some of them "
                "the next time; give another folder, or names of their own (--suffix _clean)"
            )


def _without_results(found: list[tuple[Path, Path]], output: Path) -> list[tuple[Path, Path]]:
    """Return the found files, without results of an earlier run inside the input folders."""
    place = output.resolve()
    kept = [
        (file, root)
        for file, root in found
        if not file.resolve().is_relative_to(place) or root.resolve().is_relative_to(place)
    ]
    if not kept:
        raise DataError(f"all images found are in {output}, where the results go; choose another")
    return kept

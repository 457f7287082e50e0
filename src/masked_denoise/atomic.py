"""Atomic writing: a file is written completely or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from pathlib import Path

_TRIAL = bytes(1 << 16)


def try_folder(folder: str | Path) -> None:
    """Check that a folder can be written, by a temporary file of 64 KB.

    If the folder does not exist yet, its nearest existing parent is tried.

    Raises:
        OSError: files cannot be created there.
    """
    place = Path(folder)
    while not os.path.lexists(place):
        if place.parent == place:  # a drive or a share of Windows
            raise FileNotFoundError(errno.ENOENT, f"there is no {place}")
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{place} is not a folder")
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(_TRIAL)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` in one step, creating the folder if it is missing.

    The data are on the disk before the file gets its name, so that after a failure or loss of power
    there is either the old file or the new one, never a partial one.

    Raises:
        OSError: the disk is full, the folder cannot be written, or similar.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from pathlib import Path

_TRIAL = bytes(1 << 16)


def try_folder(folder: str | Path) -> None:
    """Make a file of 64 KB in a folder, which need not be there yet, and remove it again.

    Raises:
        OSError: files cannot be made there.
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
    """Put `data` at `path` in one step, in a folder that is made where it is missing.

    The data are on the disk before the name is, so that after a failure or a loss of power either
    the older file or the new one is there, and nothing else.

    Raises:
        OSError: the disk is full, the folder cannot be written, and the like.
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

"""Keep freed memory for the next step, instead of returning it to the system each time."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # from malloc.h of the GNU C library
_LARGEST = 256 << 20  # bytes; larger tensors are mapped one by one, as before
_USUAL = 32 << 20  # the upper limit of glibc's dynamic threshold; older versions accept no more
_lock = threading.Lock()
_users = 0


@contextmanager
def held_memory(*, give_back: bool = True) -> Iterator[None]:
    """Let the C library keep memory that is freed within the block, and release it afterwards.

    The GNU C library returns large blocks to the system as soon as they are freed. A training step
    on a CPU then waits for the same pages to be mapped and zeroed again: up to a sixth of its time.
    Blocks may be nested and run in several threads. Without glibc nothing happens.

    Args:
        give_back: release the memory right after the block. False for short blocks that will
            repeat, such as one picture: releasing would cost more than it saves.
    """
    library = _glibc()
    if library is None:
        yield
        return
    _count(library, 1)
    try:
        yield
    finally:
        _count(library, -1, give_back)


def _count(library: ctypes.CDLL, change: int, give_back: bool = False) -> None:
    """Add `change` to the number of users; hold memory while there are any."""
    global _users
    with _lock:
        _users += change
        if change == 1 and _users == 1:
            if not library.mallopt(_MMAP_THRESHOLD, _LARGEST):
                library.mallopt(_MMAP_THRESHOLD, _USUAL)
            library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            library.mallopt(_TOP_PAD, 64 << 20)
        elif not _users:  # up to 256 MB stay for the next picture
            library.mallopt(_MMAP_THRESHOLD, _USUAL)
            library.mallopt(_TRIM_THRESHOLD, 256 << 20)
            library.mallopt(_TOP_PAD, 128 << 10)
            if give_back:
                library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of the process if it is glibc, else None."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018
    except (OSError, AttributeError):
        return None
    return library

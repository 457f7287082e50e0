"""Read, denoise and write many files.

A file that cannot be used becomes a `Failure` with the reason, and the others are done.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageWriteError, MaskedDenoiseError
from ..images import SUFFIXES, ImageFile, read_image, write_image
from .overlap import overlap
from .plan import Task
from .survey import Failure

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

_NO_MEMORY = ("out of memory", "not enough memory", "allocate memory")  # as PyTorch words it
_FULL = [getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EROFS")]  # for all files


@dataclass(frozen=True)
class Done:
    """A file that was denoised.

    Attributes:
        task: the file.
        seconds: time taken, including reading and writing.
        clean: whether it had hardly any noise, and was left as it was.
    """

    task: Task
    seconds: float
    clean: bool = False


@dataclass(frozen=True)
class Summary:
    """The files that were denoised, and those that failed."""

    done: tuple[Done, ...]
    failures: tuple[Failure, ...]


def fits_format(
    targets: Mapping[Path, Path], quality: int = 95
) -> Callable[[Path, ImageFile], None]:
    """Return a check for `survey`: can the format of a result hold what is in its source?

    It raises SettingError if not, for example for 16 bits or alpha as JPEG, and ImageWriteError
    where a library fails on it.
    """
    from ..images import encode

    def check(path: Path, image: ImageFile) -> None:
        corner = image.pixels[:1, :1]
        alpha = None if image.alpha is None else image.alpha[:1, :1]
        kind = SUFFIXES[targets[path].suffix.lower()]
        try:
            encode(replace(image, pixels=corner, alpha=alpha), kind, quality)
        except (MaskedDenoiseError, MemoryError):
            raise
        except Exception as error:  # a damaged profile, or anything else a library cannot write
            raise ImageWriteError(
                f"it cannot be written as {kind}: {error or type(error)}"
            ) from error

    return check


def denoise_files(
    tasks: Iterable[Task],
    models: Mapping[Path, AsymmetricMaskDenoiser],
    *,
    leave_clean: Collection[AsymmetricMaskDenoiser] = (),
    passes: int | None = None,
    seed: int = 0,
    strength: float = 1.0,
    nan: str = "error",
    precision: str = "auto",
    quality: int = 95,
    on_file: Callable[[Done | Failure], None] | None = None,
) -> Summary:
    """Read, denoise and write each file in the form that it came in; return the outcome.

    While the network works on one picture, the next is read and the last one written; never more
    than these three are held. A file that cannot be used is a failure, and the next one is done. If
    the disk is full or cannot be written, the rest are failures, too. Results are written whole or
    not at all; on Ctrl-C, what is already denoised is still written.

    Args:
        tasks: what to denoise.
        models: the denoiser of each source.
        leave_clean: the denoisers that leave pictures with hardly any noise as they are: models of
            the package.
        passes, seed, strength, nan, precision: as for `AsymmetricMaskDenoiser.denoise`.
        quality: of results that are JPEG.
        on_file: called after every file, in order, in the caller's thread.
    """
    from ..pretrained.cleanness import was_clean

    done: list[Done] = []
    failures: list[Failure] = []
    trouble: list[str] = []  # with the disk; the first one is reported

    def read(task: Task) -> _Held:
        start = time.perf_counter()
        _check_disk(trouble)
        return _Held(read_image(task.source), time.perf_counter() - start)

    def work(task: Task, held: _Held) -> _Held:
        start = time.perf_counter()
        _check_disk(trouble)
        model = models[task.source]
        pixels = model.denoise(
            held.image.pixels, passes=passes, seed=seed, strength=strength, nan=nan,
            precision=precision,
        )  # fmt: skip
        is_clean = model in leave_clean and was_clean(held.image.pixels, pixels, strength=strength)
        image = held.image if is_clean else replace(held.image, pixels=pixels)
        return _Held(image, held.seconds + time.perf_counter() - start, is_clean)

    def write(task: Task, held: _Held) -> Done:
        start = time.perf_counter()
        _check_disk(trouble)
        try:
            write_image(task.target, held.image, quality=quality)
        except ImageWriteError as error:
            trouble.extend(_disk_trouble(error))
            raise
        return Done(task, held.seconds + time.perf_counter() - start, held.clean)

    def report(task: Task, outcome: Callable[[], Done]) -> None:
        told: Done | Failure
        try:
            told = outcome()
            done.append(told)
        except (MaskedDenoiseError, MemoryError, RuntimeError) as error:
            told = Failure(task.source, _reason(error))
            failures.append(told)
        if on_file is not None:
            on_file(told)

    overlap(tasks, read, work, write, report)
    return Summary(tuple(done), tuple(failures))


@dataclass(frozen=True)
class _Held:
    """A picture in progress, the seconds spent on it, and whether it had hardly any noise."""

    image: ImageFile
    seconds: float
    clean: bool = False


def _reason(error: Exception) -> str:
    """Return why a file failed; re-raise errors in the program, which are not about the file."""
    if isinstance(error, MaskedDenoiseError):
        return str(error)
    if isinstance(error, MemoryError) or any(told in str(error).lower() for told in _NO_MEMORY):
        return f"not enough memory ({str(error).splitlines()[0] if str(error) else 'allocation'})"
    raise error


def _check_disk(trouble: Sequence[str]) -> None:
    """Raise ImageWriteError if the disk could not be written before."""
    if trouble:
        raise ImageWriteError(f"not tried, since {trouble[0]}")


def _disk_trouble(error: ImageWriteError) -> list[str]:
    """Return the reason if no other file could be written either."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _FULL:
        return [f"the folder cannot be written any more ({cause.strerror or cause})"]
    return []

"""What image files hold, found out before work on them begins: form, size, and what is wrong.

A file that cannot be used becomes a `Failure` with the reason, and the others are surveyed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..errors import MaskedDenoiseError, PixelError, SettingError, SizeError
from ..images import ImageFile, read_image
from ..values import BEYOND_UNIT_SCALE, DIM, FAINT, channels_of


class Kind(NamedTuple):
    """What pictures for one model have in common: channels, and what their values mean.

    Integers fill the scale of their type; `dim` ones, of more than 8 bits, leave its upper part
    empty, as 12 bits stored in 16 do. Floats are between 0 and 1, or are `counts` or `faint`, whose
    scale only the pictures tell.
    """

    channels: int
    values: Literal["integers", "dim", "floats", "counts", "faint"] = "integers"

    def __str__(self) -> str:
        """Return the name of such pictures in messages.

        >>> [str(Kind(1)), str(Kind(2, "floats")), str(Kind(3, "dim")), str(Kind(1, "counts"))]
        ['grey', '2-channel float', 'dim colour', 'grey count']
        """
        colours = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        names = {
            "dim": f"dim {colours}", "floats": f"{colours} float",
            "counts": f"{colours} count", "faint": f"faint {colours} float",
        }  # fmt: skip
        return names.get(self.values, colours)


@dataclass(frozen=True)
class Picture:
    """A file that can be used: (H, W) or (H, W, C) pixels of type `dtype`, alpha not counted.

    `finite` is False if there are NaN or infinite pixels, where that is allowed. `brightest` is the
    highest value, as a share of the largest integer of the type; of floats as it is.
    """

    path: Path
    height: int
    width: int
    channels: int
    dtype: str
    finite: bool = True
    brightest: float = 1.0

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width


@dataclass(frozen=True)
class Failure:
    """A file that could not be used, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        named = str(self.path) in self.reason
        return self.reason if named else f"{self.path}: {self.reason}"


Check = Callable[[Path, ImageFile], None]


def survey(
    files: Iterable[Path],
    *,
    channels: Collection[int] | None = None,
    smallest: int = 1,
    nan: str = "error",
    check: Check | None = None,
    on_file: Callable[[Path], None] | None = None,
) -> tuple[list[Picture], list[Failure]]:
    """Return the files that can be used, and the failures; each file is read once, none is kept.

    Args:
        files: image files of any kind that `read_image` takes.
        channels: numbers of channels that models take; others are failures. None takes any.
        smallest: the shortest side that can be used, in pixels.
        nan: "error" makes files with NaN or infinite pixels failures, "mask" lets them pass.
        check: called with every file's path and contents; if it raises one of this library's
            errors, the file is a failure.
        on_file: called with every path once it has been looked at.

    Raises:
        SettingError: `nan` is neither of the two.
    """
    if nan not in ("error", "mask"):
        raise SettingError(f"nan is {nan!r}; 'error' or 'mask' is needed")
    pictures, failures = [], []
    for path in files:
        try:
            image = read_image(path)
            picture = _picture(path, image)
            _check(picture, image, channels, smallest, nan)
            if check is not None:
                check(path, image)
            pictures.append(picture)
        except MaskedDenoiseError as error:
            failures.append(Failure(path, str(error)))
        except MemoryError:
            failures.append(Failure(path, "too large for this machine's memory; cut it into parts"))
        if on_file is not None:
            on_file(path)
    return pictures, failures


def by_kind(pictures: Sequence[Picture]) -> dict[Kind, list[Picture]]:
    """Return the pictures by their kind, those with the fewest channels first.

    16-bit pictures are dim if all with as many channels are: one dark picture among others is just
    dark, unless it is nearly black (`FAINT`). Floats are counts if they go far beyond 1, and faint
    if they use next to nothing of the scale from 0 to 1.
    """
    brightest: dict[int, float] = {}
    for one in pictures:
        if one.dtype == "uint16":
            brightest[one.channels] = max(one.brightest, brightest.get(one.channels, 0.0))
    groups: dict[Kind, list[Picture]] = {}
    for one in pictures:
        kind = Kind(one.channels)
        if one.dtype.startswith("float"):
            faint, beyond = one.brightest < FAINT, one.brightest > BEYOND_UNIT_SCALE
            kind = Kind(one.channels, "faint" if faint else "counts" if beyond else "floats")
        elif one.dtype == "uint16" and (brightest[one.channels] <= DIM or one.brightest <= FAINT):
            kind = Kind(one.channels, "dim")
        groups.setdefault(kind, []).append(one)
    return {kind: groups[kind] for kind in sorted(groups)}


def _picture(path: Path, image: ImageFile) -> Picture:
    pixels = image.pixels
    channels = channels_of(pixels)
    finite = pixels.dtype.kind != "f" or bool(np.isfinite(pixels).all())
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else None
    if top is None:
        values = pixels[np.isfinite(pixels)]
        brightest = float(values.max()) if values.size else 1.0
    else:
        brightest = float(pixels.max()) / top
    height, width = pixels.shape[:2]
    return Picture(path, height, width, channels, pixels.dtype.name, finite, brightest)


def _check(
    picture: Picture, image: ImageFile, channels: Collection[int] | None, smallest: int, nan: str
) -> None:
    """Raise for a picture that a model or the settings do not allow."""
    if channels is not None and picture.channels not in channels:
        known = " or ".join(map(str, sorted(channels)))
        raise SizeError(
            f"it has {picture.channels} channel{'s' * (picture.channels > 1)}, the model takes "
            f"{known}; train a model on pictures like it, or leave out the model"
        )
    if min(picture.height, picture.width) < smallest:
        raise SizeError(
            f"it is {picture.width} x {picture.height} pixels; sides of at least {smallest} are "
            "needed"
        )
    if not picture.finite and nan == "error":
        bad = ~np.isfinite(image.pixels)
        row, column = (int(place[0]) for place in np.nonzero(bad)[:2])
        raise PixelError(
            f"it has {int(bad.sum())} values that are NaN or infinite, the first at row {row}, "
            f'column {column}; replace them, or have them predicted with nan="mask" (--nan mask)'
        )

"""A look at the result before the whole job: one telling crop, and how long the job will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..images import SUFFIXES, ImageFile, encode, read_image, write_image
from ..report.panel import display, side_by_side
from .survey import Picture

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

Array = NDArray[Any]

SIDE = 256  # of the crop, in pixels
_OVERLAP = 1.25  # work per pixel of a picture denoised in tiles, relative to others
_BLOCK = 8  # side of the blocks whose mean is local brightness: noise averages out


@dataclass(frozen=True)
class Preview:
    """What was written, which part of which picture it shows, and the speed.

    Attributes:
        path: the file that was written.
        picture: the file that the crop is from.
        top, left, height, width: of the crop, in pixels.
        seconds_per_pixel: for reading, denoising and encoding.
        clean: whether the crop had hardly any noise, and is shown as it came.
    """

    path: Path
    picture: Path
    top: int
    left: int
    height: int
    width: int
    seconds_per_pixel: float
    clean: bool


def make_preview(
    source: str | Path,
    target: str | Path,
    denoiser: AsymmetricMaskDenoiser,
    *,
    side: int = SIDE,
    leave_clean: bool = False,
    passes: int | None = None,
    seed: int = 0,
    strength: float = 1.0,
    nan: str = "error",
    precision: str = "auto",
    result_suffix: str = ".png",
) -> Preview:
    """Write a crop beside its denoised version; return where it is, and the speed.

    Args:
        source: the picture to take a crop of.
        target: the .png file to write; an existing one is replaced.
        denoiser: for the picture's number of channels.
        side: of the crop, in pixels.
        leave_clean: show a crop with hardly any noise as it came; for models of the package.
        passes, seed, strength, nan, precision: as for `AsymmetricMaskDenoiser.denoise`.
        result_suffix: extension of the files of the job, whose encoding is timed, too.

    Raises:
        ImageReadError, ImageWriteError: a file cannot be read or written.
        Whatever `AsymmetricMaskDenoiser.denoise` raises.
    """
    from ..pretrained.cleanness import was_clean

    start = time.perf_counter()
    image = read_image(source)
    reading = (time.perf_counter() - start) / (image.pixels.shape[0] * image.pixels.shape[1])
    top, left, height, width = telling_crop(image.pixels, side)
    noisy = image.pixels[top : top + height, left : left + width]

    def denoise(pixels: Array) -> Array:
        result: Array = denoiser.denoise(
            pixels, passes=passes, seed=seed, strength=strength, nan=nan, precision=precision
        )
        return result

    denoise(noisy)  # the first call is slower than later ones
    start = time.perf_counter()
    clean = denoise(noisy)
    alpha = image.alpha if image.alpha is None else image.alpha[:height, :width]
    kind = SUFFIXES[result_suffix.lower()]
    encode(replace(image, pixels=clean, alpha=alpha), kind)
    working = (time.perf_counter() - start) / (height * width)
    stays = leave_clean and was_clean(noisy, clean, strength=strength)
    shown = side_by_side(
        [[("noisy", noisy), ("left as it is", noisy) if stays else ("denoised", clean)]],
        value_range=denoiser.value_range,
        magnify=2 if max(height, width) <= 400 else 1,
    )
    write_image(target, ImageFile(shown))
    where = (top, left, height, width)
    return Preview(Path(target), Path(source), *where, reading + working, stays)


def telling_crop(pixels: Array, side: int = SIDE) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the crop that shows most of what a picture has.

    It is the one whose local brightness varies most, with dark and bright areas, flat ones and
    edges.

    >>> picture = np.zeros((64, 96), np.uint8)
    >>> picture[16:32, 64:80] = 200
    >>> telling_crop(picture, 32)
    (0, 48, 32, 32)
    """
    height, width = min(side, pixels.shape[0]), min(side, pixels.shape[1])
    grey = display(pixels, _span(pixels)).mean(axis=2)
    rows, columns = grey.shape[0] // _BLOCK, grey.shape[1] // _BLOCK
    if min(rows, columns) == 0:
        return 0, 0, height, width
    blocks = grey[: rows * _BLOCK, : columns * _BLOCK]
    local = blocks.reshape(rows, _BLOCK, columns, _BLOCK).mean(axis=(1, 3))

    def variety(place: tuple[int, int]) -> float:
        top, left = place[0] // _BLOCK, place[1] // _BLOCK
        part = local[top : top + height // _BLOCK, left : left + width // _BLOCK]
        return float(part.std()) if part.size else 0.0

    step = max(_BLOCK, side // 2 // _BLOCK * _BLOCK)
    tops = range(0, pixels.shape[0] - height + 1, step)
    lefts = range(0, pixels.shape[1] - width + 1, step)
    top, left = max(((t, c) for t in tops for c in lefts), key=variety)
    return top, left, height, width


def expected_seconds(pictures: Sequence[Picture], seconds_per_pixel: float) -> float:
    """Return how long all pictures will take; more for large ones, whose tiles overlap."""
    from ..inference import HALO, TILE

    large = [max(one.height, one.width) > TILE + HALO for one in pictures]
    factors = [_OVERLAP if tiled else 1.0 for tiled in large]
    return seconds_per_pixel * sum(
        one.area * factor for one, factor in zip(pictures, factors, strict=True)
    )


def _span(pixels: Array) -> tuple[float, float] | None:
    """Return the range of float pixels; None for other types, or where there is no range."""
    if pixels.dtype.kind != "f":
        return None
    finite = pixels[np.isfinite(pixels)]
    if not finite.size or finite.min() == finite.max():
        return None
    return float(finite.min()), float(finite.max())

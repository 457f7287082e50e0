"""One self-contained HTML page that shows pictures before and after denoising.

Each picture has a slider between noisy and denoised, and shows what was removed (amplified). If a
clean picture is known, it also has PSNR and SSIM before and after, and the remaining error. The
page needs no network: pictures, style and script are inside, and its content security policy
forbids the rest.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import write_whole
from ..errors import DataError, ImageWriteError, PixelError, SettingError, SizeError
from .html import Number, Row, definitions, page

Unit = NDArray[np.float32]  # (H, W) or (H, W, 3), black at 0, white at 1

DETAIL = 480  # side of the full-resolution detail beside a reduced picture
JPEG_QUALITY = 92
AMPLIFICATIONS = (32, 16, 8, 4, 2, 1)


@dataclass(frozen=True)
class ReportEntry:
    """One picture of the report: arrays (H, W) or (H, W, C) on the scale they are stored in.

    White is the largest value of an integer type and 1 for floats, unless `value_range` = (black,
    white) says otherwise. Alpha (2 or 4 channels) is not shown; of more than 4 channels the first
    three are. `numbers` are shown as they are: a text, a number, or a pair (before, after). With
    `clean` and no pair among them, PSNR and SSIM are measured.
    """

    name: str
    noisy: NDArray[Any]
    denoised: NDArray[Any]
    clean: NDArray[Any] | None = None
    numbers: Mapping[str, Number] = field(default_factory=dict)
    value_range: tuple[float, float] | None = None


def write_report(
    path: str | os.PathLike[str],
    entries: Iterable[ReportEntry],
    *,
    title: str = "Denoised pictures",
    facts: Mapping[str, str] | None = None,
    max_side: int = 960,
    max_pictures: int = 40,
) -> Path:
    """Write the page and return its path; an existing file is replaced, never left half-written.

    Args:
        path: the .html file to write.
        entries: the pictures; an iterator is read one by one, so that few are in memory.
        title: heading of the page.
        facts: more to show at the top, for example {"Model": "...", "Passes": "4"}.
        max_side: longer pictures are shown reduced to this many pixels, and the page says so.
        max_pictures: further entries are in the table only, which limits the file's size.

    Raises:
        DataError: there are no entries.
        SizeError: the pictures of an entry differ in size, or are not pictures.
        PixelError: pixels are neither integers nor floats.
        SettingError: `max_side`, `max_pictures` or a `value_range` is unusable.
        ImageWriteError: the file cannot be written.

    >>> import tempfile
    >>> noisy = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    >>> entry = ReportEntry("cat.jpg", noisy, noisy // 2 + 60, numbers={"Seconds": 0.5})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(f"{folder}/report.html", [entry], facts={"Passes": "4"})
    ...     "cat.jpg" in page.read_text(encoding="utf-8")
    True
    """
    if max_side < 16 or max_pictures < 1:
        raise SettingError(
            f"got max_side={max_side}, max_pictures={max_pictures}; "
            "use max_side=16 or more and max_pictures=1 or more"
        )
    rows = [_row(entry, i, max_side, i < max_pictures) for i, entry in enumerate(entries)]
    if not rows:
        raise DataError("there is no picture to report on: pass at least one ReportEntry")
    target = Path(path)
    _replace_file(target, page(rows, title, facts or {}))
    return target


def _row(entry: ReportEntry, index: int, max_side: int, shown: bool) -> Row:
    """Return the numbers of the entry and, if shown, its section of the page."""
    given = {"noisy": entry.noisy, "denoised": entry.denoised, "clean": entry.clean}
    pictures = {
        kind: _unit(array, entry.value_range, f"{kind} picture of {entry.name}")
        for kind, array in given.items()
        if array is not None
    }
    if len({picture.shape for picture in pictures.values()}) > 1:
        sizes = ", ".join(f"{kind} {picture.shape}" for kind, picture in pictures.items())
        raise SizeError(f"{entry.name}: {sizes}; all must have one size and number of channels")
    numbers = dict(entry.numbers)
    measure = "clean" in pictures and not any(type(value) is tuple for value in numbers.values())
    if measure:
        numbers.update(_measure(pictures))
    section = _section(entry, index, pictures, numbers, max_side) if shown else ""
    return Row(entry.name, numbers, section, measure)


def _unit(array: NDArray[Any], value_range: tuple[float, float] | None, what: str) -> Unit:
    """Return the picture as float32 with black at 0 and white at 1, without alpha."""
    if array.dtype.kind not in "uif":
        raise PixelError(f"{what} has pixels of type {array.dtype}; need integers or floats")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise SizeError(f"{what} has shape {array.shape}; need (H, W) or (H, W, C)")
    if value_range is None:
        top = float(np.iinfo(array.dtype).max) if array.dtype.kind in "ui" else 1.0
        value_range = (0.0, top)
    black, white = value_range
    if not black < white:
        raise SettingError(f"{what}: value_range is {value_range}; need (black, white), rising")
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] < 3 else array[..., :3]
    return np.asarray((array.astype(np.float32) - black) / (white - black), dtype=np.float32)


def _measure(pictures: Mapping[str, Unit]) -> dict[str, Number]:
    """Return PSNR and SSIM (before, after); a note instead for NaN or infinite pixels."""
    from ..metrics import psnr, ssim

    if not all(np.isfinite(picture).all() for picture in pictures.values()):
        return {"PSNR and SSIM": "not measured, there are NaN or infinite pixels"}
    clean = pictures["clean"]
    pairs = [(pictures["noisy"], clean), (pictures["denoised"], clean)]
    before, after = (float(psnr(a, b, eight_bit=True)) for a, b in pairs)
    numbers: dict[str, Number] = {"PSNR (dB)": (before, after)}
    if min(clean.shape[:2]) >= 7:
        before, after = (float(ssim(a, b, window="uniform", eight_bit=True)) for a, b in pairs)
        numbers["SSIM (7x7)"] = (before, after)
    return numbers


def _section(
    entry: ReportEntry,
    index: int,
    pictures: Mapping[str, Unit],
    numbers: Mapping[str, Number],
    max_side: int,
) -> str:
    """Return the section of the page that shows one entry."""
    height, width = pictures["noisy"].shape[:2]
    kind = "grey" if pictures["noisy"].ndim == 2 else "colour"
    small = {key: _shrunk(picture, max_side) for key, picture in pictures.items()}
    new_height, new_width = small["noisy"].shape[:2]
    reduced = (new_height, new_width) != (height, width)
    whole = (
        f"Shown reduced to {new_width} &times; {new_height}, which hides noise." if reduced else ""
    )
    views = _view(entry.name, small, whole)
    if reduced:
        top, left = _most_detailed(pictures["denoised"])
        cut = {k: p[top : top + DETAIL, left : left + DETAIL] for k, p in pictures.items()}
        views += _view(
            f"{entry.name}, detail",
            cut,
            f"Detail at full resolution, from column {left}, row {top}.",
        )
    return (
        f'<section id="picture-{index + 1}"><h2>{html.escape(entry.name)}</h2>'
        f'<p class="quiet">{width} &times; {height} pixels, {kind}, {entry.noisy.dtype}</p>'
        f"{definitions(numbers)}{views}</section>\n"
    )


def _view(name: str, pictures: Mapping[str, Unit], note: str) -> str:
    """Return the slider and the pictures below it, for an entry or its detail."""
    noisy, denoised = pictures["noisy"], pictures["denoised"]
    removed = np.nan_to_num(noisy - denoised)
    spread = 3 * float(removed.std())
    times = next((a for a in AMPLIFICATIONS if a * spread <= 0.5), 1)
    height, width = noisy.shape[:2]
    label = html.escape(name, quote=True)
    below = _figure(
        f"Removed from {name}",
        0.5 + times * removed,
        f"<b>Removed</b>: noisy minus denoised, &times; {times} around mid grey",
    )
    if "clean" in pictures:
        wrong = np.nan_to_num(denoised - pictures["clean"])
        below += _figure(
            f"Remaining error of {name}",
            0.5 + times * wrong,
            f"<b>Remaining error</b>: denoised minus clean, &times; {times} around mid grey",
        )
        below += _figure(f"Clean {name}", pictures["clean"], "<b>Clean</b> picture, for comparison")
    return (
        f'<p class="quiet">{note}</p>'
        f'<div class="compare" style="--w:{width};--h:{height}">'
        f'<span class="side"><img alt="Denoised {label}" src="{_data_url(denoised)}">'
        "<b>Denoised</b></span>"
        f'<span class="side before"><img alt="Noisy {label}" src="{_data_url(noisy)}">'
        "<b>Noisy</b></span><i></i>"
        f'<input type="range" min="0" max="100" step="0.5" value="50" '
        f'aria-label="Noisy to denoised, {label}"></div>'
        f'<div class="below">{below}</div>'
    )


def _figure(alt: str, picture: Unit, caption: str) -> str:
    text = html.escape(alt, quote=True)
    image = f'<img loading="lazy" alt="{text}" src="{_data_url(picture)}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _shrunk(picture: Unit, max_side: int) -> Unit:
    """Return the picture with its longer side at most `max_side`, by averaging, not sampling."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BOX))
        for plane in np.moveaxis(np.atleast_3d(picture), 2, 0)
    ]
    small = np.stack(planes, axis=2)
    return small[..., 0] if picture.ndim == 2 else small


def _most_detailed(picture: Unit) -> tuple[int, int]:
    """Return (top, left) of the detail in which neighbouring pixels differ most."""
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    height, width = grey.shape
    places = [
        (min(top, max(height - DETAIL, 0)), min(left, max(width - DETAIL, 0)))
        for top in range(0, height, DETAIL // 2)
        for left in range(0, width, DETAIL // 2)
    ]

    def contrast(place: tuple[int, int]) -> float:
        part = np.nan_to_num(grey[place[0] : place[0] + DETAIL, place[1] : place[1] + DETAIL])
        return float(sum(np.abs(np.diff(part, axis=axis)).sum() for axis in (0, 1)))

    return max(places, key=contrast)


def _data_url(picture: Unit) -> str:
    """Return the picture as a data URL of a JPEG without chroma subsampling."""
    from PIL import Image

    levels = np.rint(255 * np.clip(np.nan_to_num(picture), 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _replace_file(target: Path, text: str) -> None:
    try:
        write_whole(target, text.encode())
    except OSError as error:
        raise ImageWriteError(
            f"the report {target} cannot be written ({error.strerror or error}); "
            "check that the folder can be written, or give another path"
        ) from error

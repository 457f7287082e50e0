"""Pictures side by side with a label above each, for previews and demos."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, PixelError, SettingError, SizeError
from ..values import scale_of

Array = NDArray[Any]

_GAP, _STRIP, _LETTERS = 12, 34, 18  # in pixels: gap, height of a label, and of its letters
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def side_by_side(
    rows: Sequence[Sequence[tuple[str, Array]]],
    *,
    value_range: tuple[float, float] | None = None,
    magnify: int = 1,
) -> NDArray[np.uint8]:
    """Return one picture, uint8 (H, W, 3), made of rows of (label, pixels), left to right.

    A column is as wide as its widest picture or label.

    Args:
        rows: pixels are arrays (H, W) or (H, W, C) of an integer or float type; if C is not 3, the
            first channel is shown in grey.
        value_range: (black, white) of float pixels; default (0, 1).
        magnify: every pixel becomes a square with sides of so many pixels.

    Raises:
        DataError: there is no picture.
        SizeError, PixelError: pixels have another shape or type.
        SettingError: `magnify` is not positive.

    >>> side_by_side([[("noisy", np.zeros((10, 40), np.uint8))]], magnify=2).shape
    (66, 104, 3)
    """
    from PIL import ImageFont

    if magnify < 1:
        raise SettingError(f"magnify is {magnify}; 1 or more is needed")
    if not rows or not all(rows):
        raise DataError("there is no picture to show: every row needs one or more")
    font = ImageFont.load_default(size=_LETTERS)
    shown = [
        [
            (label, display(pixels, value_range).repeat(magnify, 0).repeat(magnify, 1))
            for label, pixels in row
        ]
        for row in rows
    ]
    columns = [0] * max(len(row) for row in shown)
    for row in shown:
        for at, (label, one) in enumerate(row):
            columns[at] = max(columns[at], one.shape[1], ceil(font.getlength(label)))
    return np.concatenate([_row(row, columns, font) for row in shown])


def display(pixels: Array, value_range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Return pixels as shown on a screen: uint8 (H, W, 3); NaN is black.

    >>> display(np.array([[0, 65535]], np.uint16))[0, :, 0].tolist()
    [0, 255]
    """
    if pixels.ndim not in (2, 3):
        raise SizeError(f"pixels have shape {pixels.shape}; (H, W) or (H, W, C) is needed")
    if pixels.dtype.kind not in "uif":
        raise PixelError(f"pixels are {pixels.dtype}; integers or floats are needed")
    colours = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = colours if colours.shape[2] == 3 else np.repeat(colours[..., :1], 3, axis=2)
    low, scale = scale_of(pixels.dtype.name, value_range)
    unit = np.nan_to_num((colours.astype(np.float32) - low) / scale)
    shown: NDArray[np.uint8] = np.rint(255 * unit.clip(0, 1)).astype(np.uint8)
    return shown


def _row(row: Sequence[tuple[str, Array]], columns: Sequence[int], font: Any) -> NDArray[np.uint8]:
    """Return one row: pictures at the left of columns of these widths, with gaps around them."""
    from PIL import Image, ImageDraw

    height = _STRIP + max(len(one) for _, one in row) + _GAP
    canvas = Image.new("RGB", (_GAP + sum(width + _GAP for width in columns), height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    left = _GAP
    for (label, one), width in zip(row, columns, strict=False):
        draw.text((left, _STRIP // 2), label, fill=_INK, font=font, anchor="lm")
        canvas.paste(Image.fromarray(one), (left, _STRIP))
        left += width + _GAP
    return np.asarray(canvas, np.uint8)

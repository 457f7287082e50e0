"""Crops of several pictures side by side: noisy, denoised in several ways, and clean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images import read_image
from ..metrics import psnr
from ..values import ValueRange
from .panel import side_by_side

Array = NDArray[Any]

_ROWS, _CROP = 4, 160


class CropSheet:
    """Crops of some pictures, a row each: noisy, the result of every method, and clean.

    Args:
        pictures: files (noisy, clean) or (noisy, None); of more than four, four are taken.
    """

    def __init__(self, pictures: Sequence[tuple[Path, Path | None]]) -> None:
        self.rows: list[list[tuple[str, Array]]] = []
        self.clean: list[Array | None] = []
        self.value_range: ValueRange | None = None
        for noisy, clean in evenly_spaced(pictures, _ROWS):
            pixels = read_image(noisy).pixels
            place = busiest(pixels, _CROP)
            self.clean.append(None if clean is None else read_image(clean).pixels[place])
            label = f"noisy{_decibel(pixels[place], self.clean[-1])}"
            self.rows.append([(label, np.ascontiguousarray(pixels[place]))])

    def add(
        self, name: str, denoise: Callable[..., Array], value_range: ValueRange | None, seed: int
    ) -> None:
        """Add a column; `denoise` is called as denoise(pixels, seed=seed)."""
        self.value_range = value_range
        for row, clean in zip(self.rows, self.clean, strict=True):
            result = denoise(row[0][1], seed=seed)
            row.append((f"{name}{_decibel(result, clean)}", result))

    def picture(self) -> NDArray[np.uint8] | None:
        """Return the sheet, uint8 (H, W, 3), clean crops at the right; None without results."""
        if len(self.rows[0]) < 2:
            return None
        ends = [[] if clean is None else [("clean", clean)] for clean in self.clean]
        rows = [row + end for row, end in zip(self.rows, ends, strict=True)]
        return side_by_side(rows, value_range=self.value_range)


def busiest(pixels: Array, side: int) -> tuple[slice, slice]:
    """Return the square with the strongest coarse structure, as two slices.

    >>> picture = np.zeros((64, 64)); picture[40:56:8] = 1
    >>> busiest(picture, 32)
    (slice(32, 64, None), slice(0, 32, None))
    """
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels.astype(np.float64)
    height, width = grey.shape
    best, places = -1.0, (0, 0)
    for top in range(0, max(1, height - side + 1), max(1, side // 2)):
        for left in range(0, max(1, width - side + 1), max(1, side // 2)):
            square = grey[top : top + side, left : left + side]
            h, w = (max(1, length // 4) * 4 for length in square.shape)
            blocks = square[:h, :w]
            if min(blocks.shape) >= 4:
                blocks = blocks.reshape(h // 4, 4, w // 4, 4).mean((1, 3))
            if blocks.std() > best:
                best, places = float(blocks.std()), (top, left)
    top, left = places
    return slice(top, top + side), slice(left, left + side)


def _decibel(pixels: Array, clean: Array | None) -> str:
    if clean is None or pixels.dtype.kind == "f":
        return ""
    return f": {min(float(psnr(pixels, clean, eight_bit=True)), 200.0):.1f} dB"


def evenly_spaced(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` items, evenly spaced.

    >>> evenly_spaced("abcdefg", 3)
    ['a', 'd', 'g']
    """
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]

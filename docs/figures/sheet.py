"""Titled pictures side by side, for the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, APART, TITLE = 256, 12, 34


def sheet(rows: Sequence[Mapping[str, Tensor]]) -> Image.Image:
    """Return a page of the middles of images (3, H, W) under their titles, each row a mapping."""
    columns = max(map(len, rows))
    page = Image.new("RGB", (columns * (SIDE + APART) + APART, len(rows) * (SIDE + TITLE)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for row, shown in enumerate(rows):
        for column, (title, image) in enumerate(shown.items()):
            left, top = APART + column * (SIDE + APART), row * (SIDE + TITLE)
            pen.text((left, top + 8), title, fill="black", font=font)
            page.paste(middle(image), (left, top + TITLE))
    return page


def middle(image: Tensor) -> Image.Image:
    """Return the middle of an image (3, H, W) on the 0..1 scale."""
    top, left = ((side - SIDE) // 2 for side in image.shape[1:])
    crop = image[:, top : top + SIDE, left : left + SIDE].clamp(0, 1) * 255
    return Image.fromarray(crop.round().byte().permute(1, 2, 0).numpy())

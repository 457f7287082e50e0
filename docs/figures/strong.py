"""Make docs/images/strong.jpg: the samples with strong noise, and what both models make of them.

python docs/figures/strong.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import masked_denoise.samples
from masked_denoise import from_pretrained
from masked_denoise.camera_noise import CameraNoise
from masked_denoise.images import read_image
from masked_denoise.metrics import psnr

TARGET = Path(__file__).parents[1] / "images" / "strong.jpg"
SAMPLES = Path(masked_denoise.samples.__file__).parent
SIDE, APART, TITLE = 256, 12, 34


def main() -> None:
    """Denoise, and put crops of the middle side by side."""
    page = Image.new("RGB", (4 * (SIDE + APART) + APART, 2 * (SIDE + TITLE)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for row, (name, level) in enumerate({"lighthouse": 12, "parrot": 22}.items()):
        pixels = torch.from_numpy(read_image(SAMPLES / f"{name}_clean.png").pixels.copy())
        clean = pixels.permute(2, 0, 1).float() / 255
        noise = CameraNoise(sigma=(level / 255, level / 255))
        noisy = noise.add(clean, np.random.default_rng(0))
        shown: dict[str, Tensor] = {f"{name}, noise of {level}": noisy}
        for model in ("camera-small", "camera-strong"):
            shown[model] = from_pretrained(model).denoise(noisy)  # type: ignore[assignment]
        shown["clean"] = clean
        for column, (title, image) in enumerate(shown.items()):
            place = (APART + column * (SIDE + APART), row * (SIDE + TITLE))
            if title != "clean":
                title += f": {float(psnr(image, clean, eight_bit=True)):.1f} dB"
            pen.text((place[0], place[1] + 8), title, fill="black", font=font)
            page.paste(middle(image), (place[0], place[1] + TITLE))
    page.save(TARGET, quality=90)
    print(f"wrote {TARGET}")


def middle(image: Tensor) -> Image.Image:
    """Return the middle of an image (3, H, W)."""
    top, left = ((side - SIDE) // 2 for side in image.shape[1:])
    crop = image[:, top : top + SIDE, left : left + SIDE].clamp(0, 1) * 255
    return Image.fromarray(crop.round().byte().permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()

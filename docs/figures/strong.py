"""Make docs/images/strong.jpg: the samples with strong noise, and what both models make of them.

python docs/figures/strong.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sheet import sheet
from torch import Tensor

import masked_denoise.samples
from masked_denoise import from_pretrained
from masked_denoise.camera_noise import CameraNoise
from masked_denoise.images import read_image
from masked_denoise.metrics import psnr

TARGET = Path(__file__).parents[1] / "images" / "strong.jpg"
SAMPLES = Path(masked_denoise.samples.__file__).parent


def main() -> None:
    """Denoise, and put crops of the middle side by side."""
    page = sheet([pictures(name, of) for name, of in {"lighthouse": 12, "parrot": 22}.items()])
    page.save(TARGET, quality=90)
    print(f"wrote {TARGET}")


def pictures(name: str, level: int) -> dict[str, Tensor]:
    """Return a sample by titles: with noise of a level of 255, denoised twice, and clean."""
    pixels = torch.from_numpy(read_image(SAMPLES / f"{name}_clean.png").pixels.copy())
    clean = pixels.permute(2, 0, 1).float() / 255
    noise = CameraNoise(sigma=(level / 255, level / 255))
    noisy = noise.add(clean, np.random.default_rng(0))
    shown: dict[str, Tensor] = {f"{name}, noise of {level}": noisy}
    for model in ("camera-small", "camera-strong"):
        shown[model] = from_pretrained(model).denoise(noisy)  # type: ignore[assignment]
    scored = {
        f"{title}: {float(psnr(image, clean, eight_bit=True)):.1f} dB": image
        for title, image in shown.items()
    }
    return scored | {"clean": clean}


if __name__ == "__main__":
    main()

"""Make docs/images/strong.jpg: the samples with strong noise, and what camera-small makes of them.

python docs/figures/strong.py
"""

from __future__ import annotations

from dataclasses import replace
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
    camera, white = CameraNoise(), CameraNoise(white=1.0, uncompressed=1.0)
    shown = [("lighthouse", "camera", camera, 12), ("parrot", "camera", camera, 22),
             ("lighthouse", "white", white, 25)]  # fmt: skip
    page = sheet([pictures(*one) for one in shown])
    page.save(TARGET, quality=90)
    print(f"wrote {TARGET}")


def pictures(name: str, kind: str, noise: CameraNoise, level: int) -> dict[str, Tensor]:
    """Return a sample by titles: with noise of a level of 255, denoised, and clean."""
    pixels = torch.from_numpy(read_image(SAMPLES / f"{name}_clean.png").pixels.copy())
    clean = pixels.permute(2, 0, 1).float() / 255
    drawn = replace(noise, sigma=(level / 255, level / 255))
    noisy = drawn.add(clean, np.random.default_rng(0))
    denoised: Tensor = from_pretrained("camera-small").denoise(noisy)  # type: ignore[assignment]
    shown = {f"{name}, {kind} {level}": noisy, "camera-small": denoised}
    scored = {
        f"{title}: {float(psnr(image, clean, eight_bit=True)):.1f} dB": image
        for title, image in shown.items()
    }
    return scored | {"clean": clean}


if __name__ == "__main__":
    main()

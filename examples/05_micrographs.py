"""Denoise pictures whose noise is independent from pixel to pixel, such as a microscope's.

    python examples/05_micrographs.py [FOLDER] [OUT] [MINUTES]

Writes OUT/clean/, and OUT/before_after.png to look at. Without a folder it simulates a 16-bit
picture from a sensor that counts 30 photons at white.
"""

import sys
from pathlib import Path

import numpy as np

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.images import ImageFile, find_images, read_image, write_image
from masked_denoise.report.panel import side_by_side
from masked_denoise.samples import sample_path


def main(folder: Path | None = None, out: Path = Path("out"), minutes: float = 2.0) -> None:
    files = [file for file, _ in find_images(folder or count_photons(out / "photons.tif"))]
    first = read_image(files[0]).pixels

    denoiser = AsymmetricMaskDenoiser(channels=1 if first.ndim == 2 else first.shape[2])
    denoiser.fit(files, minutes=minutes)  # measures the noise, and decides by it
    print(f"recipe {denoiser.preset}, stride {denoiser.train_strides[0]} in training")
    scale = denoiser.value_range or (0, 65535)  # what counts as 0 and 1
    for slope, offset in denoiser.noise_level or ():
        print(f"variance of the noise: {slope:.3g} * value + {offset:.3g}, on the scale of {scale}")

    for file in files:
        clean = denoiser.denoise(read_image(file).pixels)  # 16 bits stay 16 bits
        write_image(out / "clean" / file.name, ImageFile(clean))

    top = np.quantile(first, 0.999)  # as bright as a screen can show it
    clean = denoiser.denoise(first)
    picture = side_by_side([[("noisy", first / top), ("denoised", clean / top)]])
    write_image(out / "before_after.png", ImageFile(picture))
    print(f"look at {out / 'before_after.png'}")


def count_photons(path: Path) -> Path:
    """Write a picture as a sensor counts it: 600 numbers a photon, 1000 at black."""
    grey = read_image(sample_path("parrot", clean=True)).pixels.mean(axis=2) / 255
    counts = 1000 + 600 * np.random.default_rng(0).poisson(30 * grey)
    write_image(path, ImageFile(counts.astype(np.uint16)))
    return path


if __name__ == "__main__":
    given = sys.argv[1:4]
    kinds = (lambda text: Path(text) if text else None, Path, float)
    main(*(kind(text) for kind, text in zip(kinds, given, strict=False)))

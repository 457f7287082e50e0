"""Denoise one photograph with a network that has seen nothing but this photograph.

    python examples/01_denoise_one_image.py [PHOTO] [OUT] [MINUTES]

Writes OUT/clean.png, and OUT/before_after.png to look at. Without a photograph it uses the sample
that is bundled with the package, and prints the PSNR, as the clean version of that one is known.
"""

import sys
from dataclasses import replace
from pathlib import Path

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.images import ImageFile, read_image, write_image
from masked_denoise.metrics import score
from masked_denoise.report.panel import side_by_side
from masked_denoise.samples import sample_path


def main(photo: Path | None = None, out: Path = Path("out"), minutes: float = 1.0) -> None:
    noisy = read_image(photo or sample_path("lighthouse"))
    channels = noisy.pixels.shape[2] if noisy.pixels.ndim == 3 else 1

    denoiser = AsymmetricMaskDenoiser(channels=channels)
    denoiser.fit(noisy.pixels, minutes=minutes)
    clean = denoiser.denoise(noisy.pixels)  # uint8 in, uint8 out; floats stay floats

    write_image(out / "clean.png", replace(noisy, pixels=clean))  # with its colour profile
    picture = side_by_side([[("noisy", noisy.pixels), ("denoised", clean)]])
    write_image(out / "before_after.png", ImageFile(picture))
    if photo is None:
        truth = read_image(sample_path("lighthouse", clean=True)).pixels
        before, after = score(noisy.pixels, truth), score(clean, truth)
        print(f"PSNR {before['psnr']:.2f} -> {after['psnr']:.2f} dB")
    print(f"look at {out / 'before_after.png'}")


if __name__ == "__main__":
    given = sys.argv[1:4]
    kinds = (lambda text: Path(text) if text else None, Path, float)
    main(*(kind(text) for kind, text in zip(kinds, given, strict=False)))

"""Train one model on a folder of noisy photographs, save it, and denoise the folder with it.

    python examples/02_train_on_a_folder.py [FOLDER] [OUT] [MINUTES]

Writes the model to OUT/model, the results to OUT/clean, and OUT/before_after.png to look at. After
an interruption, run it again with the same arguments: it continues where it stopped. Without a
folder it makes one from the samples that are bundled with the package.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.images import ImageFile, find_images, output_path, read_image, write_image
from masked_denoise.report.panel import side_by_side
from masked_denoise.samples import list_samples, sample_path


def main(folder: Path | None = None, out: Path = Path("out"), minutes: float = 2.0) -> None:
    folder = folder or copy_samples(out / "noisy")

    denoiser = AsymmetricMaskDenoiser()  # three channels: colour photographs
    denoiser.fit(folder, minutes=minutes, output=out / "model", resume=True)
    for entry in denoiser.history[:: max(1, len(denoiser.history) // 5)]:
        print(f"step {entry['step']}: loss {entry['loss']:.4f}")

    # Another program, another day: the model is all that is needed.
    denoiser = AsymmetricMaskDenoiser.from_pretrained(out / "model")
    rows = []
    for path, root in find_images(folder):
        noisy = read_image(path)
        clean = denoiser.denoise(noisy.pixels)
        write_image(output_path(path, root, out / "clean"), replace(noisy, pixels=clean))
        rows.append([(f"{path.name}, noisy", noisy.pixels), ("denoised", clean)])
    write_image(out / "before_after.png", ImageFile(side_by_side(rows[:4])))
    print(f"{len(rows)} photographs in {out / 'clean'}; look at {out / 'before_after.png'}")


def copy_samples(folder: Path) -> Path:
    """Return the folder, with the noisy samples in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in list_samples():
        shutil.copy(sample_path(name), folder)
    return folder


if __name__ == "__main__":
    given = sys.argv[1:4]
    kinds = (lambda text: Path(text) if text else None, Path, float)
    main(*(kind(text) for kind, text in zip(kinds, given, strict=False)))

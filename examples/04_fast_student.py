"""Train a fast one-pass model to do what a slow one does to noisy photographs; compare the two.

    python examples/04_fast_student.py [FOLDER] [OUT] [MINUTES]

Half of the time trains the teacher, half the student. Writes the student to OUT/student, and
OUT/before_after.png to look at. Without a folder it uses a sample that is bundled with the package.
"""

import sys
import time
from pathlib import Path

from masked_denoise import AsymmetricMaskDenoiser, from_pretrained
from masked_denoise.images import ImageFile, find_images, read_image, write_image
from masked_denoise.report.panel import side_by_side
from masked_denoise.samples import sample_path


def main(folder: Path | None = None, out: Path = Path("out"), minutes: float = 4.0) -> None:
    folder = folder or sample_path("parrot")
    pictures = [read_image(path).pixels for path, _ in find_images(folder)]

    teacher = AsymmetricMaskDenoiser()
    teacher.fit(pictures, minutes=minutes / 2)
    student = teacher.distill(pictures, minutes=minutes / 2, megapixels=4)
    student.save_pretrained(out / "student")

    row = [("noisy", pictures[0])]
    for name, model in (("teacher", teacher), ("student", from_pretrained(out / "student"))):
        begin = time.perf_counter()
        row.append((name, model.denoise(pictures[0])))
        print(f"{name}: {time.perf_counter() - begin:.2f} s")
    write_image(out / "before_after.png", ImageFile(side_by_side([row])))
    print(f"look at {out / 'before_after.png'}")


if __name__ == "__main__":
    given = sys.argv[1:4]
    kinds = (lambda text: Path(text) if text else None, Path, float)
    main(*(kind(text) for kind, text in zip(kinds, given, strict=False)))

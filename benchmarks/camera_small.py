"""Make `camera-small`, which is bundled with the package, from clean pictures alone.

    python benchmarks/camera_small.py KODAK -o runs/camera

The pictures have film grain of their own. So a first student is trained on them as they are. The
second student, which is kept, is trained on the results of the first, slightly reduced, so that it
never learns to keep grain. Crops are enlarged up to five times, since photographs are smooth at the
pixel level. The second student is trained five times: first with AdamW; then with Muon on larger
crops: with a wider range of noise; with stronger noise; for most of the time with noise of all
strengths, weaker where the picture is flat, some of it white, some compressed twice; and last with
faint noise. After the second and the third training its weights are averaged with those before,
which beats either; the bundled weights are a mean of those after the last three. Pictures that the
package's samples were cut from are left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.camera_noise import CameraNoise
from masked_denoise.images import find_images, read_image
from masked_denoise.pretrained.shipped import DEFAULT_MODEL, SHIPPED
from masked_denoise.training.distill import denoised
from masked_denoise.training.learn_noise import train_on_simulated
from masked_denoise.training.settings import FitSettings
from masked_denoise.training.simulated import SimulatedPairs, smaller
from masked_denoise.training.student import train_student

SAMPLES = ("kodim21", "kodim23")  # the samples of the package come from these
FIRST_SCALE, SCALE, SHRINK = (1.0, 4.0), (1.0, 5.0), 1.2
LATER, THIRD = 0.65, 0.85  # share of the weights after the second, third training in the mean
WIDER = CameraNoise(chroma=(0.2, 0.9), coarse=(0.0, 0.4), blotches=(0.8, 3.5))
STRONGER = replace(WIDER, sigma=(1 / 255, 30 / 255))
ALL = replace(
    WIDER, sigma=(1 / 255, 40 / 255), flat=(0.3, 1.0), white=0.15, twice=0.3, uncompressed=0.3
)
FAINT = replace(ALL, sigma=(1 / 255, 12 / 255), flat=(0.5, 1.0))
SHARES = (0.2, 0.4, 0.4)  # of the weights after the last three trainings in what is shipped
THRESHOLD = 0.055  # of the cosine step, 14 of 255: less than after other networks suits this one


def main() -> None:
    """Train both students, and the second one on; save what is shipped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder of clean pictures")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--first-steps", type=int, default=457)
    parser.add_argument("--steps", type=int, default=3433)
    parser.add_argument("--more-steps", type=int, default=3255)
    parser.add_argument("--stronger-steps", type=int, default=1758)
    parser.add_argument("--all-steps", type=int, default=17100)
    parser.add_argument("--faint-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    paths = [path for path, _ in find_images(args.pictures) if path.stem not in SAMPLES]
    clean = [np.ascontiguousarray(np.moveaxis(read_image(path).pixels, 2, 0)) for path in paths]
    began = time.perf_counter()
    first = train_on_simulated(
        new_student(args.seed), clean, scale=FIRST_SCALE, steps=args.first_steps, seed=args.seed
    )
    cleaner = [smaller(denoised(picture, first.denoise), SHRINK) for picture in clean]
    student = train_on_simulated(
        new_student(args.seed), cleaner, scale=SCALE, steps=args.steps, seed=args.seed,
        validate_every=500, output=args.output / "run",
    )  # fmt: skip
    learn_on(student, cleaner, WIDER, LATER, args.more_steps, args.seed + 1)
    learn_on(student, cleaner, STRONGER, THIRD, args.stronger_steps, args.seed + 2)
    stages = [copy.deepcopy(student.backbone.state_dict())]
    for number, (noise, steps) in enumerate([(ALL, args.all_steps), (FAINT, args.faint_steps)]):
        learn_on(student, cleaner, noise, 1.0, steps, args.seed + 3 + number)
        stages.append(copy.deepcopy(student.backbone.state_dict()))
    mean = {
        name: sum(share * stage[name] for share, stage in zip(SHARES, stages, strict=True))
        for name in stages[0]
    }
    student.backbone.load_state_dict(mean)
    keep(student, DEFAULT_MODEL, args.output)
    facts = {"pictures": len(paths), "minutes": round((time.perf_counter() - began) / 60, 1)}
    print(json.dumps({**facts, "torch": torch.__version__, "threads": torch.get_num_threads()}))


def new_student(seed: int) -> AsymmetricMaskDenoiser:
    """Return a student with first weights of the seed."""
    torch.manual_seed(seed)
    return AsymmetricMaskDenoiser("fast-student", preset="student")


def learn_on(
    student: AsymmetricMaskDenoiser,
    pictures: list[np.ndarray],
    noise: CameraNoise,
    share: float,
    steps: int,
    seed: int,
) -> None:
    """Train a student further by Muon; its weights become a mean, with a share of the new ones."""
    before = copy.deepcopy(student.backbone.state_dict())
    pairs = simulated_pairs(pictures, noise, seed, student.traits.size_multiple)
    train_student(
        student, pairs, steps=steps, seed=seed, optimizer="muon", learning_rate=1e-3,
        validation=False,
    )  # fmt: skip
    after = student.backbone.state_dict()
    mean = {name: before[name].lerp(value, share) for name, value in after.items()}
    student.backbone.load_state_dict(mean)


def simulated_pairs(
    pictures: list[np.ndarray], noise: CameraNoise, seed: int, multiple: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of noisy and clean crops without end."""
    settings = FitSettings(steps=1, batch_size=5, crop=192, seed=seed)
    source = SimulatedPairs(pictures, settings, noise=noise, scale=SCALE)
    for batch in source.start(0, lambda _: multiple):
        noisy, clean = batch.chunk(2, dim=1)
        yield noisy, clean


def keep(student: AsymmetricMaskDenoiser, name: str, folder: Path) -> None:
    """Save a student as it is shipped: in half precision, with a cosine threshold."""
    kept = copy.deepcopy(student)
    kept.backbone.half()
    kept.dct_threshold = THRESHOLD
    about = SHIPPED[name]
    kept.save_pretrained(folder / name, license=about.license, training_data=about.training_data)


if __name__ == "__main__":
    main()

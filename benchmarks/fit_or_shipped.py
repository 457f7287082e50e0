"""Check the choice of `denoise --fit` between a network fitted on noisy pictures and camera-small.

    python benchmarks/fit_or_shipped.py CLEAN --json results.json

Noise is simulated on the middle of clean pictures: that of cameras (`CameraNoise`), or white noise.
A masked network is fitted on the noisy pictures alone, as `--fit` does. Printed are the PSNR of
both against the clean pictures, and the choice of `prefer_shipped`, which sees no clean picture.
Pictures number --first, --first + --every, ... are used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine

from masked_denoise.camera_noise import CameraNoise
from masked_denoise.images import ImageFile, find_images, read_image, write_image
from masked_denoise.jobs.models import fit_models, prefer_shipped, shipped_models
from masked_denoise.jobs.survey import by_kind, survey
from masked_denoise.metrics import psnr
from masked_denoise.values import middle


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("clean", help="folder of clean pictures")
    ask.add_argument("--noise", nargs="+", default=["camera 2", "camera 6", "camera 15",
                     "white 8", "white 25"], help="kind and level, of 255")  # fmt: skip
    ask.add_argument("--every", type=int, default=3)
    ask.add_argument("--first", type=int, default=0)
    ask.add_argument("--side", type=int, default=384)
    ask.add_argument("--grey", action="store_true")
    ask.add_argument("--steps", type=int, default=1500)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--json")
    args = ask.parse_args()
    files = [path for path, _ in find_images(args.clean)][args.first :: args.every]
    clean = [middle(read_image(path).pixels, args.side) for path in files]
    if args.grey:
        clean = [np.round(picture.mean(2)).astype(np.uint8) for picture in clean]
    rows = [row(noise, clean, args.steps, args.seed) for noise in args.noise]
    if args.json:
        about = {"pictures": len(clean), "steps": args.steps, "machine": machine("cpu")}
        Path(args.json).write_text(json.dumps({**about, "rows": rows}, indent=1))


def row(noise: str, clean: list[Any], steps: int, seed: int) -> dict[str, Any]:
    """Return what became of pictures with noise such as "camera 6", and print it."""
    kind_of_noise, level = noise.split()
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(clean):
            noisy = with_noise(picture, kind_of_noise, float(level), [seed, number])
            write_image(Path(folder) / f"{number:03}.png", ImageFile(noisy))
        pictures, _ = survey(sorted(Path(folder).iterdir()))
        ((kind, group),) = by_kind(pictures).items()
        (fitted,) = fit_models(pictures, steps=steps, seed=seed, progress=False).values()
        (shipped,) = shipped_models([kind]).values()
        taken, scores = prefer_shipped(fitted, kind, group, seed=seed)
        stored = [read_image(one.path).pixels for one in pictures]
        found: dict[str, Any] = {
            "noise": noise,
            "preset": fitted.preset,
            "noisy": mean(stored, clean),
        }
        for name, model in (("fitted", fitted), ("camera-small", shipped)):
            found[name] = mean([model.denoise(pixels) for pixels in stored], clean)
        found |= {"taken": "fitted" if taken is fitted else "camera-small", "scores": scores}
    print(
        f"{noise:10} {found['preset']:12} noisy {found['noisy']:.2f} fitted {found['fitted']:.2f} "
        f"camera-small {found['camera-small']:.2f} taken: {found['taken']}",
        flush=True,
    )
    return found


def with_noise(clean: Any, kind: str, level: float, seed: list[int]) -> Any:
    """Return uint8 pixels with camera noise or white noise, of a level of 255."""
    random = np.random.default_rng(seed)
    if kind == "white":
        noisy = clean + level * random.standard_normal(clean.shape)
        return noisy.round().clip(0, 255).astype(np.uint8)
    noise = CameraNoise(sigma=(level / 255, level / 255), flat=(0.4, 0.8))
    planes = torch.from_numpy(np.moveaxis(np.atleast_3d(clean), 2, 0).copy()).float() / 255
    made = noise.add(planes, random).mul(255).round().to(torch.uint8)
    pixels = made.permute(1, 2, 0).numpy()
    return pixels if clean.ndim == 3 else pixels[..., 0]


def mean(images: list[Any], clean: list[Any]) -> float:
    return float(np.mean([psnr(image, truth) for image, truth in zip(images, clean, strict=True)]))


if __name__ == "__main__":
    main()

"""Make a folder for the Hub from a run of quality.py: model, model card with its numbers, picture.

    python benchmarks/publish.py runs/adapted weights/polyu-student --data polyu --noisy 100
    hf upload OWNER/polyu-student weights/polyu-student

The numbers come from the run's results.json, the licence and the text on the data from DATA below;
the picture is a sample of the package, which may be shown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.images import read_image
from masked_denoise.samples import sample_path


class Data(NamedTuple):
    """What weights trained on a data set must say of it."""

    license: str
    told: str


DATA = {
    "polyu": Data(
        "PolyU data set: non-commercial use only",
        "{noisy} noisy photographs of the PolyU real-world noisy images (Jun Xu, Hui Li, Zhetong "
        "Liang, David Zhang, Lei Zhang: Real-world Noisy Image Denoising: A New Benchmark, "
        "arXiv:1804.02603), whose terms allow non-commercial use; no clean picture of them.{start}",
    )
}


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("run", type=Path, help="folder that quality.py wrote")
    ask.add_argument("output", type=Path)
    ask.add_argument("--data", choices=DATA, required=True)
    ask.add_argument("--noisy", type=int, required=True, help="how many were trained on")
    args = ask.parse_args()
    results = json.loads((args.run / "results.json").read_text())
    data, settings = DATA[args.data], results["settings"]
    own = args.run / "model"  # a run that only scored a model names it
    denoiser = AsymmetricMaskDenoiser.from_pretrained(own if own.exists() else settings["model"])
    start = f" Trained further from `{settings['model']}`." if settings.get("adapt") else ""
    sample = read_image(sample_path("lighthouse")).pixels
    denoiser.save_pretrained(
        args.output,
        license=data.license,
        training_data=data.told.format(noisy=args.noisy, start=start),
        metrics={named(results): numbers(results)},
        before_after=np.ascontiguousarray(sample),
    )
    print(args.output / "README.md")


def named(results: dict[str, Any]) -> str:
    """Return what the numbers were measured on."""
    seen = "unseen" if results["settings"].get("unseen") == "True" else "fitted on the test noise"
    return f"PolyU, {len(results['images'])} crops, 8-bit, SSIM 7x7, {seen}"


def numbers(results: dict[str, Any]) -> dict[str, float]:
    """Return them as they are rounded in tables."""
    mean = results["mean"]
    return {"PSNR": round(mean["psnr"], 2), "SSIM": round(mean["ssim"], 4)}


if __name__ == "__main__":
    main()

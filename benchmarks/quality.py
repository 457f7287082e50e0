"""Fit on a folder of noisy photographs, denoise those with a clean twin, and score them.

    python benchmarks/quality.py NOISY CLEAN -o runs/five --minutes 5

Only NOISY is trained on; CLEAN is for measuring. Images pair by stem (`_real`, `_mean`, `_noisy`,
`_clean`, `_gt` dropped). Denoised images are written as PNG, and results.json holds the mean PSNR
and SSIM (8-bit, uniform 7x7), each image's numbers, times, settings, machine and versions.
--images takes every n-th scene only (scene = stem without its last number), to choose settings on
one part and report on the other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from masked_denoise import AsymmetricMaskDenoiser, __version__
from masked_denoise.evaluate import pair_images
from masked_denoise.images import read_image, write_image
from masked_denoise.metrics import score


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    denoiser = make(args, out)
    pairs = part(pair_images([Path(args.noisy)], [Path(args.clean)]).pairs, args.scenes)
    rows = [one(denoiser, noisy, clean, out, args.seed) for noisy, clean in pairs]
    keys = ("psnr", "ssim", "input_psnr", "input_ssim", "seconds")
    mean = {key: float(np.mean([row[key] for row in rows])) for key in keys}
    worse = [row["image"] for row in rows if row["psnr"] < row["input_psnr"] - 0.02]
    result = {
        "mean": mean,
        "worse_than_input": worse,
        "settings": vars(args),
        "training": {"seconds": denoiser_seconds(denoiser), "steps": len_history(denoiser)},
        "machine": machine(args.threads),
        "images": rows,
    }
    (out / "results.json").write_text(json.dumps(result, indent=1))
    print(
        f"{len(rows)} images: {mean['psnr']:.3f} dB, SSIM {mean['ssim']:.4f} "
        f"(input {mean['input_psnr']:.3f} dB, {mean['input_ssim']:.4f}), "
        f"{mean['seconds']:.2f} s an image, {len(worse)} worse than the input"
    )

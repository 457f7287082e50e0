"""Measure what a student costs: parameters, multiply-adds, and seconds for one 512 x 512 image.

    python benchmarks/student_speed.py [--side 512] [--times 7] [--threads 2] [--widths 40 72 96 112
        --blocks 1 2 1 1] [--json FILE]

Warm calls of `denoise` on a float32 tensor of three channels, without files: median, best, worst.
Beside it, one training step on two crops of 128 x 128.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.backbones.cost import cost
from masked_denoise.training.student import train_student


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--side", type=int, default=512)
    ask.add_argument("--times", type=int, default=7)
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--widths", type=int, nargs="+")
    ask.add_argument("--blocks", type=int, nargs="+")
    ask.add_argument("--json", type=Path)
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    arguments = {k: v for k in ("widths", "blocks") if (v := getattr(args, k)) is not None}
    student = AsymmetricMaskDenoiser("fast-student", preset="student", backbone_args=arguments)
    spent = cost("fast-student", **arguments)
    image = torch.rand(3, args.side, args.side, generator=torch.Generator().manual_seed(0))
    student.denoise(image)
    seconds = []
    for _ in range(args.times):
        begin = time.perf_counter()
        student.denoise(image)
        seconds.append(time.perf_counter() - begin)
    crops = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    train_student(
        student, [(crops, crops)], steps=5 + args.times, progress=False, device="cpu",
        validation=False,
    )  # fmt: skip
    made = {
        "parameters": spent.parameters,
        "macs_per_pixel": spent.macs_per_pixel,
        "reach": student.backbone.reach,
        "side": args.side,
        "threads": args.threads,
        "seconds": {
            "median": statistics.median(seconds), "best": min(seconds), "worst": max(seconds)
        },
        "training_steps_per_second": student.history[-1]["steps_per_second"],
        "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(made, indent=1))
    if args.json:
        args.json.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()

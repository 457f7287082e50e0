"""Check that a run that is killed at random moments and resumed ends as an uninterrupted one.

    python benchmarks/resume.py [--steps 60] [--kills 3] [--seed 0]

Trains once without interruption, then again in processes that are killed (SIGKILL) at random
moments and resumed, and compares the weights bit for bit. CPU, one thread, budget in steps.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from masked_denoise import AsymmetricMaskDenoiser

CHILD = """
import sys, torch
sys.path.insert(0, {here!r})
import resume
resume.train({folder!r}, {steps}, resumed=True)
"""


def train(folder: str, steps: int, *, resumed: bool) -> str:
    """Return the SHA-256 of the weights after `steps` steps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    denoiser = AsymmetricMaskDenoiser(backbone_args={"widths": (8, 16, 32)})
    denoiser.fit(
        images, steps=steps, crop=64, smooth_steps=0.25, save_every=4, output=folder,
        resume=resumed, progress=False, device="cpu",
    )  # fmt: skip
    weights = [value.numpy().tobytes() for value in denoiser.backbone.state_dict().values()]
    return hashlib.sha256(b"".join(weights)).hexdigest()


def written(file: Path) -> float:
    """Return when a file was last written, 0 where it is not there."""
    return file.stat().st_mtime if file.exists() else 0.0


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--steps", type=int, default=60)
    ask.add_argument("--kills", type=int, default=3)
    ask.add_argument("--seed", type=int, default=0)
    args = ask.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        whole = train(f"{folder}/whole", args.steps, resumed=False)
        seconds = time.perf_counter() - start
        code = CHILD.format(
            here=str(Path(__file__).parent), folder=f"{folder}/broken", steps=args.steps
        )
        for _ in range(args.kills):
            checkpoint = Path(folder, "broken", "last.pt")
            before = written(checkpoint)
            child = subprocess.Popen([sys.executable, "-c", code])
            while written(checkpoint) == before and child.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, seconds / (2 * args.kills)))
            child.kill()
            child.wait()
            state = torch.load(checkpoint, weights_only=True)
            print(f"killed; the last checkpoint is of step {state['step']} of {args.steps}")
        broken = train(f"{folder}/broken", args.steps, resumed=True)
    print(f"without a break {whole[:16]}, killed and resumed {broken[:16]}")
    if whole != broken:
        sys.exit("the weights differ")
    print("the same weights, bit for bit")


if __name__ == "__main__":
    main()

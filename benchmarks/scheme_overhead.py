"""Measure what the mask scheme adds to a training step.

    python benchmarks/scheme_overhead.py

Times a full step (downsampling, mask, fill, network, mask loss, backward, clipping, AdamW) against
the same step of the same network and optimizer with plain L1 on sub-images made beforehand. Steps
come in blocks of one kind, as in a training run (each kind settles into its own use of memory and
caches), and the blocks alternate, A B A B. Printed are the median of all steps of each kind, and
the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import torch
from timing import machine
from torch import Tensor

from masked_denoise import AsymmetricMaskDenoiser, PixelDownsample
from masked_denoise.memory import held_memory


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--backbone", default="fast-unet")
    ask.add_argument("--batch", type=int, default=2)
    ask.add_argument("--crop", type=int, default=128)
    ask.add_argument("--stride", type=int, default=2)
    ask.add_argument("--pairs", type=int, default=60, help="of blocks")
    ask.add_argument("--block", type=int, default=4, help="steps of one kind in a row")
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--json")
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    denoiser = AsymmetricMaskDenoiser(args.backbone, train_stride=args.stride).train()
    network = denoiser.backbone
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, foreach=True)
    image = torch.rand(args.batch, 3, args.crop, args.crop)
    ready = PixelDownsample(args.stride).down(image).contiguous(memory_format=torch.channels_last)
    target = torch.rand_like(ready)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    counter = iter(range(10**9))
    full = lambda: step(denoiser(image, step=next(counter)))
    plain = lambda: step((ready + network(ready) - target).abs().mean())
    times: tuple[list[float], list[float]] = ([], [])
    with held_memory():  # as `fit` does
        block(full, 5), block(plain, 5)
        for _ in range(args.pairs):
            times[0].extend(block(full, args.block))
            times[1].extend(block(plain, args.block))
    a, b = map(statistics.median, times)
    ratio = a / b
    result = {**vars(args), "full_ms": a * 1e3, "plain_ms": b * 1e3, "overhead": ratio - 1}
    result["machine"] = machine("cpu")
    print(
        f"{args.backbone}, batch {args.batch}, crop {args.crop}, stride {args.stride}, "
        f"{args.threads} threads: full {a * 1e3:.1f} ms, plain {b * 1e3:.1f} ms, "
        f"the scheme costs {100 * (ratio - 1):.1f} %"
    )
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)


def block(run: Callable[[], None], steps: int) -> list[float]:
    """Return the seconds of `steps` runs in a row, after one that is not counted."""
    run()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()

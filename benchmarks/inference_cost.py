"""Measure what `denoise` costs beyond its network.

    python benchmarks/inference_cost.py

Times the default `denoise` of one 8-bit colour picture and, in the same run, the calls of the
network in it; their ratio is the cost of masks, fills, turns, merging, chroma and conversion.
Medians over all runs. On a GPU (`--device cuda`) the same for each precision; every call of the
network is waited for there, so that the ratio is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine
from torch import nn

from masked_denoise import AsymmetricMaskDenoiser

RESULTS = Path(__file__).parent / "results" / "inference_cost.json"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--backbone", default="fast-unet")
    ask.add_argument("--model", help="a saved model or a name, instead of a new network")
    ask.add_argument("--side", type=int, default=512)
    ask.add_argument("--runs", type=int, default=15)
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--precision", nargs="+", default=["auto"])
    ask.add_argument("--compile", action="store_true")
    ask.add_argument("--json", type=Path, default=RESULTS)
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    denoiser = (
        AsymmetricMaskDenoiser.from_pretrained(args.model)
        if args.model
        else AsymmetricMaskDenoiser(args.backbone)
    ).to(args.device)
    name = args.model or args.backbone
    pixels = np.random.default_rng(0).integers(0, 256, (args.side, args.side, 3), dtype=np.uint8)
    rows = []
    for precision in args.precision:
        rows.append(measure(denoiser, pixels, args.runs, precision, compile=args.compile))
        told = rows[-1]
        print(
            f"{name}, {args.side} x {args.side}, {args.device}, {precision}: denoise "
            f"{told['denoise_ms']:.1f} ms, its {told['calls']} network calls "
            f"{told['network_ms']:.1f} ms, ratio {told['ratio']:.3f}"
        )
    about = {
        "network": name,
        "side": args.side,
        "runs": args.runs,
        "compile": args.compile,
        "machine": machine(args.device),
    }
    args.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def measure(
    denoiser: AsymmetricMaskDenoiser,
    pixels: np.ndarray[Any, np.dtype[np.uint8]],
    runs: int,
    precision: str,
    *,
    compile: bool,
) -> dict[str, Any]:
    """Return the median milliseconds of a run, of the network within it, and of their ratios."""
    spent: list[float] = []
    network = Timed(denoiser.backbone, spent)
    denoiser.backbone = network
    wholes, parts, calls = [], [], 0
    try:
        for run in range(runs + 2):  # the first two warm up
            spent.clear()
            start = time.perf_counter()
            denoiser.denoise(pixels, precision=precision, compile=compile)
            whole = time.perf_counter() - start
            if run >= 2:
                wholes.append(whole)
                parts.append(sum(spent))
                calls = len(spent)
    finally:
        denoiser.backbone = network.network
    ratio = statistics.median(a / b for a, b in zip(wholes, parts, strict=True))
    return {
        "precision": precision,
        "denoise_ms": statistics.median(wholes) * 1e3,
        "network_ms": statistics.median(parts) * 1e3,
        "calls": calls,
        "ratio": ratio,
    }


class Timed(nn.Module):
    """Runs a network, and notes the seconds of each call."""

    def __init__(self, network: nn.Module, spent: list[float]) -> None:
        super().__init__()
        self.network, self.spent = network, spent

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        wait(image)
        start = time.perf_counter()
        output: torch.Tensor = self.network(image)
        wait(output)
        self.spent.append(time.perf_counter() - start)
        return output


def wait(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


if __name__ == "__main__":
    main()

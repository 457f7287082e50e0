"""Measure what averaged passes and R3 draws gain: PSNR against the number of network passes.

    python benchmarks/passes.py MODEL NOISY CLEAN [--json FILE] [--plot FILE]

Compares masks drawn anew for every pass with balanced ones (each neighbour visible equally often
over four passes), and R3 with independent draws with balanced ones (each pixel replaced equally
often). Means over the pictures of every other scene and over several seeds; of each picture the
middle 256 x 256 pixels; without chroma smoothing, the pixel's own value and the cosine threshold,
which come after the passes. Passes are turned, and so is R3, except in the form of the papers
("random").
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine

from masked_denoise import AsymmetricMaskDenoiser, RandomPartition, Refinement
from masked_denoise.hashing import Key
from masked_denoise.images import read_image
from masked_denoise.images.pairs import find_pairs, pair_name
from masked_denoise.metrics import psnr
from masked_denoise.pixels import Grid
from masked_denoise.values import middle

PASSES = (1, 2, 4, 8)
R3 = ((8, 0.16), (4, 0.16), (4, 0.25), (4, 0.5), (2, 0.5))
R3_KINDS = (("random", False, False), ("turned", True, False), ("balanced", True, True))


class Independent(RandomPartition):
    """Every pass has a mask of its own."""

    def label_of_pass(self, grid: Grid, key: Key) -> torch.Tensor:
        return self.label(grid, key)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("model"), ask.add_argument("noisy"), ask.add_argument("clean")
    ask.add_argument("--seeds", type=int, default=5)
    ask.add_argument("--every", type=int, default=3, help="take every n-th of the pictures")
    ask.add_argument("--json")
    ask.add_argument("--plot")
    args = ask.parse_args()
    pictures = middle_of(args.noisy, args.clean)[:: args.every]
    denoiser = AsymmetricMaskDenoiser.from_pretrained(args.model)
    denoiser.observation, denoiser.chroma_radius, denoiser.dct_threshold = 0.0, 0, 0.0
    rows: list[dict[str, Any]] = []

    def measure(kind: str, network_passes: int, passes: int, scheme: RandomPartition) -> None:
        denoiser.scheme = scheme
        scores = [
            psnr(denoiser.denoise(noisy, passes=passes, seed=seed), clean)
            for noisy, clean in pictures
            for seed in range(args.seeds)
        ]
        refinement = denoiser.refinement and vars(denoiser.refinement)
        rows.append({
            "kind": kind, "network_passes": network_passes, "psnr": float(np.mean(scores)),
            "refinement": refinement,
        })  # fmt: skip
        print(f"{kind:34}{network_passes:4} network passes {rows[-1]['psnr']:8.3f} dB", flush=True)

    for name, scheme in (("random", Independent(2)), ("balanced", RandomPartition(2))):
        for passes in PASSES:
            measure(f"passes, {name}", 2 * passes, passes, scheme)
    for draws, share in R3:
        for name, turned, balanced in R3_KINDS:
            scheme = RandomPartition(2) if balanced else Independent(2)
            denoiser.refinement = Refinement(draws, share, balanced=balanced)
            denoiser.turns = turned
            measure(f"R3, {name}, {draws} of {share}", 2 + 2 * draws, 1, scheme)
    if args.json:
        about = {"pictures": len(pictures), "seeds": args.seeds, "machine": machine("cpu")}
        Path(args.json).write_text(json.dumps({**about, "rows": rows}, indent=1))
    if args.plot:
        plot(rows, args.plot)


def middle_of(noisy: str, clean: str) -> list[tuple[Any, Any]]:
    """Return (noisy, clean) arrays of the pictures of every other scene."""
    pairs = find_pairs(Path(noisy), Path(clean)).pairs
    scene = {pair: re.sub(r"_+\d+$", "", pair_name(pair.image)) for pair in pairs}
    kept = set(sorted(set(scene.values()))[::2])
    return [
        (middle(read_image(pair.image).pixels, 256), middle(read_image(pair.clean).pixels, 256))
        for pair in pairs
        if scene[pair] in kept
    ]


def plot(rows: list[dict[str, Any]], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, marker in (("random", "o"), ("balanced", "s")):
        curve = [row for row in rows if row["kind"] == f"passes, {name}"]
        axes.plot(
            [row["network_passes"] for row in curve], [row["psnr"] for row in curve],
            marker=marker, label=f"averaged passes, {name}",
        )  # fmt: skip
    for name, marker in (("random", "x"), ("balanced", "+")):
        points = [row for row in rows if row["kind"].startswith(f"R3, {name}")]
        axes.scatter(
            [row["network_passes"] for row in points], [row["psnr"] for row in points],
            marker=marker, label=f"one pass and R3, {name}",
        )  # fmt: skip
    axes.set(xlabel="network passes", ylabel="PSNR (dB)")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

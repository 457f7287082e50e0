"""Measure how well the spread of the passes predicts the error.

    python benchmarks/calibration.py MODEL NOISY CLEAN [--passes 8] [--json FILE] [--plot FILE]

Every picture is denoised with `return_std=True`. The pixels of all pictures (all channels) are
sorted by std into bins of equal size; for each bin, the root mean square of std is compared with
that of the actual error against the clean picture. Two corrections are fitted on every other scene:
a factor on std, and a factor with a floor, error² = floor² + (factor · std)², for the error that
all passes share. Reported for the other scenes: the mean distance of the curves from the diagonal
(ENCE, Levi et al. 2022), and the rank correlation of std and error over the bins.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import machine

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.images import read_image
from masked_denoise.images.pairs import Pair, find_pairs, pair_name
from masked_denoise.values import middle

BINS = 20
Array = NDArray[Any]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("model")
    ask.add_argument("noisy", type=Path)
    ask.add_argument("clean", type=Path)
    ask.add_argument("--passes", type=int, default=8)
    ask.add_argument("--every", type=int, default=1, help="take every n-th of the pictures")
    ask.add_argument("--side", type=int, default=256, help="of the square from the middle")
    ask.add_argument("--json", type=Path)
    ask.add_argument("--plot", type=Path)
    args = ask.parse_args()
    pairs = find_pairs(args.noisy, args.clean).pairs[:: args.every]
    denoiser = AsymmetricMaskDenoiser.from_pretrained(args.model)
    halves = split_scenes(pairs)
    measured = [
        [errors(denoiser, pair, passes=args.passes, side=args.side) for pair in half]
        for half in halves
    ]
    made = report(*(joined(half) for half in measured))
    made |= {
        "passes": args.passes, "side": args.side, "machine": machine("cpu"),
        "pictures": [len(half) for half in halves],
    }  # fmt: skip
    print(
        f"found on {made['pictures'][0]} pictures: error = {made['scale']:.2f} x std, or "
        f"the root of ({255 * made['floor']:.2f} / 255)² + ({made['factor']:.2f} x std)²"
    )
    ence = [round(made[name], 3) for name in ("ence", "ence_scaled", "ence_floor")]
    print(
        f"on the other {made['pictures'][1]}: rank correlation {made['rank_correlation']:.3f}; "
        f"ENCE as it is, scaled, with a floor: {', '.join(map(str, ence))}"
    )
    if args.json:
        args.json.write_text(json.dumps(made, indent=1))
    if args.plot:
        plot(made, args.plot)


def split_scenes(pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of every other scene, and the rest; neighbouring crops are alike."""
    scene = {pair: re.sub(r"_+\d+$", "", pair_name(pair.image)) for pair in pairs}
    first = set(sorted(set(scene.values()))[::2])
    return [p for p in pairs if scene[p] in first], [p for p in pairs if scene[p] not in first]


def errors(
    denoiser: AsymmetricMaskDenoiser, pair: Pair, *, passes: int, side: int
) -> tuple[Array, Array]:
    """Return std and error of every pixel and channel of one picture, in units of the top value."""
    noisy, clean = (middle(read_image(path).pixels, side) for path in (pair.image, pair.clean))
    top = np.iinfo(noisy.dtype).max if noisy.dtype.kind in "iu" else 1.0
    made, std = denoiser.denoise(noisy / np.float32(top), passes=passes, return_std=True)
    wanted = clean / (np.iinfo(clean.dtype).max if clean.dtype.kind in "iu" else 1.0)
    return std.ravel(), (made - wanted).ravel().astype(np.float32)


def joined(pictures: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    return np.concatenate([p[0] for p in pictures]), np.concatenate([p[1] for p in pictures])


def report(first: tuple[Array, Array], second: tuple[Array, Array]) -> dict[str, Any]:
    """Return the numbers: the corrections from the first half, the curve of the second."""
    scale = float(np.sqrt(np.square(first[1]).mean() / np.square(first[0]).mean()))
    floor, factor = with_floor(*curve(*first))
    predicted, actual = curve(*second)
    corrected = np.hypot(floor, factor * predicted)
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, actual)]
    return {
        "scale": scale,
        "floor": floor,
        "factor": factor,
        "predicted": predicted.tolist(),
        "actual": actual.tolist(),
        "ence": float(np.mean(np.abs(predicted - actual) / predicted)),
        "ence_scaled": float(np.mean(np.abs(scale * predicted - actual) / (scale * predicted))),
        "ence_floor": float(np.mean(np.abs(corrected - actual) / corrected)),
        "rank_correlation": float(np.corrcoef(*ranks)[0, 1]),
    }


def with_floor(predicted: Array, actual: Array) -> tuple[float, float]:
    """Return (floor, factor) of actual² = floor² + (factor · predicted)², by relative errors."""
    terms = np.stack([np.ones_like(predicted), predicted**2], axis=1) / actual[:, None] ** 2
    squares, *_ = np.linalg.lstsq(terms, np.ones_like(actual), rcond=None)
    floor, factor = np.sqrt(np.maximum(squares, 0))
    return float(floor), float(factor)


def curve(std: Array, error: Array) -> tuple[Array, Array]:
    """Return the root mean squares of std and of the error, in bins of equally many pixels."""
    order = np.argsort(std)
    bins = np.array_split(order, BINS)
    return (
        np.array([np.sqrt(np.square(std[part], dtype=np.float64).mean()) for part in bins]),
        np.array([np.sqrt(np.square(error[part], dtype=np.float64).mean()) for part in bins]),
    )


def plot(made: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    predicted, actual = 255 * np.array(made["predicted"]), 255 * np.array(made["actual"])
    end = 1.05 * max(actual.max(), (made["scale"] * predicted).max())
    axes.plot([0, end], [0, end], color="grey", linewidth=1, label="as predicted")
    axes.plot(predicted, actual, marker="o", label="std as returned")
    label = f"std x {made['scale']:.2f}, found on other scenes"
    axes.plot(made["scale"] * predicted, actual, marker="s", label=label)
    label = f"std x {made['factor']:.2f}, and {255 * made['floor']:.1f} that all passes share"
    corrected = np.hypot(255 * made["floor"], made["factor"] * predicted)
    axes.plot(corrected, actual, marker="^", label=label)
    axes.set(xlabel="predicted (of 255)", ylabel="actual error, root mean square (of 255)")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

"""Compare what `measure_noise` finds in noisy pictures with the noise against their clean twins.

    python benchmarks/noise_check.py NOISY CLEAN --json FILE
    python benchmarks/noise_check.py --simulated CLEAN
    python benchmarks/noise_check.py --white 3 8 25 CLEAN

With --simulated, camera noise (`CameraNoise`) of 1 to 20 of 255 is added to the clean pictures;
with --compressed, the result is also compressed. Every picture is measured separately. One row per
channel: mean standard deviation on the 0..255 scale; the 10, 50 and 90 per cent quantiles of
measured over true deviation; their rank correlation over the pictures; and the noise correlation
between pixels two apart. With --white, white noise of these levels (of 255) is added, and the
number of pictures is printed in which it was found to be independent from pixel to pixel.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timing import machine

from masked_denoise.camera_noise import CameraNoise
from masked_denoise.colour import YCBCR
from masked_denoise.images import find_images, read_image
from masked_denoise.images.pairs import find_pairs
from masked_denoise.noise import measure_noise

Pixels = NDArray[Any]

CHANNELS = ("Y", "Cb", "Cr")
APART = 2  # pixels


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("noisy", nargs="?")
    ask.add_argument("clean")
    ask.add_argument("--simulated", action="store_true")
    ask.add_argument("--compressed", action="store_true")
    ask.add_argument("--white", nargs="+", type=float, metavar="LEVEL")
    ask.add_argument("--json", type=Path)
    args = ask.parse_args()
    if (args.simulated or args.white is not None) == (args.noisy is not None):
        ask.error("give NOISY CLEAN, or --simulated CLEAN, or CLEAN --white LEVEL")
    if args.white is not None:
        tell_independent(args.clean, args.white)
        return
    twins = simulated(args.clean, args.compressed) if args.simulated else real(args)
    found = np.array([measured(*pictures) for pictures in twins])
    rows = [row(name, found[:, k]) for k, name in enumerate(CHANNELS)]
    for one in rows:
        print(one)
    if args.json is not None:
        made = {"pictures": len(found), "machine": machine("cpu"), "rows": rows}
        args.json.write_text(json.dumps(made, indent=1) + "\n")


def tell_independent(folder: str, levels: list[float]) -> None:
    """Print of how many pictures with white noise it is found to be independent."""
    clean = [read_image(path).pixels for path, _ in find_images(folder)]
    random = np.random.default_rng(0)
    for level in levels:
        noisy = (
            (one + level * random.standard_normal(one.shape)).round().clip(0, 255).astype(np.uint8)
            for one in clean
        )
        found = sum(measure_noise(one).independent for one in noisy)
        print(f"white noise of {level:g}: independent in {found} of {len(clean)}")


def real(args: argparse.Namespace) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield the noisy and the clean picture of each pair."""
    for pair in find_pairs(args.noisy, args.clean).pairs:
        yield read_image(pair.image).pixels, read_image(pair.clean).pixels


def simulated(folder: str, compressed: bool) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield each clean picture with simulated noise, and as it is."""
    noise = CameraNoise(sigma=(1 / 255, 20 / 255), uncompressed=1.0 - compressed)
    for number, (path, _) in enumerate(find_images(folder)):
        clean = read_image(path).pixels
        unit = torch.from_numpy(clean.copy()).permute(2, 0, 1).float() / 255
        made = noise.add(unit, np.random.default_rng(number))
        yield (255 * made).round().to(torch.uint8).permute(1, 2, 0).numpy(), clean


def measured(noisy: Pixels, clean: Pixels) -> list[list[float]]:
    """Return, for each channel: sigma measured and true, correlation measured and true."""
    report = measure_noise(noisy)
    error = (noisy.astype(np.float64) - clean) @ np.array(YCBCR).T
    told = []
    for k, name in enumerate(CHANNELS):
        plane = error[..., k] - error[..., k].mean()
        products = plane[:, APART:] * plane[:, :-APART], plane[APART:] * plane[:-APART]
        correlation = sum(float(one.mean()) for one in products) / 2 / plane.var()
        noise = report[name]
        told.append([255 * noise.sigma, plane.std(), noise.correlation[APART - 1], correlation])
    return told


def row(name: str, values: np.ndarray) -> dict[str, Any]:
    """Return the summary of one channel."""
    sigma, true_sigma, correlation, true_correlation = values.T
    ratio = sigma / true_sigma
    ranks = [np.argsort(np.argsort(one)) for one in (sigma, true_sigma)]
    return {
        "channel": name,
        "sigma": round(float(sigma.mean()), 2),
        "true_sigma": round(float(true_sigma.mean()), 2),
        "ratio_10_50_90": [round(float(q), 2) for q in np.quantile(ratio, (0.1, 0.5, 0.9))],
        "rank_correlation": round(float(np.corrcoef(*ranks)[0, 1]), 2),
        "correlation": round(float(correlation.mean()), 2),
        "true_correlation": round(float(true_correlation.mean()), 2),
    }


if __name__ == "__main__":
    main()

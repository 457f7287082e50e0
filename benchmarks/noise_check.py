"""What `measure_noise` finds in noisy pictures, against the noise that their clean twins show.

    python benchmarks/noise_check.py NOISY CLEAN --json FILE

Every picture is measured by itself. A row a channel: mean standard deviation in steps of 255, the
10, 50 and 90 per cent quantiles of measured over true, rank correlation over the pictures, and the
correlation of pixels two apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from masked_denoise.camera_noise import YCBCR
from masked_denoise.evaluate import Pair, find_pairs
from masked_denoise.images import read_image
from masked_denoise.noise import measure_noise

CHANNELS = ("Y", "Cb", "Cr")
APART = 2  # pixels


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("noisy")
    ask.add_argument("clean")
    ask.add_argument("--json", type=Path)
    args = ask.parse_args()
    found = np.array([measured(pair) for pair in find_pairs(args.noisy, args.clean).pairs])
    rows = [row(name, found[:, k]) for k, name in enumerate(CHANNELS)]
    for one in rows:
        print(one)
    if args.json is not None:
        args.json.write_text(json.dumps({"pictures": len(found), "rows": rows}, indent=1) + "\n")


def measured(pair: Pair) -> list[list[float]]:
    """Return, for each channel: sigma measured and true, correlation measured and true."""
    noisy, clean = (read_image(path).pixels for path in (pair.image, pair.clean))
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

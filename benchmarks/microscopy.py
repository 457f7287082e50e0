"""Grey 16-bit pictures with known, independent Poisson-Gaussian noise: ours against BM3D.

    python benchmarks/microscopy.py -o microscopy.json --minutes 4 --peak 30 [--plot FILE]

Fluorescence-like pictures, bright on dark, are made from images of scikit-image that are CC0 or in
the public domain (cell, retina, grass, Hubble's deep field). A sensor counts photons (`peak` of
them at white), adds read noise, a gain and an offset, and stores 16 bits. The noise is independent
from pixel to pixel, which `fit` finds out by itself. It trains on these noisy pictures alone, and
without the sensor's parameters.

BM3D is given what no denoiser knows by itself, the true gain, offset and read noise: once with the
generalised Anscombe transform and its exact unbiased inverse (Makitalo and Foi 2013), the strong
baseline; once with the true mean noise level only. It runs in the environment that peers.py makes.

PSNR and SSIM (uniform 7x7) of unrounded pictures; white is the peak, black the offset.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peers import ENVIRONMENTS, Pictures, call, environment
from timing import machine

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.metrics import psnr, ssim
from masked_denoise.report.panel import side_by_side

WHITE = 20_000  # counts of the peak above the offset ...
OFFSET = 0.05  # ... of which the offset is so many
BACKGROUND = 0.04  # of the peak


class Sensor(NamedTuple):
    """What turns photons into counts: gain · Poisson(photons) + gain · N(0, read) + offset."""

    peak: float
    read: float  # electrons
    white: float = WHITE

    @property
    def offset(self) -> float:
        """Counts at black."""
        return OFFSET * self.white

    @property
    def gain(self) -> float:
        """Counts a photon."""
        return self.white / self.peak

    def photons(self, unit: np.ndarray) -> np.ndarray:
        return self.peak * (BACKGROUND + (1 - BACKGROUND) * unit)

    def expose(self, unit: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return noisy counts, uint16."""
        electrons = random.poisson(self.photons(unit)) + random.normal(0, self.read, unit.shape)
        return np.rint(self.gain * electrons + self.offset).clip(0, 65535).astype(np.uint16)

    def unit(self, counts: np.ndarray) -> np.ndarray:
        """Return counts as shares of the peak, 0 at the offset."""
        return (counts.astype(np.float64) - self.offset) / self.white

    def level(self, low: float, high: float) -> tuple[float, float]:
        """Return slope and offset of the variance over the value, where `low` is 0 and `high` 1."""
        gain = self.gain / (high - low)
        return gain, (gain * self.read) ** 2 + gain * (low - self.offset) / (high - low)

    def anscombe(self, counts: np.ndarray) -> np.ndarray:
        """Return values whose noise has a standard deviation of about 1."""
        electrons = (counts.astype(np.float64) - self.offset) / self.gain
        return 2 * np.sqrt(np.maximum(electrons + 3 / 8 + self.read**2, 0))

    def inverse_anscombe(self, values: np.ndarray) -> np.ndarray:
        """Return counts from means of transformed values: the exact inverse in closed form."""
        d = np.maximum(values, 2 * np.sqrt(3 / 8 + self.read**2))
        root = np.sqrt(1.5)
        electrons = d**2 / 4 + root / 4 / d - 11 / 8 / d**2 + 5 * root / 8 / d**3 - 1 / 8
        return self.gain * np.maximum(electrons - self.read**2, 0) + self.offset


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    random = np.random.default_rng(args.seed)
    sensor = Sensor(args.peak, args.read, args.white)
    clean = sources(args.side)
    noisy = {name: sensor.expose(unit, random) for name, unit in clean.items()}
    truth = {name: sensor.photons(unit) / sensor.peak for name, unit in clean.items()}

    def measure(results: Pictures, **more: Any) -> dict[str, Any]:
        rows = {
            name: {
                "psnr": float(psnr(sensor.unit(counts), truth[name])),
                "ssim": float(ssim(sensor.unit(counts), truth[name])),
            }
            for name, counts in results.items()
        }
        mean = {
            key: float(np.mean([row[key] for row in rows.values()])) for key in ("psnr", "ssim")
        }
        return {"mean": mean, "images": rows, **more}

    results: dict[str, Pictures] = {"noisy": noisy}
    methods = {"noisy": measure(noisy, correlation=correlation(noisy, truth, sensor))}
    for name, run in (("BM3D", plain_bm3d), ("BM3D, Anscombe", stabilised_bm3d)):
        if not args.no_bm3d:
            results[name], seconds = run(noisy, truth, sensor, args.envs)
            methods[name] = measure(results[name], seconds=seconds)
            print(name, methods[name]["mean"], flush=True)
    results["ours"], told = ours(noisy, sensor, args)
    methods["masked-denoise"] = measure(results["ours"], **told)
    report = {
        "sensor": {**sensor._asdict(), "gain": sensor.gain, "background": BACKGROUND},
        "settings": vars(args), "machine": machine("cpu"), "methods": methods,
    }  # fmt: skip
    Path(args.output).write_text(json.dumps(report, indent=1))
    if args.plot:
        draw(results, truth, sensor, args.plot)
    print(table(methods, sensor))


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("-o", "--output", required=True, help="JSON file")
    budget = ask.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float), budget.add_argument("--steps", type=int)
    ask.add_argument("--peak", type=float, default=30, help="photons at white")
    ask.add_argument("--read", type=float, default=1.5, help="read noise in electrons")
    ask.add_argument(
        "--white", type=float, default=WHITE, help="counts; 1250 as of 12 bits, stored in 16"
    )
    ask.add_argument("--side", type=int, default=512, help="longest side of the pictures")
    ask.add_argument("--backbone", default="fast-unet")
    ask.add_argument("--denoiser", default="{}", help="arguments of the denoiser, as JSON")
    ask.add_argument("--fit", default="{}", help="more arguments of fit, as JSON")
    ask.add_argument("--no-bm3d", action="store_true")
    ask.add_argument("--envs", default=str(Path(tempfile.gettempdir()) / "masked-denoise-peers"))
    ask.add_argument("--plot", help="PNG of crops")
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    ask.add_argument("--seed", type=int, default=0)
    return ask.parse_args()


def sources(side: int) -> Pictures:
    """Return clean pictures, floats from 0 to 1, bright structures on dark ground."""
    from skimage import data

    grey: dict[str, np.ndarray] = {
        "cell": data.cell().astype(np.float64),  # CC0: a cell's phase
        "vessels": -halved(data.retina()[..., 1])[120:590, 120:590],  # CC0: a fundus, inverted
        "fibres": data.grass().astype(np.float64),  # CC0
        "spots": halved(data.hubble_deep_field().mean(2)),  # public domain, NASA
    }
    pictures = {}
    for name, whole in grey.items():
        row, col = (max(0, (length - side) // 2) for length in whole.shape)
        picture = whole[row : row + side, col : col + side]
        low, high = np.quantile(picture, (0.01, 0.999))
        unit = ((picture - low) / (high - low)).clip(0, 1)
        pictures[name] = unit ** (1.0 if name == "spots" else 1.5)  # darker ground
    return pictures


def halved(picture: np.ndarray) -> np.ndarray:
    """Return means of 2 x 2 pixels, which takes most of a picture's own noise away."""
    height, width = (length // 2 * 2 for length in picture.shape)
    return picture[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def correlation(noisy: Pictures, truth: Pictures, sensor: Sensor) -> float:
    """Return the noise's correlation with that of the pixel at its right, over all pictures."""
    found = []
    for name, counts in noisy.items():
        noise = sensor.unit(counts) - truth[name]
        found.append(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])
    return float(np.mean(found))


Bm3d = Callable[[Pictures, Pictures, Sensor, str], tuple[Pictures, float]]


def stabilised_bm3d(
    noisy: Pictures, truth: Pictures, sensor: Sensor, envs: str
) -> tuple[Pictures, float]:
    stable = {name: sensor.anscombe(counts) for name, counts in noisy.items()}
    found, seconds = run_bm3d(stable, dict.fromkeys(noisy, 1.0), envs)
    return {name: sensor.inverse_anscombe(values) for name, values in found.items()}, seconds


def plain_bm3d(
    noisy: Pictures, truth: Pictures, sensor: Sensor, envs: str
) -> tuple[Pictures, float]:
    """BM3D at the true root-mean-square noise level of each picture."""
    sigma = {
        name: sensor.gain * float(np.sqrt((truth[name] * sensor.peak).mean() + sensor.read**2))
        for name in noisy
    }
    return run_bm3d({name: one.astype(np.float64) for name, one in noisy.items()}, sigma, envs)


def run_bm3d(pictures: Pictures, sigma: dict[str, float], envs: str) -> tuple[Pictures, float]:
    """Return the results, and the mean processor seconds of a picture."""
    python = environment(*ENVIRONMENTS["bm3d"], Path(envs))
    found, seconds = {}, []
    for name, picture in pictures.items():
        [(results, _)] = call(python, "bm3d-grey", [{"sigma": sigma[name]}], {name: picture})
        found[name] = results[name][0]
        seconds.append(results[name][1])
    return found, float(np.mean(seconds))


def ours(
    noisy: Pictures, sensor: Sensor, args: argparse.Namespace
) -> tuple[Pictures, dict[str, Any]]:
    torch.manual_seed(args.seed)
    denoiser = AsymmetricMaskDenoiser(args.backbone, channels=1, **json.loads(args.denoiser))
    denoiser.fit(
        list(noisy.values()), minutes=args.minutes, steps=args.steps, seed=args.seed,
        validation=False, **json.loads(args.fit),
    )  # fmt: skip
    results = {}
    start = time.process_time()
    for name, counts in noisy.items():
        results[name] = denoiser.denoise(counts, seed=args.seed)
    seconds = (time.process_time() - start) / len(noisy)
    told = {
        "preset": denoiser.preset,
        "noise_level": denoiser.noise_level,
        "value_range": denoiser.value_range,
        "true_level": sensor.level(*(denoiser.value_range or (0, 65535))),
    }
    return results, {"seconds": seconds, "training": denoiser.fit_record, **told}


def draw(results: dict[str, Pictures], truth: Pictures, sensor: Sensor, path: str) -> None:
    """Write crops of all methods side by side."""
    from masked_denoise.images import ImageFile, write_image

    short = {"BM3D, Anscombe": "Anscombe"}  # a label is no wider than its crop
    rows = []
    for name, clean in truth.items():
        top, left = (max(0, side // 2 - 80) for side in clean.shape)
        place = (slice(top, top + 160), slice(left, left + 160))
        row = [
            (f"{short.get(method, method)}: {float(psnr(sensor.unit(one[name]), clean)):.1f} dB",
             np.sqrt(sensor.unit(one[name])[place].clip(0, 1)))
            for method, one in results.items()
        ]  # fmt: skip
        rows.append([*row, ("clean", np.sqrt(clean[place]))])
    write_image(path, ImageFile(side_by_side(rows)))


def table(methods: dict[str, Any], sensor: Sensor) -> str:
    """Return the numbers as a Markdown table."""
    names = list(methods["noisy"]["images"])
    lines = [["method", *names, "mean dB / SSIM", "s a picture (processor)"]]
    lines.append(["---"] * len(lines[0]))
    for method, one in methods.items():
        cells = [f"{one['images'][name]['psnr']:.2f}" for name in names]
        cells += [f"{one['mean']['psnr']:.2f} / {one['mean']['ssim']:.4f}"]
        lines.append([method, *cells, f"{one['seconds']:.1f}" if "seconds" in one else ""])
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{rows}\n\n{sensor.peak:g} photons at white, read noise {sensor.read:g} electrons"


if __name__ == "__main__":
    main()

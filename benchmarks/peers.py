"""Other denoisers beside ours, on the same pictures: PSNR, SSIM, LPIPS and time in one table.

    python benchmarks/peers.py NOISY CLEAN -o peers.json --model MODEL [--crops 6]
    python benchmarks/peers.py NOISY CLEAN -o peers.json --methods careamics-n2v autoden-n2v

Each peer runs in a virtual environment of its own, which this script makes below --envs, in one
thread. Its setting is the best (mean PSNR) of a small grid, on the middle 256 x 256 pixels of the
pictures of every other scene ("even"); reported are the whole pictures of the other scenes ("odd"),
of the even ones, and of all. Trained peers (Noise2Void) train on the noisy pictures that are
scored. Scores follow the convention of masked_denoise.evaluate; times are processor seconds.
Results are written after every method; if the file exists, the run continues from it. BM3D's
package is licensed for non-commercial use only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from quality import of_scenes
from timing import machine

from masked_denoise.evaluate import CONVENTION
from masked_denoise.images import read_image
from masked_denoise.images.pairs import Pair, find_pairs, pair_name
from masked_denoise.metrics import score
from masked_denoise.values import middle

HERE = Path(__file__).parent
Pictures = dict[str, np.ndarray]
Settings = dict[str, Any]

_CLASSICAL = "numpy opencv-python-headless scikit-image PyWavelets bm3d"
ENVIRONMENTS = {
    "opencv-nlm": ("classical", _CLASSICAL),
    "skimage-nlm": ("classical", _CLASSICAL),
    "skimage-wavelet": ("classical", _CLASSICAL),
    "bm3d": ("classical", _CLASSICAL),
    "careamics-n2v": ("careamics", "careamics"),
    "autoden-n2v": ("autoden", "auto-denoise"),
}
GRIDS: dict[str, list[Settings]] = {
    "opencv-nlm": [{"h": h, "h_colour": c} for h, c in product((2, 3, 4, 5), (2, 3, 5, 8))],
    "skimage-nlm": [{"factor": factor} for factor in (2, 3, 4, 6, 8, 12)],
    "skimage-wavelet": [
        {"method": method, "factor": luma, "chroma_factor": chroma}
        for method, luma, chroma in product(
            ("BayesShrink", "VisuShrink"), (0.6, 1, 1.5, 2.5), (3, 8, 20)
        )
    ],
    "bm3d": [
        *({"sigma": sigma} for sigma in (4, 7, 11, 16, 22)),
        *({"factor": factor} for factor in (4.0, 8.0, 12.0)),
    ],
}
CLASSICAL = tuple(GRIDS)
SIDE = 256  # of the squares that settings are chosen on
SKIP = {"bm3d": 4}  # slow: its setting is chosen on every fourth of them


def main() -> None:
    args = arguments()
    pairs = find_pairs(args.noisy, args.clean).pairs
    if args.crops:
        places = np.unique(np.linspace(0, len(pairs) - 1, args.crops).round().astype(int))
        pairs = tuple(pairs[place] for place in places)
    even = {pair_name(pair.image) for pair in of_scenes(pairs, "even")}
    noisy, clean = (read_all(pairs, side) for side in ("image", "clean"))
    lpips, lpips_note = perceptual(args.lpips)
    measure = Measure(clean, even, lpips)
    path = Path(args.output)
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("pictures", sorted(noisy)) != sorted(noisy):
        raise SystemExit(f"{path} is of other pictures; give another file")
    report = {
        "convention": CONVENTION, "lpips": lpips_note, "pictures": sorted(noisy),
        "even_scenes": sorted(even), "machine": machine("cpu"), "methods": found.get("methods", {}),
    }  # fmt: skip
    report["methods"]["input"] = measure({name: (one, 0.0) for name, one in noisy.items()})
    for method in args.methods:
        if method not in report["methods"]:
            report["methods"][method] = run_peer(method, noisy, measure, even, args)
            path.write_text(json.dumps(report, indent=1))
    if args.model:
        report["methods"]["masked-denoise"] = run_ours(args.model, noisy, measure)
    path.write_text(json.dumps(report, indent=1))
    print(table(report))


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("noisy"), ask.add_argument("clean")
    ask.add_argument("-o", "--output", required=True, help="JSON file")
    ask.add_argument("--methods", nargs="*", choices=ENVIRONMENTS, default=list(CLASSICAL))
    ask.add_argument("--model", help="a model of ours, to be scored beside them")
    ask.add_argument("--crops", type=int, help="so many pictures only, evenly spaced by name")
    ask.add_argument("--epochs", type=int, default=5, help="of the trained peers")
    ask.add_argument("--envs", default=str(Path(tempfile.gettempdir()) / "masked-denoise-peers"))
    ask.add_argument("--lpips", action="store_true", help="needs lpips and its AlexNet weights")
    return ask.parse_args()


def read_all(pairs: Sequence[Pair], side: str) -> Pictures:
    return {pair_name(pair.image): read_image(getattr(pair, side)).pixels for pair in pairs}


class Measure:
    """Scores of the results of one method, and their means over the scenes."""

    def __init__(self, clean: Pictures, even: set[str], lpips: Callable[..., float] | None) -> None:
        self.clean, self.even, self.lpips = clean, even, lpips

    def __call__(self, results: dict[str, tuple[np.ndarray, float]]) -> dict[str, Any]:
        rows = {}
        for name, (picture, seconds) in results.items():
            rows[name] = {**score(picture, self.clean[name]), "seconds": seconds}
            if self.lpips is not None:
                rows[name]["lpips"] = self.lpips(picture, self.clean[name])
        parts = {"all": set(rows), "even": self.even & set(rows), "odd": set(rows) - self.even}
        means = {part: mean([rows[name] for name in names]) for part, names in parts.items()}
        return {**means, "images": rows}


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}


def run_peer(
    method: str, noisy: Pictures, measure: Measure, even: set[str], args: argparse.Namespace
) -> dict[str, Any]:
    """Return the scores of a peer at its best setting, or why it could not be run."""
    try:
        python = environment(*ENVIRONMENTS[method], Path(args.envs))
        chosen: dict[str, Any] = {"settings": {"epochs": args.epochs, "work": args.envs}}
        if method in GRIDS:
            chosen = choose(method, python, noisy, measure, even)
        start = time.perf_counter()
        [(results, training)] = call(python, method, [chosen["settings"]], noisy)
        chosen["seconds_in_all"] = time.perf_counter() - start
    except subprocess.CalledProcessError as error:
        print(f"{method} cannot be run:\n{error.stderr[-1500:]}", file=sys.stderr, flush=True)
        return {"failed": error.stderr[-1500:]}
    return {**measure(results), **chosen, "training_seconds": training}


def choose(
    method: str, python: Path, noisy: Pictures, measure: Measure, even: set[str]
) -> dict[str, Any]:
    """Return the setting of the best mean PSNR on the squares, and what all of them gave."""
    names = sorted(even)[:: SKIP.get(method, 1)]
    squares = {name: middle(noisy[name], SIDE) for name in names}
    clean = {name: middle(measure.clean[name], SIDE) for name in names}
    tried = []
    found = call(python, method, GRIDS[method], squares)
    for settings, (results, _) in zip(GRIDS[method], found, strict=True):
        scores = [score(results[name][0], clean[name])["psnr"] for name in names]
        tried.append({"settings": settings, "psnr": float(np.mean(scores))})
        print(f"{method:18}{tried[-1]['psnr']:8.3f} dB  {json.dumps(settings)}", flush=True)
    best = max(tried, key=lambda one: one["psnr"])
    return {"settings": best["settings"], "tried": tried}


def environment(name: str, packages: str, folder: Path) -> Path:
    """Return the interpreter of a virtual environment with these packages, made where missing."""
    place = folder / name
    python, done = place / "bin" / "python", place / "installed"
    if not done.exists():
        print(f"installing {packages} into {place}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *packages.split()],
            check=True, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        done.write_text(packages)
    return python


def call(
    python: Path, method: str, tried: Sequence[Settings], pictures: Pictures
) -> list[tuple[dict[str, tuple[np.ndarray, float]], float]]:
    """Return for each setting every picture's result with its seconds, and those of training."""
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place, "in"), Path(place, "out")
        source.mkdir(), target.mkdir()
        for name, picture in pictures.items():
            np.save(source / f"{name}.npy", picture)
        words = [python, HERE / "peer_methods.py", method, json.dumps(tried), source, target]
        subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
        found = []
        for number in range(len(tried)):
            folder = target / str(number)
            times = json.loads((folder / "times.json").read_text())
            results = {name: (np.load(folder / f"{name}.npy"), times[name]) for name in pictures}
            found.append((results, times.get("training", 0.0)))
        return found


def run_ours(model: str, noisy: Pictures, measure: Measure) -> dict[str, Any]:
    import torch

    from masked_denoise import AsymmetricMaskDenoiser

    torch.set_num_threads(1)
    denoiser = AsymmetricMaskDenoiser.from_pretrained(model)
    denoiser.denoise(next(iter(noisy.values()))[:64, :64])
    results = {}
    for name, picture in noisy.items():
        start = time.process_time()
        clean = denoiser.denoise(picture)
        results[name] = (clean, time.process_time() - start)
    training = denoiser.fit_record.get("seconds", 0.0)
    return {**measure(results), "settings": {"model": model}, "training_seconds": training}


def perceptual(wanted: bool) -> tuple[Callable[..., float] | None, str]:
    """Return a function of two pictures, or None, and a note about it."""
    if not wanted:
        return None, "not measured: --lpips was not given"
    try:
        import torch
        from lpips import LPIPS

        network = LPIPS(net="alex", verbose=False).eval()
    except Exception as error:  # whatever the package or its download raises, the rest is measured
        return None, f"not measured: {type(error).__name__}: {error}"

    def distance(picture: np.ndarray, clean: np.ndarray) -> float:
        both = (
            torch.from_numpy(one).permute(2, 0, 1)[None] / 127.5 - 1 for one in (picture, clean)
        )
        with torch.no_grad():
            return float(network(*both))

    return distance, "LPIPS 0.1, AlexNet"


def table(report: dict[str, Any]) -> str:
    """Return the numbers as a Markdown table."""
    head = ["method", "setting", "odd dB / SSIM", "even dB / SSIM", "all dB / SSIM"]
    head += ["worse than the input", "LPIPS", "s a picture (processor)", "training s"]
    lines = [head, ["---"] * len(head)]
    before = report["methods"]["input"]["images"]
    for name, one in report["methods"].items():
        if "failed" in one:
            lines.append([name, "failed: " + one["failed"].strip().splitlines()[-1][:80]])
            lines[-1] += [""] * (len(head) - 2)
            continue
        settings = {k: v for k, v in one.get("settings", {}).items() if k not in ("work", "model")}
        worse = sum(row["psnr"] < before[key]["psnr"] for key, row in one["images"].items())
        cells = [name, ", ".join(f"{k} {v}" for k, v in settings.items())]
        cells += [
            f"{one[part]['psnr']:.2f} / {one[part]['ssim']:.4f}" if one[part] else "-"
            for part in ("odd", "even", "all")
        ]
        cells += [str(worse), f"{one['all']['lpips']:.3f}" if "lpips" in one["all"] else "-"]
        training = one.get("training_seconds") or 0
        cells += [f"{one['all']['seconds']:.2f}", f"{training:.0f}" if training else ""]
        lines.append(cells)
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{text}\n\n{len(report['pictures'])} pictures; {report['convention']}; LPIPS: " + str(
        report["lpips"]
    )


if __name__ == "__main__":
    main()

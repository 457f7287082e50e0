"""Score the bundled model on noise of any strength, camera noise and white noise.

    python benchmarks/strong_noise.py CLEAN --scenes odd

Noise is simulated (`CameraNoise`) on the middle of clean pictures, at one level after another.
Printed is the mean PSNR in dB, 8-bit. --model names others to compare with: folders, or names.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from quality import of_scenes
from timing import machine

from masked_denoise import from_pretrained
from masked_denoise.camera_noise import CameraNoise
from masked_denoise.images import find_images, read_image
from masked_denoise.images.pairs import Pair
from masked_denoise.metrics import score
from masked_denoise.pretrained.shipped import DEFAULT_MODEL
from masked_denoise.values import middle

RESULTS = Path(__file__).parent / "results" / "strong_noise.json"
LEVELS = (2, 5, 9, 12, 16, 22, 30)
KINDS = {"camera": CameraNoise(), "white": CameraNoise(white=1.0, uncompressed=1.0)}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("clean", type=Path, help="folder of clean colour pictures")
    ask.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="of 255")
    ask.add_argument("--scenes", choices=("all", "even", "odd"), default="all")
    ask.add_argument("--model", nargs="+", default=[DEFAULT_MODEL])
    ask.add_argument("--side", type=int, default=256)
    ask.add_argument("--json", type=Path, default=RESULTS)
    args = ask.parse_args()
    models = {name: from_pretrained(name) for name in args.model}
    paths = [path for path, _ in find_images(args.clean)]
    pairs = of_scenes(tuple(Pair(path.name, path, path) for path in paths), args.scenes)
    paths = [pair.image for pair in pairs]
    rows = []
    for kind, level in ((kind, level) for kind in KINDS for level in args.levels):
        found = []
        for number, path in enumerate(paths):
            clean = middle(read_image(path).pixels, args.side)
            noisy = with_noise(clean, kind, level, number)
            psnr = {"noisy": score(noisy, clean)["psnr"]}
            for name, model in models.items():
                psnr[name] = score(model.denoise(noisy), clean)["psnr"]
            found.append(psnr)
        mean = {name: round(float(np.mean([one[name] for one in found])), 3) for name in found[0]}
        rows.append({"noise": kind, "level": level, "pictures": len(found), **mean})
        print(rows[-1], flush=True)
    about = {"scenes": args.scenes, "side": args.side, "machine": machine("cpu")}
    args.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def with_noise(clean: np.ndarray, kind: str, level: float, seed: int) -> np.ndarray:
    """Return a picture with noise of a kind and a level of 255, of its own seed."""
    noise = replace(KINDS[kind], sigma=(level / 255, level / 255))
    unit = torch.from_numpy(clean).permute(2, 0, 1).float() / 255
    made = noise.add(unit, np.random.default_rng([seed, round(100 * level)]))
    return (255 * made).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


if __name__ == "__main__":
    main()

"""Check whether `rank_models`, which sees no clean picture, orders models as the true PSNR does.

    python benchmarks/rank_correlation.py NOISY CLEAN MODEL MODEL ... --json ranks.json

Every MODEL is a folder or a name. The score is computed from the pictures in NOISY that have a
clean twin (without using the twin); the truth is the mean PSNR of `denoise` against CLEAN over the
same pictures. Printed are both for each model, their rank correlation (Spearman), and the cost of
choosing by the score: the true PSNR of the best model minus that of the chosen one. --scenes odd
leaves out the scenes on which a constant of the score was chosen.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality import of_scenes
from timing import machine

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.evaluate import evaluate_pairs
from masked_denoise.images.pairs import find_pairs
from masked_denoise.training.ranking import rank_models


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("noisy")
    ask.add_argument("clean")
    ask.add_argument("models", nargs="+")
    ask.add_argument("--scenes", choices=("all", "even", "odd"), default="odd")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--json", type=Path)
    args = ask.parse_args()
    if len(args.models) < 2:
        ask.error("two models or more are needed")
    torch.set_num_threads(args.threads)
    pairs = of_scenes(find_pairs(args.noisy, args.clean).pairs, args.scenes)
    models = {name: AsymmetricMaskDenoiser.from_pretrained(name) for name in args.models}
    ranks = rank_models(models, [pair.image for pair in pairs], seed=args.seed)
    rows: list[dict[str, Any]] = []
    for rank in ranks:
        truth = evaluate_pairs(pairs, denoise=models[rank.name].denoise).mean["psnr"]
        rows.append({"model": rank.name, "score": rank.psnr, "gain": rank.gain, "psnr": truth})
        print(f"{rank.name:40s} score {rank.psnr:.3f}, truth {truth:.3f} dB", flush=True)
    places = [np.argsort(np.argsort([row[key] for row in rows])) for key in ("score", "psnr")]
    correlation = float(np.corrcoef(places)[0, 1])
    cost = max(row["psnr"] for row in rows) - rows[0]["psnr"]
    print(f"{len(rows)} models: rank correlation {correlation:.3f}, choice costs {cost:.3f} dB")
    if args.json:
        settings = {key: str(value) for key, value in vars(args).items() if key != "models"}
        found = {"rank_correlation": correlation, "cost_db": cost, "models": rows}
        told = {**found, "settings": settings, "machine": machine("cpu")}
        args.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

r"""Fit on noisy photographs, denoise those that have a clean twin, and score them.

    python benchmarks/quality.py NOISY CLEAN -o runs/small --recipe small
    python benchmarks/quality.py NOISY CLEAN -o runs/five --minutes 5 --row docs/results.md

Only NOISY is trained on; CLEAN is for scoring. Pictures pair by stem (without `_real`, `_mean`,
`_noisy`, `_clean`, `_gt`). A recipe is a name for some of the arguments (RECIPES below); more may
be added. The folder receives the denoised pictures as PNG, the model, and results.json: mean PSNR
and SSIM (8-bit, uniform 7x7), every picture's numbers, times, settings, machine and versions. --row
appends a line of them to a page. --scenes even and --scenes odd score one half of the scenes (a
scene is a stem without its last number), to choose settings on one half and report on the other.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timing import machine

from masked_denoise import AsymmetricMaskDenoiser, Refinement
from masked_denoise.evaluate import evaluate_pairs
from masked_denoise.images import find_images, read_image, write_image
from masked_denoise.images.pairs import Pair, find_pairs, pair_name

REFINED = '{"refine": {"draws": 4, "share": 0.25, "balanced": true}}'
RECIPES = {
    "small": ["--model", "camera-small"],
    "eight-passes": ["--model", "camera-small", "--denoiser", '{"passes": 8}'],
    "bare": ["--model", "camera-small", "--denoiser", '{"dct_threshold": 0}'],
    "adapted": ["--model", "camera-small", "--adapt", "3"],
    "scratch-3": ["--learn-noise", "3"],
    "scratch-8": ["--learn-noise", "8", "--fit", '{"rounds": 2}'],
    "masked": ["--steps", "3000"],
    "refined": ["--steps", "3000", "--denoiser", REFINED],
    "masked-5": ["--minutes", "5"],
    "distilled": ["--steps", "1500", "--distill", "2.45"],
    "distilled-7": ["--steps", "3000", "--distill", "6", "--fit", '{"rounds": 2}'],
}
HEADER = "| run | dB | SSIM (7x7) | worse | s a picture | date | commit |\n" + 7 * "| --- " + "|\n"


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    folder = Path(args.output)
    denoiser = trained(args, folder)
    (folder / "denoised").mkdir(parents=True, exist_ok=True)
    pairs = of_scenes(find_pairs(args.noisy, args.clean).pairs, args.scenes)
    results: list[Any] = []

    def denoise(pixels: Any) -> Any:
        results.append(denoiser.denoise(pixels, seed=args.seed, precision=args.precision))
        return results[-1]

    result = evaluate_pairs(pairs, denoise=denoise)
    for pair, pixels in zip(pairs, results, strict=True):  # files that other tools can score
        clean = replace(read_image(pair.image), pixels=pixels, format="png")
        write_image(folder / "denoised" / f"{pair_name(pair.image)}.png", clean)
    report = {
        **result.to_dict(),
        "settings": {key: str(value) for key, value in vars(args).items() if value is not None},
        "training": denoiser.fit_record,
        "machine": machine("cpu"),
    }
    (folder / "results.json").write_text(json.dumps(report, indent=1, default=str))
    if args.row is not None:
        append_row(args, report)
    mean = result.mean
    print(
        f"{len(result.scores)} pictures: {mean['psnr']:.3f} dB, SSIM {mean['ssim']:.4f} (input "
        f"{mean['input_psnr']:.3f} dB, {mean['input_ssim']:.4f}), {mean['seconds']:.2f} s each, "
        f"{len(result.worse)} worse than the input"
    )


def arguments() -> argparse.Namespace:
    """Return the arguments of the command; those of a recipe come before what was given."""
    args = arguments_of(sys.argv[1:])
    if args.recipe is None:
        return args
    return arguments_of([*RECIPES[args.recipe], *sys.argv[1:]])


def arguments_of(line: list[str]) -> argparse.Namespace:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("noisy")
    ask.add_argument("clean")
    ask.add_argument("-o", "--output", required=True)
    ask.add_argument("--recipe", choices=RECIPES, help="a name for some of the arguments below")
    ask.add_argument("--row", type=Path, help="page that a line of the results is appended to")
    ask.add_argument("--backbone", default="fast-unet")
    ask.add_argument("--preset")
    ask.add_argument("--model", help="score this saved model instead of fitting one")
    ask.add_argument("--minutes", type=float)
    last = ask.add_mutually_exclusive_group()
    last.add_argument("--adapt", type=float, help="minutes to adapt --model, a student")
    last.add_argument("--learn-noise", type=float, help="minutes of learn_noise, a new student")
    last.add_argument(
        "--distill", type=float, help="minutes to distill what was fitted, or --model"
    )
    ask.add_argument("--also", nargs="*", default=[], help="more noisy folders to train on")
    ask.add_argument("--unseen", action="store_true", help="train on no picture that is scored")
    ask.add_argument("--steps", type=int)
    ask.add_argument(
        "--fit", default="{}", help='more arguments of the last training: {"crop": 96}'
    )
    ask.add_argument("--denoiser", default="{}", help="more arguments of the denoiser, as JSON")
    ask.add_argument("--precision", default="auto", help="of denoise")
    ask.add_argument("--scenes", choices=("all", "even", "odd"), default="all")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return ask.parse_args(line)


def trained(args: argparse.Namespace, folder: Path) -> AsymmetricMaskDenoiser:
    torch.manual_seed(args.seed)
    scored = {pair.image for pair in find_pairs(args.noisy, args.clean).pairs}
    noisy = [path for path, _ in find_images([args.noisy, *args.also])]
    noisy = [path for path in noisy if not (args.unseen and path in scored)]
    told = {"seed": args.seed, **json.loads(args.fit)}
    if args.adapt or args.learn_noise:
        if args.adapt:
            student = AsymmetricMaskDenoiser.from_pretrained(args.model)
            student.adapt(noisy, minutes=args.adapt, **told)
        else:
            student = AsymmetricMaskDenoiser("fast-student", preset="student")
            student.learn_noise(noisy, minutes=args.learn_noise, **told)
        student.save_pretrained(folder / "model")
        return with_settings(student, args)
    if args.model:
        denoiser = with_settings(AsymmetricMaskDenoiser.from_pretrained(args.model), args)
    else:
        denoiser = AsymmetricMaskDenoiser(args.backbone, preset=args.preset, **settings_of(args))
        budget = {"minutes": args.minutes, "steps": args.steps}
        denoiser.fit(noisy, **budget, **({"seed": args.seed} if args.distill else told))
    if args.distill:
        denoiser = denoiser.distill(noisy, minutes=args.distill, **told)
    if args.distill or not args.model:
        denoiser.save_pretrained(folder / "model")
    return denoiser


def with_settings(denoiser: AsymmetricMaskDenoiser, args: argparse.Namespace) -> Any:
    """Return the denoiser with the settings of --denoiser, for denoising."""
    for name, value in settings_of(args).items():
        setattr(denoiser, "refinement" if name == "refine" else name, value)
    return denoiser


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the denoiser that --denoiser gives; R3 by those of `Refinement`."""
    settings: dict[str, Any] = json.loads(args.denoiser)
    if isinstance(settings.get("refine"), dict):
        settings["refine"] = Refinement(**settings["refine"])
    return settings


def of_scenes(pairs: tuple[Pair, ...], which: str) -> list[Pair]:
    """Return the pairs of all scenes, or of every other scene in the order of their names."""
    scene = {pair: re.sub(r"_+\d+$", "", pair_name(pair.image)) for pair in pairs}
    scenes = sorted(set(scene.values()))
    kept = {"all": scenes, "even": scenes[::2], "odd": scenes[1::2]}[which]
    return [pair for pair in pairs if scene[pair] in kept]


def append_row(args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Append a line of the results to a page, below a header where it does not end with a table."""
    left_out = ("noisy", "clean", "output", "row", "threads", "recipe")
    usual = vars(arguments_of([args.noisy, args.clean, "-o", args.output]))
    run = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in vars(args).items()
        if name not in left_out and value != usual[name]
    ]
    mean, origin = report["mean"], report["machine"]
    cells = (
        f"`{' '.join(run) or 'as it is'}`", f"{mean['psnr']:.2f}", f"{mean['ssim']:.4f}",
        len(report["worse"]), f"{mean['seconds']:.2f}", origin["date"][:10], origin["commit"],
    )  # fmt: skip
    text = args.row.read_text() if args.row.exists() else ""
    table = text.rstrip().rpartition("\n\n")[2].startswith(HEADER)
    text = text.rstrip() + ("\n" if table else f"\n\n{HEADER}")
    args.row.write_text(text.lstrip() + f"| {' | '.join(map(str, cells))} |\n")


if __name__ == "__main__":
    main()

"""The tables and figures of the AMSNet paper, trained here, one command each.

    python benchmarks/paper_tables.py table2 NOISY CLEAN -o runs/table2 --steps 25000
    python benchmarks/paper_tables.py table3 NOISY CLEAN -o runs/table3 --steps 2000 \\
        --arguments '{"width": 32, "blocks": 3}'
    python benchmarks/paper_tables.py fig10 NOISY CLEAN -o runs/fig10 --minutes 5 \\
        --base default --backbone fast-unet

table2: variants B, P, B-E, P-E. table3: the blind-spot network D_A and D_AS, which is not blind,
trained as in AP-BSN and within the mask scheme. table4: five networks. fig9: with and without the
smoothness loss. fig10: mask ratios. fig11: lambda.

All recipes of a table have the same budget and seed, train on NOISY, and are scored on those of its
pictures that have a clean twin in CLEAN ("fitted on the test noise"). The paper trained longer, and
on SIDD: compare the order of its numbers with ours, not their values. --base amsnet uses the
paper's published settings (zero fill, stride 5, then 2); --base default makes the same comparisons
within our recipe (mean fill, correction form, stride 2, then 1), but without the cosine threshold.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from timing import machine

from masked_denoise.compare import Comparison, compare_recipes, write_comparison
from masked_denoise.images import find_images
from masked_denoise.images.pairs import find_pairs
from masked_denoise.recipes import Recipe

Settings = dict[str, Any]

# The paper's numbers on SIDD validation: PSNR / SSIM, PSNR for the figures. Those of fig9 are the
# paper's AMSNet-B and AMSNet-P in Table 1.
PAPER: dict[str, dict[str, str]] = {
    "table2": {
        "B": "36.60 / 0.8551", "P": "36.71 / 0.8519",
        "B-E": "36.73 / 0.8932", "P-E": "37.93 / 0.8948",
    },
    "table3": {
        "AMSNet (D_A)": "37.25 / 0.8871", "AMSNet (D_AS)": "37.11 / 0.8863",
        "AP-BSN (D_A)": "36.74 / 0.8501", "AP-BSN (D_AS)": "20.91 / 0.2447",
    },
    "table4": {
        "restormer": "37.93 / 0.8948", "deamnet": "37.80 / 0.8923", "dncnn": "36.93 / 0.8864",
        "nafnet": "37.10 / 0.8814", "unet": "36.94 / 0.8854",
    },
    "fig9": {"mask loss": "36.60", "then smoothness": "36.71"},
    "fig10": {
        "75 %": "34.12 / 0.8589", "50 %": "37.93 / 0.8948", "25 %": "37.90 / 0.8940",
        "12.5 %": "37.90 / 0.8941", "6.25 %": "35.83 / 0.8817",
    },
    "fig11": {
        "1": "36.40", "0.5": "36.45", "0.2": "36.55", "0.1": "36.71", "0.05": "36.71",
        "0.01": "36.62", "0.001": "36.61", "0.0001": "36.61",
    },
}  # fmt: skip
PAPER_POLYU = {"table2": {"P": "37.47 / 0.9580", "P-E": "37.92 / 0.9645"}}
RATIOS: dict[str, Settings] = {
    "75 %": {"branches": 4, "hide": "others"},
    "50 %": {"branches": 2},
    "25 %": {"branches": 4},
    "12.5 %": {"branches": 8},
    "6.25 %": {"branches": 16},
}
R3 = {"draws": 8, "share": 0.16, "masked": True}
SMOOTH = 0.2  # share of the budget


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    common: Settings = json.loads(args.settings)
    recipes = [
        Recipe(name, {**settings, **common})
        for name, settings in recipes_of(args.table, args).items()
        if not args.only or name in args.only
    ]
    pairs = find_pairs(args.noisy, args.clean).pairs[:: args.every]
    noisy = [pair.image for pair in pairs]
    if not args.scored_only:
        noisy = [file for file, _ in find_images(args.noisy)]
    found = compare_recipes(
        recipes, noisy, pairs=pairs, minutes=args.minutes, steps=args.steps, seed=args.seed,
        models=Path(args.output) / "models" if args.save_models else None, on_outcome=tell,
    )  # fmt: skip
    budget = f"{args.minutes:g} minutes" if args.minutes else f"{args.steps} steps"
    found.settings |= {
        "table": args.table, "base": args.base, "budget": budget, "machine": machine("cpu")
    }  # fmt: skip
    write_comparison(found, args.output)
    text = table(found, args, budget)
    (Path(args.output) / "table.md").write_text(text + "\n")
    print(text)


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("table", choices=PAPER)
    ask.add_argument("noisy"), ask.add_argument("clean")
    ask.add_argument("-o", "--output", required=True)
    budget = ask.add_mutually_exclusive_group(required=True)
    budget.add_argument("--steps", type=int), budget.add_argument("--minutes", type=float)
    ask.add_argument("--base", choices=("amsnet", "default"), default="amsnet")
    ask.add_argument("--backbone", default="restormer", help="but for table3 and table4")
    ask.add_argument(
        "--arguments", default="{}", help="of the network, as JSON; for table4 by networks' names"
    )
    ask.add_argument("--settings", default="{}", help='of every recipe, as JSON: {"crop": 80}')
    ask.add_argument("--only", nargs="*", help="these rows only")
    ask.add_argument("--every", type=int, default=1, help="score every n-th pair only")
    ask.add_argument("--scored-only", action="store_true", help="train on the scored pictures only")
    ask.add_argument("--save-models", action="store_true")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    return ask.parse_args()


def recipes_of(table: str, args: argparse.Namespace) -> dict[str, Settings]:
    """Return the settings of every row of a table, in its order."""
    network = {"backbone": args.backbone, "backbone_args": json.loads(args.arguments)}
    base: Settings = {"preset": "amsnet"}
    if args.base == "default":  # without the step that hides what the networks leave
        base = {"preset": "default", "dct_threshold": 0.0, "observation": 0.15}
    fill = "zero" if args.base == "amsnet" else "mean"
    plain = {**base, **network, "refine": False, "smooth_steps": 0}
    smooth = {**base, **network, "refine": False, "smooth_steps": SMOOTH}
    if table == "table2":
        return {
            "B": plain, "P": smooth, "B-E": {**plain, "refine": R3}, "P-E": {**smooth, "refine": R3}
        }  # fmt: skip
    if table == "table3":
        return table3(base, network["backbone_args"])
    if table == "table4":
        each = network["backbone_args"]
        return {
            name: {
                **base, "backbone": name, "backbone_args": each.get(name, {}),
                "refine": R3, "smooth_steps": SMOOTH,
            }
            for name in PAPER["table4"]
        }  # fmt: skip
    if table == "fig9":
        return {"mask loss": plain, "then smoothness": smooth}
    if table == "fig10":
        masks = {
            name: {"scheme": {"name": "random", "fill": fill, **more}}
            for name, more in RATIOS.items()
        }
        return {name: {**smooth, "refine": R3, **one} for name, one in masks.items()}
    return {name: {**smooth, "smoothness": float(name)} for name in PAPER["fig11"]}


def table3(base: Settings, arguments: Settings) -> dict[str, Settings]:
    """Return D_A and D_AS inside the mask scheme, and trained as AP-BSN does: nothing is hidden."""
    apbsn: Settings = {"scheme": "nothing", "refine": {**R3, "masked": False}, "residual": False}
    return {
        f"{frame} ({name})": {
            **base, "backbone": "dbsn", "backbone_args": {**arguments, "dilated": name == "D_A"},
            **more,
        }
        for frame, more in (("AMSNet", {"refine": R3}), ("AP-BSN", apbsn))
        for name in ("D_A", "D_AS")
    }  # fmt: skip


def tell(so_far: Comparison) -> None:
    outcome = so_far.outcomes[-1]
    print(f"{outcome.recipe}: {outcome.failed or outcome.numbers}", flush=True)


def table(found: Comparison, args: argparse.Namespace, budget: str) -> str:
    """Return the numbers as a Markdown table with the paper's beside them."""
    polyu = PAPER_POLYU.get(args.table, {})
    head = [args.table, "PSNR / SSIM", "gain to the first (95 %)", "to input dB"]
    head += ["paper, SIDD validation", *(["paper, PolyU"] if polyu else []), "steps", "training s"]
    lines = [head, ["---"] * len(head)]
    for one in found.outcomes:
        n = one.numbers
        if one.failed is not None:
            lines.append([one.recipe, f"failed: {one.failed}", *[""] * (len(head) - 2)])
            continue
        if len(lines) == 2:
            before = f"{n['input_psnr']:.2f} / {n['input_ssim']:.4f}"
            lines.append(["input", before, *[""] * (len(head) - 2)])
        gain = "-"
        if "gain" in n:
            gain = f"{n['gain']:+.2f} ({n['gain_low']:+.2f} to {n['gain_high']:+.2f})"
        cells = [one.recipe, f"{n['psnr']:.2f} / {n['ssim']:.4f}", gain]
        cells += [f"{n['psnr_to_input']:.1f}", PAPER[args.table].get(one.recipe, "-")]
        cells += [polyu.get(one.recipe, "-")] if polyu else []
        cells += [f"{n['steps']:.0f}", f"as {one.shared}" if one.shared else ""]
        cells[-1] = cells[-1] or f"{n['training_seconds']:.0f}"
        lines.append(cells)
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    backbone = "" if args.table in ("table3", "table4") else f", {args.backbone}"
    return (
        f"{rows}\n\nBudget of each: {budget}, seed {args.seed}; base {args.base}{backbone}; "
        f"{found.settings['trained_on']} noisy pictures trained on, {found.settings['scored']} "
        f"scored, fitted on the test noise. Scores: {found.convention}."
    )


if __name__ == "__main__":
    main()

"""Writes the tables of docs/backbones.md and docs/pretrained.md from what the library says.

`python docs/tables.py` puts them in place; with `--check` it only tells which are stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from masked_denoise import list_backbones
from masked_denoise.backbones import backbone_info
from masked_denoise.backbones.cost import cost, count_parameters
from masked_denoise.pretrained.table import PRETRAINED

DOCS = Path(__file__).parent


def backbones() -> str:
    """Return the table of the networks that come with the package."""
    rows = []
    for name in list_backbones():
        info = backbone_info(name)
        if not info.build.__module__.startswith("masked_denoise."):
            continue
        spent = cost(name)
        rows.append(
            [
                f"`{name}`",
                f"{spent.parameters / 1e6:.2f} M",
                str(info.size_multiple),
                "yes" if info.global_skip else "no",
                info.license,
                f"{spent.macs_per_pixel / 1000:.0f} k",
                "yes" if any(one.backbone == name for one in PRETRAINED.values()) else "no",
                info.source,
            ]
        )
    heads = "name, parameters, size multiple, global skip, licence of the code, multiply-adds a "
    return table((heads + "pixel, published weights, source").split(", "), rows)


def pretrained() -> str:
    """Return the table of the named models."""
    rows = [
        [
            f"`{model.name}`",
            f"`{model.backbone}`",
            f"{count_parameters(model.backbone, **model.arguments) / 1e6:.2f} M",
            f"{model.paper_psnr:.2f} / {model.paper_ssim:.4f}",
            f"{model.file_psnr:.2f}",
            f"`{model.file}`",
        ]
        for model in PRETRAINED.values()
    ]
    heads = ["name", "network", "parameters", "Table 4: PSNR / SSIM", "file: PSNR", "original file"]
    return table(heads, rows)


def licences() -> str:
    """Return what is known of the licence of each named model."""
    rows = [[f"`{model.name}`", model.license, model.license_note] for model in PRETRAINED.values()]
    return table(["name", "licence", "what is known"], rows)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "backbones.md": {"backbones": backbones},
    "pretrained.md": {"pretrained": pretrained, "licences": licences},
}


def rewritten(page: str) -> str:
    """Return the text of a page with its tables made anew."""
    text = (DOCS / page).read_text("utf-8")
    for name, make in TABLES[page].items():
        place = re.compile(
            rf"(<!-- table {name}: written by docs/tables.py -->\n).*?(<!-- end -->)", re.DOTALL
        )
        made = f"\n{make()}\n\n".replace("\\", r"\\")
        text, count = place.subn(rf"\g<1>{made}\g<2>", text)
        if count != 1:
            raise SystemExit(f"docs/{page} has {count} places for the table '{name}', not one")
    return text


def main(check: bool) -> int:
    """Write the tables, or tell which are stale; return the exit code."""
    stale = [page for page in TABLES if rewritten(page) != (DOCS / page).read_text("utf-8")]
    for page in stale:
        print(f"docs/{page} {'is stale: python docs/tables.py' if check else 'written'}")
        if not check:
            (DOCS / page).write_text(rewritten(page), "utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))

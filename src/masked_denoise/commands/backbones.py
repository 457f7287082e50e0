"""`masked-denoise backbones`: the available networks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options
from .terminal import Terminal, plain

HELP = """List the networks that --backbone takes: their size, cost and requirements.

MAC/pixel: multiply-adds of one pass, per pixel. Sides: the multiple that height and width are
padded to. Skip: whether the network adds its input to its output. PATTERN is a name; * stands for
any characters."""

EXAMPLES = options.examples(
    "masked-denoise backbones",
    'masked-denoise backbones "*unet*" --channels 1',
    "masked-denoise backbones timm:convnext_atto",
    "masked-denoise backbones --json",
)


def backbones(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", show_default=False)] = "*",
    channels: Annotated[int, typer.Option(min=1, help="Channels of the pictures.")] = 3,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List networks; users read `HELP`."""
    from ..backbones import list_backbones
    from ..errors import unknown_name

    names = list_backbones(pattern)
    if not names and ":" in pattern:  # "timm:resnet18", say
        names = [pattern]
    if not names:
        raise unknown_name("backbone", pattern, list_backbones())
    found = [_facts(name, channels) for name in names]
    if json_output:
        options.print_json(found)
        return
    from rich.table import Table

    table = Table("name", "params", "MAC/pixel", "sides", "skip", "licence", "weights")
    for column in table.columns:
        column.overflow = "fold"
    for column in table.columns[1:4]:
        column.justify = "right"
    for facts in found:
        cells = (
            facts["name"],
            f"{facts['parameters'] / 1e6:.2f} M",
            f"{facts['macs_per_pixel'] / 1000:.0f} k",
            f"x {facts['size_multiple'] or '?'}",
            {True: "yes", False: "no", None: "?"}[facts["global_skip"]],
            facts["license"],
            "yes" if facts["weights"] else "-",
        )
        table.add_row(*map(plain, cells))
    terminal = Terminal()
    terminal.show(table)
    for facts in found:
        weights = f"; weights: {', '.join(facts['weights'])}" if facts["weights"] else ""
        terminal.say(f"[bold]{plain(facts['name'])}[/bold]: {plain(facts['note'] + weights)}")


def _facts(name: str, channels: int) -> dict[str, Any]:
    """Return what is known of a backbone, as plain values."""
    from ..backbones import backbone_info
    from ..backbones.cost import cost
    from ..pretrained.table import PRETRAINED

    info, spent = backbone_info(name), cost(name, channels=channels)
    return {
        "name": name,
        "parameters": spent.parameters,
        "macs_per_pixel": spent.macs_per_pixel,
        "size_multiple": info.size_multiple,
        "global_skip": info.global_skip,
        "blind": info.blind,
        "license": info.license,
        "weights": [model.name for model in PRETRAINED.values() if model.backbone == name],
        "source": info.source,
        "note": info.note,
    }

"""`masked-denoise backbones`: the networks there are."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .terminal import Terminal, plain

HELP = "List the networks that --backbone takes."

EXAMPLES = options.examples("masked-denoise backbones", "masked-denoise backbones --channels 1")


def backbones(
    channels: Annotated[int, typer.Option(min=1, help="Of the pictures.")] = 3,
) -> None:
    """List networks; users read `HELP`."""
    import torch
    from rich.table import Table

    from ..backbones import backbone_info, create_backbone, list_backbones

    table = Table("name", "parameters", "size multiple", "licence", "note")
    for column in table.columns[1:3]:
        column.justify = "right"
    for name in list_backbones():
        info = backbone_info(name)
        with torch.device("meta"):
            network = create_backbone(name, channels=channels)
        parameters = sum(weight.numel() for weight in network.parameters())
        cells = (f"{parameters / 1e6:.2f} M", str(info.size_multiple), info.license, info.note)
        table.add_row(plain(name), *map(plain, cells))
    Terminal().show(table)

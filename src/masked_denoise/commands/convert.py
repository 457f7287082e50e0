"""`masked-denoise convert`: the published weights as a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .terminal import Terminal, plain

HELP = """Turn a checkpoint published by the paper's authors into a model for `denoise --model`.

The network is recognised from the file, and no code in the file is run. `masked-denoise models`
lists the published files, and where to get them."""

EXAMPLES = options.examples(
    "masked-denoise convert restormer-sidd-val_avg_psnr=37.92.ckpt -o amsnet-restormer",
    "masked-denoise convert unet.ckpt -o unet/ --push me/amsnet-unet",
)


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The published file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the model.")
    ],
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Also upload it to this repository of the Hub."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Licence of the weights.  \\[default: what is known]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that is there.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert a checkpoint; users read `HELP`."""
    from ..denoiser import from_pretrained
    from ..pretrained.convert import read_checkpoint, write_converted
    from ..pretrained.place import HUB, find_place

    terminal = Terminal(quiet)
    options.check_new_folder(output, "--output", overwrite)
    if push is not None:
        find_place(HUB + push.removeprefix(HUB))  # raises unless it names a repository
    found = read_checkpoint(checkpoint)
    write_converted(found, output, license=license, overwrite=overwrite)
    network, model = found.network, found.published
    sizes = ", ".join(f"{key}={value}" for key, value in network.arguments.items())
    terminal.say(f"{plain(checkpoint)} is a [bold]{network.backbone}[/bold] ({plain(sizes)})")
    for what in found.left_out:
        terminal.say(f"left out: {plain(what)}")
    if model is not None:
        terminal.say(f"It is the published {model.name}; licence: {plain(model.license_note)}")
    terminal.say(f"[green]Model:[/green] {plain(output)}")
    if push is not None:
        if license is None:
            terminal.warn(
                "you publish weights whose licence is not stated; --license NAME states it"
            )
        url = from_pretrained(output).push_to_hub(push)
        terminal.say(f"[green]On the Hub:[/green] {plain(url)}")
    terminal.say(f"Use it: masked-denoise denoise photos/ -o clean/ --model {plain(output)}")

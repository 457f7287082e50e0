"""`masked-denoise models`: the models that have a name, and where to get them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options
from .terminal import Terminal, plain

HELP = """List the models that have a name: what they are, their published scores, and where to get
them.

PSNR (dB) and SSIM are those of SIDD validation as published: in the paper's Table 4, then in the
name of the file. No connection is made without --online."""

EXAMPLES = options.examples(
    "masked-denoise models", "masked-denoise models --online", "masked-denoise models --json"
)


def models(
    online: Annotated[bool, typer.Option("--online", help="Also ask the Hub.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List models; users read `HELP`."""
    from ..pretrained.shipped import SHIPPED
    from ..pretrained.table import PRETRAINED

    terminal = Terminal()
    found = [_facts(model, online) for model in PRETRAINED.values()]
    ours = [_shipped_facts(model) for model in SHIPPED.values()]
    if json_output:
        options.print_json([*ours, *found])
        return
    from rich.table import Table

    table = Table("name", "params", "licence", "PSNR/SSIM", "file", "where")
    table.columns[0].no_wrap = True
    for facts in found:
        numbers = facts["published"]
        table.add_row(
            *map(plain, (facts["name"], f"{facts['parameters'] / 1e6:.1f} M", facts["license"])),
            f"{numbers['paper_psnr']:.2f}/{numbers['paper_ssim']:.4f}",
            f"{numbers['file_psnr']:.2f}",
            plain(facts["where"]),
        )
    for facts in ours:
        terminal.say(
            f"[cyan]{plain(facts['name'])}[/cyan] comes with the package, for "
            f"{plain(facts['note'])}: {facts['parameters'] / 1e6:.1f} M, {facts['license']}."
        )
    terminal.show(table)
    if not all(facts["cached"] for facts in found):
        terminal.say(
            "To convert one, download the file published by the authors of the paper, and run"
        )
        for facts in found:
            if not facts["cached"]:
                terminal.say(f"  [cyan]{plain(facts['convert'])}[/cyan]")
        for source in dict.fromkeys(facts["source"] for facts in found):
            terminal.say(f"The readme of {plain(source)} has links to the files.")


def _shipped_facts(model: Any) -> dict[str, Any]:
    """Return what is known of a bundled model, as plain values."""
    from ..backbones.cost import count_parameters

    return {
        "name": model.name,
        "backbone": model.backbone,
        "parameters": count_parameters(model.backbone),
        "license": model.license,
        "training_data": model.training_data,
        "note": model.note,
        "where": "shipped",
    }


def _facts(model: Any, online: bool) -> dict[str, Any]:
    """Return what is known of a model, as plain values."""
    from ..backbones.cost import count_parameters
    from ..pretrained.availability import availability

    where = availability(model, online=online)
    return {
        "name": model.name,
        "backbone": model.backbone,
        "arguments": dict(model.arguments),
        "parameters": count_parameters(model.backbone, **model.arguments),
        "license": model.license,
        "license_note": model.license_note,
        "published": {
            "paper_psnr": model.paper_psnr,
            "paper_ssim": model.paper_ssim,
            "file_psnr": model.file_psnr,
        },
        "repository": model.repository,
        "revision": model.revision,
        "sha256": model.sha256,
        "source": model.source,
        "file": model.file,
        "convert": model.convert_command(),
        **where._asdict(),
        "where": where.words(),
    }

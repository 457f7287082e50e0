"""`masked-denoise demo`: the sample pictures denoised, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .terminal import Terminal, duration, plain

HELP = """Denoise the two sample pictures that come with the package, and show both versions.

It uses camera-small, the model of the package, which was never trained on them; with --fit a
model is fitted on the noisy samples alone. The clean samples only measure the result."""

EXAMPLES = options.examples("masked-denoise demo", "masked-denoise demo -o look/ --fit 2")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the pictures.")
    ] = Path("masked-denoise-demo"),
    minutes: Annotated[
        float | None,
        typer.Option(
            "--fit", metavar="MINUTES", min=0.001, help="Fit a model on the samples, for this long."
        ),
    ] = None,
    fit_steps: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Denoise the samples; users read `HELP`."""
    from ..jobs.demo import run_demo

    terminal = Terminal(quiet)
    result = run_demo(
        output, minutes=minutes, steps=fit_steps, seed=seed,
        device=options.choose_device(device), progress=not quiet, tell=terminal.note,
    )  # fmt: skip
    for sample in result.samples:
        (before, after), (ssim_before, ssim_after) = sample.psnr, sample.ssim
        terminal.say(
            f"{sample.name}: PSNR {before:.2f} -> [bold]{after:.2f}[/bold] dB, SSIM "
            f"{ssim_before:.3f} -> [bold]{ssim_after:.3f}[/bold] ({plain(sample.path)})"
        )
    terminal.say(f"[green]Look at[/green] {plain(result.picture)}")
    terminal.say(f"[green]Or, with a slider:[/green] {plain(result.report)}")
    terminal.note(f"in {duration(result.seconds)}")

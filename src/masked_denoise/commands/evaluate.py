"""`masked-denoise evaluate`: PSNR and SSIM against clean pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .job import load_models
from .terminal import Terminal, number, plain

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluate import Denoise, Evaluation

HELP = """Score pictures against clean ones of the same names, as they are or denoised first.

Names are compared without extension and without _real, _mean, _noisy, _clean or _gt at their end.
Both pictures are rounded to 8 bits. SSIM uses the uniform 7x7 window, where papers often use the
Gaussian 11x11. The mean is taken over pictures."""

EXAMPLES = options.examples(
    "masked-denoise evaluate results/ clean/",
    "masked-denoise evaluate noisy/ clean/ --model mine/ --json scores.json",
)


def evaluate(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A file or folder to score.")],
    clean: Annotated[Path, typer.Argument(metavar="CLEAN", help="Clean pictures.")],
    model: options.Model = None,
    passes: options.Passes = None,
    strength: options.Strength = 1.0,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="BLACK WHITE",
            help="Range of floats, or of integers of more than 8 bits.  "
            "\\[default: 0 1, or that of the type]",
        ),
    ] = None,
    json_file: options.Json = None,
    overwrite: options.Overwrite = False,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Score pictures; users read `HELP`."""
    from ..evaluate import evaluate_pairs
    from ..images.pairs import find_pairs
    from ..values import CountRange, channels_of

    terminal = Terminal(quiet)
    options.check_new_file(json_file, "--json", overwrite)
    if value_range is not None and not value_range[1] > value_range[0]:
        raise typer.BadParameter(f"--value-range is {value_range}; give black and a larger white")
    if value_range is not None and value_range[1] > 255:  # no integers of 16 bits have less
        value_range = CountRange(*value_range)
    pairing = find_pairs(images, clean)
    terminal.warn_files(pairing.unpaired_images, "no clean picture for")
    terminal.warn_files(pairing.unpaired_clean, "no picture to score for")
    run: Denoise | None = None
    if model is not None:
        models = load_models(model, options.choose_device(device))
        usual = next(iter(models.values()))
        value_range = value_range or usual.value_range

        def denoise(pixels: Any) -> Any:
            denoiser = models.get(channels_of(pixels), usual)
            return denoiser.denoise(pixels, passes=passes, seed=seed, strength=strength)

        run = denoise
    with terminal.track("scoring", len(pairing.pairs)) as advance:
        found = evaluate_pairs(
            pairing.pairs, denoise=run, value_range=value_range, on_score=advance
        )
    terminal.failed(found.failures)
    _tell(terminal, found)
    if json_file is not None:
        unpaired = {"images": pairing.unpaired_images, "clean": pairing.unpaired_clean}
        told = {side: [str(path) for path in paths] for side, paths in unpaired.items()}
        options.write_json(json_file, {**found.to_dict(), "unpaired": told})
    if found.failures:
        raise typer.Exit(1)


def _tell(terminal: Terminal, found: Evaluation) -> None:
    """Print the table, the convention, and which pictures denoising made worse."""
    if not found.scores:
        terminal.error("no picture could be scored")
        return
    terminal.show(_table(found))
    terminal.say(f"[dim]{found.convention}[/dim]")
    if found.scores[0].input_psnr is not None:
        worse = found.worse
        names = f": {', '.join(map(plain, worse))}" if worse else ""
        terminal.say(f"{len(worse)} of {len(found.scores)} worse than the input{names}")


def _table(found: Evaluation) -> Table:
    from rich.table import Table

    denoised = found.scores[0].input_psnr is not None
    columns = [("psnr", "PSNR dB", 2), ("ssim", "SSIM", 4)]
    if denoised:
        columns = [
            ("input_psnr", "input dB", 2), *columns[:1], ("input_ssim", "input SSIM", 4),
            *columns[1:], ("seconds", "seconds", 1),
        ]  # fmt: skip
    table = Table(show_footer=True)
    table.add_column("picture", footer="mean", overflow="fold")
    for key, head, digits in columns:
        table.add_column(head, justify="right", footer=number(found.mean[key], digits))
    for score in found.scores:
        cells = [number(getattr(score, key), digits) for key, _, digits in columns]
        table.add_row(plain(score.name), *cells)
    return table

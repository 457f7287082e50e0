"""`masked-denoise compare`: recipes trained with the same budget, and their scores in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .options import FITTING
from .terminal import Terminal, counted, number, plain

if TYPE_CHECKING:
    from rich.table import Table

    from ..compare import Comparison
    from ..images.pairs import Pair
    from ..recipes import Recipe

HELP = """Train several recipes on the same noisy pictures with the same budget, and compare them.

A recipe is a preset, a preset with another network (amsnet:dncnn), or a table of a .toml or .json
file. With --clean they are scored by PSNR and SSIM, else by how well withheld noisy pixels are
predicted. Recipes that differ only in inference share one training run. OUTPUT receives
results.json, results.csv and crops.png."""

EXAMPLES = options.examples(
    "masked-denoise compare noisy/ -o look/ --recipe default --recipe amsnet-p --minutes 2",
    "masked-denoise compare noisy/ -o look/ --recipes mine.toml --steps 2000 --clean clean/",
)

MINUTES = 2.0


def compare(
    noisy: Annotated[
        list[Path], typer.Argument(metavar="NOISY", help="Files and folders to train on.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUTPUT", help="Folder for the results.")
    ],
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", rich_help_panel=FITTING,
            help="A preset, or PRESET:BACKBONE; may be given several times.",
        ),
    ] = None,
    recipes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recipes, .toml or .json.", rich_help_panel=FITTING),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.001, help="Budget of each recipe.  \\[default: 2]")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Budget in steps, instead.")] = None,
    clean: Annotated[
        Path | None, typer.Option(metavar="CLEAN", help="Clean pictures to score against.")
    ] = None,
    score: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Noisy pictures to score.  \\[default: NOISY]"),
    ] = None,
    save_models: Annotated[
        bool, typer.Option("--save-models", help="Keep the models, in OUTPUT/models.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results that are there.")
    ] = False,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Compare recipes; users read `HELP`."""
    from ..compare import compare_recipes, write_comparison
    from ..images import find_images

    terminal = Terminal(quiet)
    if minutes is not None and steps is not None:
        raise typer.BadParameter("give one of --minutes and --steps")
    if minutes is None and steps is None:
        minutes = MINUTES
    chosen = _recipes(recipe or [], recipes)
    where = options.choose_device(device)
    options.check_new_folder(output, "--output", overwrite)
    files = [file for file, _ in find_images(noisy)]
    pairs = _pairs(terminal, noisy, score, clean)
    budget = f"{minutes:g} minutes" if steps is None else f"{steps} steps"
    what = f"{counted(chosen, 'recipe')}, {budget} each, {counted(files, 'picture')}"
    terminal.note(f"{what}, {where}")

    def told(so_far: Comparison) -> None:
        newest = so_far.outcomes[-1]
        if newest.failed is not None:
            terminal.failed([f"{newest.recipe}: {newest.failed}"])
        write_comparison(so_far, output)  # a killed run loses nothing

    found = compare_recipes(
        chosen, files, pairs=pairs, minutes=minutes, steps=steps, seed=seed, device=where,
        progress=not quiet, models=output / "models" if save_models else None, on_outcome=told,
    )  # fmt: skip
    if not found.outcomes:  # Ctrl-C before the first was done
        raise KeyboardInterrupt
    terminal.show(_table(found, terminal.width))
    terminal.say(f"[dim]{budget} each; {found.convention}[/dim]")
    terminal.say(f"[green]Results:[/green] {plain(output)} (results.json, results.csv, crops.png)")
    if found.interrupted:
        raise KeyboardInterrupt
    if any(one.failed is not None for one in found.outcomes):
        raise typer.Exit(1)


def _recipes(names: list[str], path: Path | None) -> list[Recipe]:
    from ..recipes import preset_recipe, read_recipes

    chosen = [preset_recipe(name) for name in names] + (read_recipes(path) if path else [])
    if not chosen:
        raise typer.BadParameter("give the recipes: --recipe default --recipe amsnet, or --recipes")
    return chosen


def _pairs(
    terminal: Terminal, noisy: list[Path], score: Path | None, clean: Path | None
) -> list[Pair]:
    """Return the pairs to score; none if there are no clean pictures."""
    from ..images.pairs import find_pairs

    if clean is None:
        if score is not None:
            raise typer.BadParameter("--score needs --clean, the clean pictures of the same names")
        return []
    if score is None and len(noisy) > 1:
        raise typer.BadParameter("with several NOISY inputs, name the one to score: --score FOLDER")
    pairing = find_pairs(score or noisy[0], clean)
    terminal.warn_files(pairing.unpaired_clean, "nothing to score for")
    return list(pairing.pairs)


_NAMES = 24  # characters of a recipe's name that columns leave room for
_COLUMNS = (
    ("psnr", "PSNR dB", 2), ("ssim", "SSIM", 4), ("gain", "gain dB", 2), ("worse", "worse", 0),
    ("psnr_to_input", "to input dB", 1), ("masked", "masked dB", 2), ("parameters", "weights", 0),
    ("steps", "steps", 0), ("training_seconds", "training s", 0), ("seconds", "s each", 2),
)  # fmt: skip


def _table(found: Comparison, width: int) -> Table:
    """Return a table of all recipes; on a narrow terminal, of the numbers that matter most."""
    from rich.table import Table

    columns = [one for one in _COLUMNS if any(one[0] in row.numbers for row in found.outcomes)]
    longest = min(max(len(row.recipe) for row in found.outcomes), _NAMES)
    while columns and longest + 4 + sum(max(len(head), 7) + 3 for _, head, _ in columns) > width:
        columns.pop()
    table = Table()
    table.add_column("recipe", overflow="fold")
    for _, head, _ in columns:
        table.add_column(head, justify="right", no_wrap=True)
    before = next((row.numbers for row in found.outcomes if "input_psnr" in row.numbers), None)
    if before is not None:
        cells = {"psnr": number(before["input_psnr"], 2), "ssim": number(before["input_ssim"], 4)}
        table.add_row("[dim]input[/dim]", *(cells.get(key, "") for key, _, _ in columns))
    for row in found.outcomes:
        name = plain(row.recipe) + (" [red](failed)[/red]" if row.failed else "")
        table.add_row(name, *(number(row.numbers.get(key), digits) for key, _, digits in columns))
    return table

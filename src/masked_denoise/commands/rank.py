"""`masked-denoise rank`: which model is best for noisy pictures, without clean ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .job import load_models
from .learning import pictures_alike
from .terminal import Terminal, number, plain

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser
    from ..training.ranking import Rank

HELP = """Rank models by how well they denoise pictures such as these; no clean one is needed.

The pictures are denoised by camera-small and reduced in size; camera noise of the level that they
had is simulated on them, and the models are scored by the PSNR of their results. Differences of
less than about 0.1 dB are not meaningful."""

EXAMPLES = options.examples(
    "masked-denoise rank noisy/ camera-small mine/",
    "masked-denoise rank noisy/ mine/ runs/first runs/second --json ranks.json",
)


def rank(
    noisy: Annotated[
        Path, typer.Argument(metavar="NOISY", help="A noisy picture, or a folder of such.")
    ],
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Folders of models, or names; see `models`."),
    ],
    json_file: options.Json = None,
    overwrite: options.Overwrite = False,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Rank models; users read `HELP`."""
    from ..errors import DataError, SettingError
    from ..images import find_images
    from ..jobs.models import is_for_shipped
    from ..jobs.survey import by_kind
    from ..pretrained.shipped import DEFAULT_MODEL
    from ..training.ranking import rank_models

    terminal = Terminal(quiet)
    options.check_new_file(json_file, "--json", overwrite)
    pictures, failures = pictures_alike(terminal, [file for file, _ in find_images(noisy)])
    terminal.failed(failures)
    where = options.choose_device(device)
    odd = [group for kind, group in by_kind(pictures).items() if not is_for_shipped(kind)]
    if odd:
        raise DataError(
            f"{odd[0][0].path} and pictures like it are floats, or integers that do not use "
            f"their scale, and {DEFAULT_MODEL} cannot clean them for the test; use "
            "`masked-denoise compare`"
        )
    loaded, channels = {}, pictures[0].channels
    for name in models:
        fitting = load_models(name, where)
        if channels not in fitting:
            raise SettingError(
                f"{name} is for {next(iter(fitting))} channels, the pictures have {channels}; "
                "leave it out"
            )
        loaded[name] = fitting[channels]
    files = [picture.path for picture in pictures if picture.finite]
    terminal.note(f"ranking {len(loaded)} models on {len(files)} pictures, {where}")
    ranks = rank_models(loaded, files, seed=seed)
    _tell(terminal, ranks)
    _warn_of_favour(terminal, loaded)
    if json_file is not None:
        options.write_json(json_file, {"ranks": [asdict(one) for one in ranks]})
    if failures:
        raise typer.Exit(1)


def _warn_of_favour(terminal: Terminal, models: Mapping[str, AsymmetricMaskDenoiser]) -> None:
    """Warn of models trained on simulated noise, such as the test is made with."""
    taught = [name for name, model in models.items() if "learn_noise" in model.fit_record]
    if taught and len(models) > 1:
        terminal.warn(
            f"learnt from simulated noise, as the test has it: {', '.join(map(plain, taught))}; "
            "the score favours such a model, most of all on the pictures that it learnt from"
        )


def _tell(terminal: Terminal, ranks: list[Rank]) -> None:
    from rich.table import Table

    table = Table("model")
    for head in ("simulated dB", "gain dB"):
        table.add_column(head, justify="right")
    for one in ranks:
        table.add_row(plain(one.name), number(one.psnr, 2), number(one.gain, 2))
    terminal.show(table)
    for one in ranks:
        if not one.helps:
            terminal.warn(
                f"{one.name} does not improve such pictures with simulated noise; look at what it "
                "makes of some before you use it for them"
            )

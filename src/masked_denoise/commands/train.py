"""`masked-denoise train`: a model from noisy pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .learning import finish_run, pictures_alike, validation_pairs
from .options import FITTING, setting
from .terminal import Terminal, counted

if TYPE_CHECKING:
    from ..jobs.survey import Failure, Picture

HELP = """Train a model on noisy pictures alone, to be used with `denoise --model`.

All pictures must have the same number of channels. Ctrl-C keeps the model trained so far, and
--resume continues it. Give one of --minutes (default 5), --steps and --epochs."""

EXAMPLES = options.examples(
    "masked-denoise train noisy/ -o mine/ --minutes 20",
    "masked-denoise train noisy/ -o mine/ --minutes 20 --resume",
    "masked-denoise train noisy/ -o paper/ --preset amsnet --backbone unet --device cuda",
    "masked-denoise train noisy/ -o mine/ --validation-noisy dev/ --validation-clean dev_clean/",
)

MINUTES = 5.0


def train(
    noisy: options.Noisy,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="Folder for the model.")
    ],
    minutes: options.Minutes = None,
    steps: options.Steps = None,
    epochs: Annotated[float | None, typer.Option(min=0.001, help="Budget in data passes.")] = None,
    resume: options.Resume = False,
    overwrite: options.ReplaceModel = False,
    backbone: options.Backbone = None,
    preset: options.Preset = None,
    train_stride: Annotated[
        list[int] | None,
        setting("Stride in training; if repeated, one is drawn for each step.", min=1),
    ] = None,
    stride: Annotated[int | None, setting("Stride when denoising.", min=1)] = None,
    batch_size: options.BatchSize = None,
    crop: options.Crop = None,
    learning_rate: options.LearningRate = None,
    smooth_steps: Annotated[
        float | None,
        setting("Share of the budget, or steps, that add the smoothness loss.", min=0),
    ] = None,
    accumulate: Annotated[int | None, setting("Batches per optimizer step.", min=1)] = None,
    mixed_precision: Annotated[
        str | None, setting("no, bf16, fp16, or auto: bf16 on CPUs and GPUs that support it.")
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            rich_help_panel=FITTING,
            help="Compile the network: a slow start, then faster steps.",
        ),
    ] = False,
    validation_noisy: options.ValidationNoisy = None,
    validation_clean: options.ValidationClean = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Train a model; users read `HELP`."""
    from ..images import find_images
    from ..jobs.models import new_denoiser

    terminal = Terminal(quiet)
    budgets = [value for value in (minutes, steps, epochs) if value is not None]
    if len(budgets) > 1:
        raise typer.BadParameter("give one of --minutes, --steps and --epochs")
    if not budgets and preset in (None, "default", "independent"):
        minutes = MINUTES
    where = options.choose_device(device)
    if not resume:
        options.check_new_folder(output, "--output", overwrite, "--resume, or --overwrite")
    files = [file for file, _ in find_images(noisy)]
    pictures, failures = pictures_alike(terminal, files)
    channels = pictures[0].channels
    denoiser = new_denoiser(
        backbone or "fast-unet", channels=channels, preset=preset, seed=seed, stride=stride,
        train_stride=train_stride or None,
    )  # fmt: skip
    failures += _too_small(pictures, denoiser.shortest_side)
    terminal.failed(failures)
    bad = {failure.path for failure in failures}
    used = [picture.path for picture in pictures if picture.path not in bad]
    validation = validation_pairs(terminal, validation_noisy, validation_clean, channels)
    terminal.note(f"training {backbone or 'fast-unet'} on {counted(used, 'picture')}, {where}")
    denoiser.fit(
        used, minutes=minutes, steps=steps, epochs=epochs, batch_size=batch_size, crop=crop,
        learning_rate=learning_rate, smooth_steps=smooth_steps, accumulate=accumulate,
        mixed_precision=mixed_precision, compile=compile or None, validation=validation,
        output=output, resume=resume, seed=seed, device=where, progress=not quiet,
    )  # fmt: skip
    finish_run(terminal, output, denoiser.fit_record, failures)


def _too_small(pictures: Sequence[Picture], smallest: int) -> list[Failure]:
    """Return the pictures that are too small for the stride.

    Raises:
        SizeError: all of them are.
    """
    from ..errors import SizeError
    from ..jobs.survey import Failure

    small = [one for one in pictures if min(one.height, one.width) < smallest]
    if len(small) == len(pictures):
        raise SizeError(
            f"all pictures are too small; train_stride needs sides of {smallest} pixels"
        )
    return [
        Failure(one.path, f"it is {one.width} x {one.height} pixels; train_stride needs {smallest}")
        for one in small
    ]

"""`masked-denoise distill`: a fast model from a slow one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .learning import finish_run, pictures_alike, validation_pairs
from .options import DENOISING, setting
from .terminal import Terminal

HELP = """Train a small one-pass model to do what a model does in many passes.

The model denoises the noisy pictures once; a plain network that sees every pixel then learns to
produce these results in one pass. No clean picture is needed. Use it like any model, with
`denoise --model`. Give --minutes (default 5) or --steps as the budget for training; the time for
denoising comes on top."""

EXAMPLES = options.examples(
    "masked-denoise distill noisy/ --model mine/ -o fast/ --minutes 10",
    "masked-denoise distill noisy/ --model amsnet-unet/ -o fast/ --passes 4 --megapixels 8",
)

MINUTES = 5.0


def distill(
    noisy: options.Noisy,
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME", help="The teacher: any model for `denoise`."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="Folder for the student.")
    ],
    minutes: options.Minutes = None,
    steps: options.Steps = None,
    resume: options.Resume = False,
    overwrite: options.ReplaceModel = False,
    student: Annotated[str, setting("The student's network.", metavar="NAME")] = "fast-student",
    rounds: Annotated[
        int, setting("Parts of the budget; before each but the first, targets improve.", min=1)
    ] = 1,
    batch_size: options.BatchSize = None,
    crop: options.Crop = None,
    learning_rate: options.LearningRate = None,
    loss: Annotated[
        str | None, setting("Distance to the teacher's results: psnr (the default), l1 or l2.")
    ] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=DENOISING,
            help="Mask draws that the teacher averages.  \\[default: the model's]",
        ),
    ] = None,
    megapixels: Annotated[
        float,
        typer.Option(
            min=0.001, rich_help_panel=DENOISING,
            help="Most million pixels the teacher denoises; of more, windows are cut.",
        ),
    ] = 32.0,
    validation_noisy: options.ValidationNoisy = None,
    validation_clean: options.ValidationClean = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Distill a model; users read `HELP`."""
    from ..errors import DataError
    from ..images import find_images
    from .job import load_models

    terminal = Terminal(quiet)
    if minutes is not None and steps is not None:
        raise typer.BadParameter("give one of --minutes and --steps")
    where = options.choose_device(device)
    if not resume:
        options.check_new_folder(output, "--output", overwrite, "--resume, or --overwrite")
    teachers = load_models(model, where)
    pictures, failures = pictures_alike(terminal, [file for file, _ in find_images(noisy)])
    terminal.failed(failures)
    teacher = teachers.get(pictures[0].channels)
    if teacher is None:
        raise DataError(
            f"the pictures, such as {pictures[0].path}, have {pictures[0].channels} channels, the "
            f"model {model} takes {next(iter(teachers))}; give others, or another --model"
        )
    validation = validation_pairs(terminal, validation_noisy, validation_clean, teacher.channels)
    terminal.note(f"teaching {student} on {len(pictures)} pictures, {where}")
    made = teacher.distill(
        [picture.path for picture in pictures], student=student, steps=steps,
        minutes=None if steps else minutes or MINUTES, passes=passes, rounds=rounds,
        megapixels=megapixels, batch_size=batch_size, crop=crop, learning_rate=learning_rate,
        loss=loss, validation=validation, output=output, resume=resume, seed=seed, device=where,
        progress=not quiet,
    )  # fmt: skip
    finish_run(terminal, output, made.fit_record, failures)

"""Options that several commands share, and the devices they may name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

FITTING, OUTPUT, DENOISING, VALIDATION = "Fitting", "Output", "Denoising", "Validation"


def setting(text: str, **more: Any) -> Any:
    """Return an option for training, which help shows in a panel of its own."""
    return typer.Option(help=text, rich_help_panel=FITTING, **more)


Noisy = Annotated[list[Path], typer.Argument(metavar="NOISY", help="Files and folders.")]
Minutes = Annotated[float | None, typer.Option(min=0.001, help="Budget in minutes.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Budget in steps.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in MODEL, if there is one.")
]
ReplaceModel = Annotated[bool, typer.Option("--overwrite", help="Replace the model that is there.")]
BatchSize = Annotated[int | None, setting("Crops per step.", min=1)]
Crop = Annotated[int | None, setting("Longest side of a crop, in pixels.", min=1)]
LearningRate = Annotated[float | None, setting("Peak learning rate.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda or mps.  \\[default: the fastest available]"),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="PRECISION", help="Precision of the network: float32, bf16, fp16, or auto: bf16 on "
        "a GPU that supports it, else float32. bf16 is faster on CPUs that support it, too.",
        rich_help_panel=DENOISING,
    ),
]  # fmt: skip
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=OUTPUT)
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", dir_okay=False, help="Write the numbers as JSON."),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The network; `masked-denoise backbones` lists them.",
        rich_help_panel=FITTING,
    ),
]  # fmt: skip
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A recipe: default; independent, for the noise of microscopes; or "
        "amsnet, the paper's.  \\[default: chosen by the measured noise]",
        rich_help_panel=FITTING,
    ),
]  # fmt: skip
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="NAME", help="A model: a folder that `train`, `distill` or "
        "--save-model wrote, a name from `masked-denoise models`, or owner/name on the Hub.",
    ),
]  # fmt: skip
Passes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Mask draws to average; for camera-small, orientations (up to 8). More take longer.  "
        "\\[default: the model's]",
        rich_help_panel=DENOISING,
    ),
]  # fmt: skip
Strength = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="1 for the full effect, 0 for the input.", rich_help_panel=DENOISING
    ),
]
ValidationNoisy = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Noisy pictures to score.", rich_help_panel=VALIDATION),
]
ValidationClean = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Clean pictures of the same names; the weights with the best "
        "PSNR are kept.", rich_help_panel=VALIDATION,
    ),
]  # fmt: skip


def paragraphs(text: str) -> str:
    """Return a text with each paragraph in one line, for the terminal to wrap."""
    return "\n\n".join(" ".join(part.split("\n")) for part in text.split("\n\n"))


def examples(*lines: str) -> str:
    """Return the examples at the end of a command's help."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[cyan]{line}[/cyan]" for line in lines)])


def choose_device(name: str | None) -> str:
    """Return an available device: the one named, else the best.

    Raises:
        SettingError: it is not a device, or not available.
    """
    import torch

    from ..errors import SettingError

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = ["cpu", *["cuda"] * cuda, *["mps"] * mps]
    if name is None:
        return there[-1]
    if name not in there:
        raise SettingError(
            f"there is no device '{name}'; this machine has: {', '.join(there)} (of several GPUs, "
            "choose with CUDA_VISIBLE_DEVICES)"
        )
    return name


def check_precision(name: str) -> str:
    """Return the precision; raise SettingError if there is none of that name."""
    import torch

    from ..calls import cast_of

    cast_of(name, torch.device("cpu"), torch.float32)
    return name


def existing(overwrite: bool, skip: bool = False) -> str:
    """Return what to do with results that exist, as `make_plan` takes it."""
    if overwrite and skip:
        raise typer.BadParameter("--overwrite and --skip-existing exclude one another; give one")
    return "overwrite" if overwrite else "skip" if skip else "error"


def check_new_file(path: Path | None, option: str, overwrite: bool) -> None:
    """Raise unless a file can be written there, which is new or may be replaced."""
    if path is None:
        return
    from ..errors import ImageWriteError, SettingError
    from ..jobs.plan import check_writable

    if path.is_dir():
        raise ImageWriteError(f"{option} {path} is a folder; give a file")
    if path.exists() and not overwrite:
        raise SettingError(f"{option} {path} exists already; give another, or --overwrite")
    check_writable(path.parent)


def check_new_folder(path: Path, option: str, overwrite: bool, hint: str = "--overwrite") -> None:
    """Raise unless a folder can be filled there, which is new or empty, or may be replaced."""
    from ..errors import SettingError
    from ..jobs.plan import check_writable

    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise SettingError(f"{option} {path} is not empty; give another folder, or {hint}")
    check_writable(path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON, whole or not at all; they must be finite."""
    from ..jobs.plan import write_text

    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def print_json(content: list[dict[str, Any]]) -> None:
    """Print plain values as JSON, and nothing else."""
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))

"""`masked-denoise denoise`: files in, clean files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .job import FIT_MINUTES, Request, given_models, leaves_clean, look_at, ready_models
from .options import DENOISING, FITTING, OUTPUT
from .outcome import float_ranges, tell_scores, tell_work, write_page
from .preview import show_preview
from .terminal import Terminal, plain

if TYPE_CHECKING:
    from ..jobs.plan import Plan
    from ..jobs.survey import Picture
    from .outcome import Partners

HELP = """Denoise pictures: PNG, JPEG, TIFF or NPY, grey, colour or any number of channels.

Without --model, photographs are denoised by camera-small, the network that comes with the package.
--adapt trains it further on the noisy pictures themselves. --fit trains a masked network on nothing
but them; where camera-small does better, it is used instead. Neither needs a clean picture.

For some pictures a network of their own is fitted for 2 minutes: floats, other numbers of channels
than 1 or 3, 16 bits of which little is used, and grey ones with noise that is independent from
pixel to pixel. Pictures in which camera-small finds hardly any noise are left as they are.

Results keep format, bit depth, alpha, colour profile and sub-folders; JPEG is written as PNG unless
--format jpeg is given."""

EXAMPLES = options.examples(
    "masked-denoise denoise photo.jpg -o clean.png",
    "masked-denoise denoise photos/ -o clean/ --preview",
    "masked-denoise denoise photos/ -o clean/ --adapt 3",
    "masked-denoise denoise microscope/ -o clean/ --fit 10 --save-model mine/",
    "masked-denoise denoise photos/ -o clean/ --model mine/ --skip-existing --report clean.html",
)


def denoise(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Files and folders.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="A folder; for one file, a file name."),
    ],
    model: options.Model = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--fit",
            metavar="MINUTES",
            min=0.001,
            rich_help_panel=FITTING,
            help="Fit a masked network on the pictures alone, for this long.",
        ),
    ] = None,
    adapt: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.001,
            rich_help_panel=FITTING,
            help="Train the model further on the pictures, for this long.",
        ),
    ] = None,
    fit_steps: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    backbone: options.Backbone = None,
    preset: options.Preset = None,
    save_model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Save what --fit or --adapt trained.", rich_help_panel=FITTING
        ),
    ] = None,
    strength: options.Strength = 1.0,
    passes: options.Passes = None,
    nan: Annotated[
        str,
        typer.Option(
            metavar="error|mask",
            rich_help_panel=DENOISING,
            help="Refuse pictures with NaN pixels, or predict these from the others.",
        ),
    ] = "error",
    suffix: Annotated[
        str, typer.Option(help="Appended to the names of the results.", rich_help_panel=OUTPUT)
    ] = "",
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            rich_help_panel=OUTPUT,
            help="png, jpeg, tiff or npy.  \\[default: as the input, but PNG for JPEG]",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="JPEG quality.  \\[default: 95]", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: options.Overwrite = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing", help="Skip files whose result exists.", rich_help_panel=OUTPUT
        ),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview", help="Only write one crop, before and after, and estimate the time."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="A page with before/after sliders.", rich_help_panel=OUTPUT
        ),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Clean pictures, to score the results against."),
    ] = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Denoise pictures; users read `HELP`."""
    from ..images import SUFFIXES, other_images
    from ..jobs.plan import make_plan

    told = {"--fit": minutes, "--backbone": backbone, "--preset": preset}
    fitting = {name: value for name, value in told.items() if value is not None}
    _check_clash(model, adapt, fitting, save_model)
    _check_names(model, backbone, preset)
    if preview and report is not None:
        raise typer.BadParameter("--preview writes no --report; give one of them")
    if minutes is None and (backbone or preset):
        minutes = FIT_MINUTES
    existing = "overwrite" if preview else options.existing(overwrite, skip_existing)
    plan = make_plan(inputs, output, suffix=suffix, format=format, existing=existing)
    terminal = Terminal(quiet)
    terminal.warn_files(other_images(inputs), "skipped, as their format is not supported")
    kinds = {SUFFIXES[task.target.suffix.lower()] for task in plan.tasks}
    if quality is not None and kinds and "jpeg" not in kinds:
        terminal.warn("--quality is that of JPEG, and none is written; --format jpeg asks for it")
    options.check_new_file(report, "--report", existing != "error")
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"--report {report}: the name must end in .html")
    if save_model is not None and not preview:
        options.check_new_folder(save_model, "--save-model", overwrite)
        if model is None and not fitting and adapt is None and fit_steps is None:
            raise typer.BadParameter(
                "--save-model saves what was trained; give --fit or --adapt with it"
            )
    request = Request(
        terminal=terminal, output=output, model=model, clean=clean, report=report,
        save_model=None if preview else save_model, backbone=backbone or "fast-unet",
        preset=preset, own_network=bool(backbone or preset), minutes=minutes, adapt=adapt,
        steps=fit_steps, seed=seed,
        device=options.choose_device(device), precision=options.check_precision(precision),
        passes=passes, strength=strength, nan=nan, quality=95 if quality is None else quality,
    )  # fmt: skip
    failed = show_preview(request, plan) if preview else _denoise(request, plan)
    if failed:
        raise typer.Exit(1)


def _check_clash(
    model: str | None, adapt: float | None, fitting: Mapping[str, object], save_model: Path | None
) -> None:
    """Raise for options that contradict each other."""
    if fitting and adapt is not None:
        raise typer.BadParameter(
            f"--adapt and {', '.join(fitting)} contradict each other; give one"
        )
    if model is not None and fitting:
        raise typer.BadParameter(f"--model is used without fitting; leave out {', '.join(fitting)}")
    if save_model is not None and model is not None and adapt is None:
        raise typer.BadParameter("--model is used as it is; leave out --save-model")


def _check_names(model: str | None, backbone: str | None, preset: str | None) -> None:
    """Raise for an unknown name, before anything else can go wrong."""
    if model is not None:
        from ..pretrained.place import find_place

        find_place(model)
    if backbone is not None:
        from ..backbones import backbone_info

        backbone_info(backbone)
    if preset is not None:
        from ..presets import preset as named_preset

        named_preset(preset)


def _denoise(request: Request, plan: Plan) -> bool:
    """Do the whole job; return whether a file failed."""
    from ..jobs.batch import denoise_files
    from ..jobs.models import by_source

    terminal = request.terminal
    if plan.skipped:
        terminal.note(f"{len(plan.skipped)} results exist already and are skipped")
    given = given_models(request)
    pictures, failures = look_at(request, plan, given)
    partners = _partners(request, plan, pictures)
    usable = {picture.path for picture in pictures}
    tasks = [task for task in plan.tasks if task.source in usable]
    models = ready_models(request, given, pictures) if tasks else {}
    takes = by_source(pictures, models)
    lost = [task for task in tasks if task.source not in takes]
    tasks = [task for task in tasks if task.source in takes]
    with terminal.track("denoising", len(tasks)) as advance:
        summary = denoise_files(
            tasks, takes, leave_clean=leaves_clean(request, models), passes=request.passes,
            seed=request.seed, strength=request.strength, nan=request.nan,
            precision=request.precision, quality=request.quality, on_file=advance,
        )  # fmt: skip
    terminal.failed(summary.failures)
    failed = len(failures) + len(lost) + len(summary.failures)
    tell_work(terminal, summary, failed)
    results = [*plan.skipped, *(done.task for done in summary.done)]
    ranges = float_ranges(results, takes, given)
    tell_scores(terminal, results, partners, ranges)
    if request.report is not None and results:
        write_page(request.report, results, partners, ranges, summary)
        terminal.say(f"[green]Report:[/green] {plain(request.report)}")
    return failed > 0


def _partners(request: Request, plan: Plan, pictures: Sequence[Picture]) -> Partners:
    """Return the clean picture of each source that has one; all are readable and of its size."""
    if request.clean is None:
        return {}
    from ..errors import DataError, ImageReadError, SizeError
    from ..images import find_images
    from ..images.pairs import pair_files
    from ..jobs.survey import survey

    sources = [(task.source, task.root) for task in (*plan.tasks, *plan.skipped)]
    pairing = pair_files(sources, find_images(request.clean))
    if not pairing.pairs:
        raise DataError(f"none of the pictures has a clean partner of its name in {request.clean}")
    request.terminal.warn_files(pairing.unpaired_images, "no clean picture for")
    partners = {pair.image: pair.clean for pair in pairing.pairs}
    found, failures = survey(sorted(set(partners.values())))
    if failures:
        raise ImageReadError(str(failures[0]))
    clean = {one.path: (one.height, one.width, one.channels) for one in found}
    for one in pictures:
        form = clean.get(partners.get(one.path, Path()))
        if form is not None and form != (one.height, one.width, one.channels):
            raise SizeError(
                f"{partners[one.path]} is {form[1]} x {form[0]} with {form[2]} channels, its noisy "
                f"picture {one.path} {one.width} x {one.height} with {one.channels}; both must be "
                "alike"
            )
    return partners

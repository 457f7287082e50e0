"""`masked-denoise inspect`: the noise of pictures, and the strides that it suggests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .terminal import Terminal, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..jobs.survey import Picture

HELP = """Measure the noise of pictures: its level at each brightness and its spatial correlation.

No clean picture is needed. The strides advised are options of `train`: --train-stride, --stride.
Pictures of different kinds (grey, colour) are measured apart."""

EXAMPLES = options.examples(
    "masked-denoise inspect photos/",
    "masked-denoise inspect photos/ --plot noise.png --json noise.json",
)


class _Pixels:
    """The pixels of files, read one at a time."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        from ..images import read_image

        return (read_image(picture.path).pixels for picture in self.pictures)


def inspect(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Files and folders.")],
    json_file: options.Json = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write a plot: .png, .svg, .pdf."),
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure noise; users read `HELP`."""
    from ..errors import DataError
    from ..images import find_images
    from ..jobs.survey import by_kind, survey
    from ..noise import PATCH, measure_noise, plot_noise

    terminal = Terminal(quiet)
    options.check_new_file(json_file, "--json", overwrite)
    _check_plot(plot, overwrite)
    files = [file for file, _ in find_images(images)]
    with terminal.track("reading", len(files)) as advance:
        pictures, failures = survey(files, smallest=PATCH, on_file=advance)
    terminal.failed(failures)
    if not pictures:
        raise DataError(f"none of the {len(files)} files can be measured, see above")
    groups = {str(kind): group for kind, group in by_kind(pictures).items()}
    plots = {}
    if plot is not None:
        plots = {kind: plot.with_stem(f"{plot.stem}_{kind.replace(' ', '-')}") for kind in groups}
        plots = plots if len(groups) > 1 else dict.fromkeys(groups, plot)
        for place in plots.values():
            options.check_new_file(place, "--plot", overwrite)
    reports = {}
    for kind, group in groups.items():
        report = measure_noise(_Pixels(group))
        reports[kind] = report.to_dict()
        if len(groups) > 1:
            terminal.say(f"[bold]{kind} pictures[/bold]")
        terminal.say(plain(report.summary()))
        strides = f"--train-stride {report.train_stride} --stride {report.stride}"
        options_of_train = "--preset independent" if report.independent else strides
        terminal.say(f"[green]Advised:[/green] {options_of_train}")
        if kind in plots:
            terminal.say(f"[green]Plot:[/green] {plain(plot_noise(report, plots[kind]))}")
    if json_file is not None:
        options.write_json(
            json_file, {"noise": reports, "failed": {str(one.path): one.reason for one in failures}}
        )
    if failures:
        raise typer.Exit(1)


def _check_plot(plot: Path | None, overwrite: bool) -> None:
    """Raise for a plot that cannot be drawn or written."""
    if plot is None:
        return
    import importlib.util

    from ..errors import MissingExtraError

    if plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"--plot {plot}: the name must end in .png, .svg or .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("plots need matplotlib: pip install matplotlib")
    options.check_new_file(plot, "--plot", overwrite)

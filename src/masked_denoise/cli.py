"""The command `masked-denoise`: its sub-commands, their help, and exit codes."""

from __future__ import annotations

import sys
import warnings
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .commands import (
    backbones,
    compare,
    convert,
    demo,
    denoise,
    distill,
    evaluate,
    inspect,
    models,
    rank,
    train,
)
from .commands.options import paragraphs
from .commands.terminal import Terminal
from .errors import MaskedDenoiseError

WRONG, INTERRUPTED = 2, 130

HELP = """Denoise pictures without any clean pictures to learn from.

Begin with [cyan]masked-denoise demo[/cyan], then [cyan]masked-denoise denoise photo.jpg -o
clean.png[/cyan]."""

EXIT_CODES = """[bold]Exit codes[/bold]

0: everything was done.  1: some files failed and are named, all others were done.  2: wrong
arguments, or the work could not start; the message says why.  130: stopped with Ctrl-C."""


class Commands(TyperGroup):
    """The group of sub-commands, which turns errors of the library into a message and exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the requested sub-command."""
        try:
            return super().invoke(ctx)
        except MaskedDenoiseError as error:
            Terminal().error(error)
            raise typer.Exit(WRONG) from error
        except KeyboardInterrupt as error:
            denoises = ctx.invoked_subcommand == "denoise"
            rest = "; --skip-existing continues with the rest" if denoises else ""
            Terminal().error(f"stopped with Ctrl-C; no file is half written{rest}")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="masked-denoise",
    cls=Commands,
    help=paragraphs(HELP),
    epilog=paragraphs(EXIT_CODES),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module, _command in (
    (denoise, denoise.denoise),
    (train, train.train),
    (distill, distill.distill),
    (evaluate, evaluate.evaluate),
    (inspect, inspect.inspect),
    (compare, compare.compare),
    (rank, rank.rank),
    (models, models.models),
    (convert, convert.convert),
    (backbones, backbones.backbones),
    (demo, demo.demo),
):
    _end = paragraphs(f"{_module.EXAMPLES}\n\n{EXIT_CODES}")
    app.command(help=paragraphs(_module.HELP), epilog=_end)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"masked-denoise {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with its code."""
    if "" in (word for before, word in pairwise(sys.argv) if before != "--suffix"):
        Terminal().error("an argument is empty, perhaps an unset variable; give all arguments")
        sys.exit(WRONG)
    warnings.showwarning = _show_warning
    app(prog_name="masked-denoise")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning without the line of code that it comes from."""
    Terminal().warn(message)

"""What the commands print: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

_LISTED = 10  # most names in a warning; of more, the number is given


def plain(value: object) -> str:
    """Return a text, a path or an error for printing: markup escaped, nothing unprintable."""
    return escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(15), duration(9.71), duration(100), duration(8000)
    ('15 s', '9.7 s', '1 min 40 s', '2 h 13 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def counted(items: Sized, what: str) -> str:
    """Return the number of items in words.

    >>> counted([1], "picture"), counted([], "picture")
    ('1 picture', '0 pictures')
    """
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def number(value: float | None, digits: int) -> str:
    """Return a number for a table.

    >>> number(33.126, 2), number(float("inf"), 2), number(None, 2)
    ('33.13', 'inf', '-')
    """
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


class Terminal:
    """Prints for one command; if quiet, only warnings and errors."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(highlight=False, soft_wrap=True, stderr=True)

    @property
    def width(self) -> int:
        """Characters in a line of results."""
        return self.out.width

    def say(self, text: str = "") -> None:
        """Print a line of a result, with markup."""
        if not self.quiet:
            self.out.print(text)

    def note(self, text: str) -> None:
        """Print a line on the progress of the work, with markup."""
        if not self.quiet:
            self.err.print(text)

    def show(self, renderable: Any) -> None:
        """Print a table."""
        if not self.quiet:
            self.out.print(renderable, soft_wrap=False)

    def warn(self, text: object) -> None:
        """Print a warning."""
        self.err.print(f"[yellow]warning:[/yellow] {plain(text)}")

    def error(self, text: object) -> None:
        """Print an error."""
        self.err.print(f"[bold red]error:[/bold red] {plain(text)}")

    def failed(self, failures: Iterable[object]) -> None:
        """Print every file that could not be used, and the reason."""
        for failure in failures:
            self.err.print(f"[red]failed:[/red] {plain(failure)}")

    def warn_files(self, files: Iterable[Path], what: str) -> None:
        """Print a warning that names files, or the first of them if they are many."""
        named = list(files)
        if named:
            more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
            self.warn(f"{what}: {', '.join(map(str, named[:_LISTED]))}{more}")

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[object], None]]:
        """Show a bar while files are worked on; yield what to call after each."""
        if self.quiet or not self.err.is_terminal or total < 2:
            yield lambda done: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.advance(task)

"""What commands that train share: pictures of one kind, clean pairs, the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .terminal import Terminal, duration, number, plain

if TYPE_CHECKING:
    from ..images.pairs import Pair
    from ..jobs.survey import Failure, Picture
    from ..training.validation import CleanPairs


def pictures_alike(
    terminal: Terminal, files: Sequence[Path]
) -> tuple[list[Picture], list[Failure]]:
    """Return the pictures that can be read, all with as many channels, and those that cannot.

    Raises:
        DataError: there is none, or they differ in channels.
    """
    from ..errors import DataError
    from ..jobs.survey import Kind, survey

    with terminal.track("reading", len(files)) as advance:
        pictures, failures = survey(files, on_file=advance)
    if not pictures:
        terminal.failed(failures)
        raise DataError(f"none of the {len(files)} files can be used, see above")
    groups: dict[int, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(picture.channels, []).append(picture)
    if len(groups) > 1:
        told = ", ".join(
            f"{len(group)} {Kind(channels)} (such as {group[0].path})"
            for channels, group in sorted(groups.items())
        )
        raise DataError(f"a model takes one kind of picture, here are {told}; name those of one")
    return pictures, failures


def validation_pairs(
    terminal: Terminal, noisy: Path | None, clean: Path | None, channels: int
) -> CleanPairs | None:
    """Return the pairs of pictures for validation, None if there are none.

    Raises:
        DataError: there is no pair.
        SizeError: the two pictures of a pair differ, or have another number of channels.
    """
    if noisy is None and clean is None:
        return None
    if noisy is None or clean is None:
        raise typer.BadParameter("--validation-noisy and --validation-clean need each other")
    from ..images.pairs import find_pairs
    from ..training.validation import CleanPairs

    pairing = find_pairs(noisy, clean)
    terminal.warn_files(pairing.unpaired_images, "no clean picture for")
    return CleanPairs(_read_pairs(pairing.pairs, channels))


def _read_pairs(pairs: Sequence[Pair], channels: int) -> Iterator[tuple[Any, Any]]:
    """Yield the pictures of each pair; raise SizeError where their shapes differ."""
    from ..errors import SizeError
    from ..images import read_image

    for pair in pairs:
        images = read_image(pair.image).pixels, read_image(pair.clean).pixels
        forms = [one.shape if one.ndim == 3 else (*one.shape, 1) for one in images]
        if forms[0] != forms[1] or forms[0][2] != channels:
            raise SizeError(
                f"{pair.image} is {forms[0]} and {pair.clean} {forms[1]} (height, width, "
                f"channels); both must be alike, with {channels} channels as in training"
            )
        yield images


def finish_run(
    terminal: Terminal, output: Path, record: dict[str, Any], failures: Sequence[Failure]
) -> None:
    """Print where the model is and how the run ended; exit with the code that belongs to it."""
    best = record.get("best")
    score = f", best score {number(best['score'], 2)} dB at step {best['step']}" if best else ""
    speed = record.get("steps_per_second")
    rate = f", {speed:.3g} steps/s" if speed else ""
    terminal.say(
        f"[green]Model:[/green] {plain(output)} ({record['steps']} steps in "
        f"{duration(record['seconds'])}{rate}{score})"
    )
    terminal.say(f"Use it: masked-denoise denoise photos/ -o clean/ --model {plain(output)}")
    if record["stopped"] == "interrupted":
        raise KeyboardInterrupt
    if failures:
        raise typer.Exit(1)

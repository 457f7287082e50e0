"""What `denoise` prints at the end: counts, scores against clean pictures, the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..pretrained.shipped import DEFAULT_MODEL
from .terminal import Terminal, counted, duration, number, plain

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser
    from ..jobs.batch import Summary
    from ..jobs.plan import Task
    from ..report.page import ReportEntry
    from ..values import ValueRange
    from .job import Given

    Partners = Mapping[Path, Path]  # clean picture by source
    Ranges = Mapping[Path, ValueRange | None]  # of float values, by source and by result


def tell_work(terminal: Terminal, summary: Summary, failed: int) -> None:
    """Print what was done."""
    done = summary.done
    if done:
        where = {one.task.target.parent for one in done}
        place = done[0].task.target if len(done) == 1 else min(where, key=lambda p: len(p.parts))
        each = duration(sum(one.seconds for one in done) / len(done))
        count = counted(done, "picture")
        terminal.say(f"[green]Denoised[/green] {count}, {each} each: {plain(place)}")
    clean = [one.task.source for one in done if one.clean]
    if clean:
        count = f"{len(clean)} of them" if len(clean) < len(done) else "All of them"
        terminal.note(
            f"{count} had hardly any noise and stayed as they were, such as {plain(clean[0])} "
            f"(--model {DEFAULT_MODEL} denoises them all the same)"
        )
    if failed:
        terminal.error(f"{failed} file{'s' * (failed > 1)} could not be denoised, see above")


def float_ranges(
    tasks: Sequence[Task], takes: Mapping[Path, AsymmetricMaskDenoiser], given: Given
) -> Ranges:
    """Return the range of float values that each picture's model was made for.

    Args:
        tasks: sources and targets to return the range for.
        takes: the model of each source; for sources without one, the range of another model is
            used.
        given: the model that was named, by its number of channels; or none.
    """
    from ..values import CountRange

    known = (model.value_range for model in (*takes.values(), *given.values()))
    usual = next((one for one in known if one and not isinstance(one, CountRange)), None)
    return {
        place: takes[task.source].value_range if task.source in takes else usual
        for task in tasks
        for place in (task.source, task.target)
    }


def tell_scores(
    terminal: Terminal, results: Sequence[Task], partners: Partners, ranges: Ranges
) -> None:
    """Print mean PSNR and SSIM before and after, of pictures that have a clean one."""
    from ..evaluate import CONVENTION, evaluate_pairs
    from ..images.pairs import Pair

    known = [task for task in results if task.source in partners]
    if not known or terminal.quiet:
        return
    before, after = (
        evaluate_pairs(
            [Pair(task.name, getattr(task, side), partners[task.source]) for task in known],
            value_range=ranges,
        )
        for side in ("source", "target")
    )
    for failure in after.failures:
        terminal.warn(f"not scored: {failure}")
    if after.scores:
        psnr, ssim = (
            f"{number(before.mean[key], digits)} -> [bold]{number(after.mean[key], digits)}[/bold]"
            for key, digits in (("psnr", 2), ("ssim", 4))
        )
        terminal.say(f"PSNR {psnr} dB, SSIM {ssim} ({CONVENTION})")


def write_page(
    path: Path, results: Sequence[Task], partners: Partners, ranges: Ranges, summary: Summary
) -> None:
    """Write the report."""
    from ..images import read_image
    from ..report.page import ReportEntry, write_report
    from ..values import range_in_use

    seconds = {done.task: done.seconds for done in summary.done}

    def entries() -> Iterator[ReportEntry]:
        for task in results:
            noisy, denoised = read_image(task.source).pixels, read_image(task.target).pixels
            yield ReportEntry(
                task.name,
                noisy,
                denoised,
                read_image(partners[task.source]).pixels if task.source in partners else None,
                {"Seconds": seconds[task]} if task in seconds else {},
                range_in_use(noisy.dtype.name, ranges[task.source]),
            )

    write_report(path, entries())

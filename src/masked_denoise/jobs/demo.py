"""Denoise the sample pictures with the bundled model, or with one fitted on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageWriteError
from ..images import ImageFile, read_image, write_image
from ..metrics import score
from ..pretrained.shipped import DEFAULT_MODEL
from ..report.page import ReportEntry, write_report
from ..report.panel import side_by_side
from ..samples import list_samples, sample_path
from .batch import denoise_files
from .models import by_source, fit_models, shipped_models
from .plan import Task, check_writable
from .survey import by_kind, survey


@dataclass(frozen=True)
class SampleResult:
    """PSNR in dB and SSIM of one sample against its clean picture, before and after."""

    name: str
    path: Path
    psnr: tuple[float, float]
    ssim: tuple[float, float]


@dataclass(frozen=True)
class DemoResult:
    """What the demo wrote: a result per sample, a picture of them all, and a page."""

    samples: tuple[SampleResult, ...]
    picture: Path
    report: Path
    seconds: float


def run_demo(
    folder: str | Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Denoise the samples into a folder; replace the files of an earlier demo there.

    Args:
        folder: for <sample>_denoised.png, before_after.png and report.html.
        minutes: to train on the samples; with neither this nor `steps`, the bundled model is used.
        steps: to train, instead of minutes.
        seed: of the run.
        device: for training and denoising; None for the best available, but the CPU for the bundled
            model.
        progress: show a bar.
        tell: called with a line of text at each stage.

    Raises:
        ImageWriteError: the folder cannot be written.
    """
    start = time.perf_counter()
    folder = Path(folder)
    check_writable(folder)
    names = list_samples()
    sources = {name: sample_path(name) for name in names}
    tasks = {
        name: Task(source, source.parent, folder / f"{name}_denoised.png")
        for name, source in sources.items()
    }
    pictures, _ = survey(sources.values())
    if minutes is None and steps is None:
        models = shipped_models(by_kind(pictures), device)
        origin = f"{DEFAULT_MODEL}, which never saw them"
    else:
        tell(f"fitting a model on the {len(names)} noisy samples, without their clean pictures")
        models = fit_models(
            pictures, minutes=minutes, steps=steps, seed=seed, device=device, progress=progress
        )
        budget = f"{steps} steps" if steps is not None else f"{minutes or 0:g} min"
        origin = f"a model fitted for {budget} on these noisy pictures alone"
    tell(f"denoising with {origin}")
    summary = denoise_files(tasks.values(), by_source(pictures, models), seed=seed)
    for failure in summary.failures:
        raise ImageWriteError(str(failure))
    samples, rows, entries = [], [], []
    for name, task in tasks.items():
        paths = (task.source, task.target, sample_path(name, clean=True))
        noisy, denoised, clean = (read_image(path).pixels for path in paths)
        before, after = score(noisy, clean), score(denoised, clean)
        psnr, ssim = ((before[key], after[key]) for key in ("psnr", "ssim"))
        samples.append(SampleResult(name, task.target, psnr, ssim))
        labels = (f"{name}, noisy: {psnr[0]:.1f} dB", f"denoised: {psnr[1]:.1f} dB")
        rows.append(list(zip(labels, (noisy, denoised), strict=True)))
        entries.append(ReportEntry(name, noisy, denoised, clean))
    picture, report = folder / "before_after.png", folder / "report.html"
    write_image(picture, ImageFile(side_by_side(rows)))
    write_report(report, entries, title="Samples, denoised", facts={"Model": origin})
    return DemoResult(tuple(samples), picture, report, time.perf_counter() - start)

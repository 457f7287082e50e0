"""Time calls, and describe the machine that the numbers were measured on."""

from __future__ import annotations

import datetime
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Run = Callable[[], Any]
CACHE = 1 << 28  # bytes written between two calls on a GPU, so that the cache holds no data
WARM_UP = 3  # calls that are not counted


def in_turns(runs: Mapping[str, Run], repeat: int, device: str) -> dict[str, float]:
    """Return the median seconds of each, called one after the other, `repeat` times over.

    What has a `prepare` method is prepared before every call; that is not counted. On a GPU the
    time is that between two events on its stream, with a cold cache.
    """
    gpu = torch.device(device).type == "cuda"
    flush = torch.empty(CACHE if gpu else 0, dtype=torch.uint8, device=device)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeat + WARM_UP):
        for name, run in runs.items():
            getattr(run, "prepare", lambda: None)()
            flush.zero_()
            seconds = _on_gpu(run) if gpu else _on_cpu(run)
            times[name] += [seconds] if turn >= WARM_UP else []
    return {name: statistics.median(each) for name, each in times.items()}


def _on_cpu(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _on_gpu(run: Run) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000)  # calls from Python are queued meanwhile
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def copy_of(moved: int, device: str) -> Run:
    """Return a copy that reads and writes so many bytes in all."""
    source = torch.zeros(max(moved // 2, 1), dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return lambda: target.copy_(source)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """Return p of costs that grow as sizes ** p, by least squares of the logarithms.

    >>> round(exponent([1, 2, 4], [3, 6, 12]), 6)
    1.0
    """
    points = [
        (math.log(size), math.log(cost))
        for size, cost in zip(sizes, costs, strict=True)
        if size > 0 and cost > 0
    ]
    if len({x for x, _ in points}) < 2:
        return None
    slope, _ = statistics.linear_regression(*zip(*points, strict=True))
    return slope


def machine(device: str) -> dict[str, Any]:
    """Return what the numbers belong to: commit, date, machine and versions."""
    import masked_denoise

    told = {
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "masked_denoise": masked_denoise.__version__,
    }
    if torch.device(device).type == "cuda":
        import triton

        told |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "triton": triton.__version__,
        }
    return told


def _commit() -> str:
    """Return the commit of this checkout, with "-dirty" where files differ; "" where unknown."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=False, cwd=here,
        )  # fmt: skip
    except OSError:  # no git
        return ""
    return told.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()

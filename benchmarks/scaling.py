"""How time and memory grow: with the side of the image, the batch, branches K and stride S.

Imported by run.py, which says what is measured. On a CPU it runs itself in a child process for each
point, so that the peak of resident memory is that of the point alone:

    python benchmarks/scaling.py '{"stage": "masking", "side": 512, "threads": 2}'
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timing import Run, exponent

from masked_denoise import AsymmetricMaskDenoiser, RandomPartition
from masked_denoise.hashing import Key
from masked_denoise.memory import held_memory
from masked_denoise.ops import MaskedImage

SIDES = (128, 256, 512, 1024, 2048, 4096, 8192)
FROM = 512**2  # pixels; below, the time of the calls themselves is seen
PIXELS = 2**24  # of all repetitions of a point, about


def scale(
    device: str, threads: int, sides: Sequence[int], network_sides: Sequence[int]
) -> dict[str, Any]:
    """Return points and exponents of every series.

    Args:
        device: where they run.
        threads: of a CPU.
        sides: of the images for masking and, on a CPU up to half of the largest, for `denoise` with
            a network of one convolution.
        network_sides: for `denoise` with the default network.
    """
    base: dict[str, Any] = {"device": device, "threads": threads}
    most = max(sides)
    plans: dict[str, list[dict[str, Any]]] = {
        "masking, side": [{"stage": "masking", "side": side} for side in sides],
        "denoise with one convolution, side": [
            {"stage": "denoise", "network": "convolution", "side": side}
            for side in sides
            if device != "cpu" or side <= max(most // 2, min(sides))
        ],
        "denoise with fast-unet, side": [
            {"stage": "denoise", "network": "fast-unet", "side": side} for side in network_sides
        ],
    }
    middle = min(512, most)
    plans |= {
        "masking, batch": [
            {"stage": "masking", "side": middle, "batch": b} for b in (1, 2, 4, 8, 16)
        ],
        "masking, branches": [
            {"stage": "masking", "side": middle, "branches": k} for k in (2, 4, 8, 16)
        ],
        "masking, stride": [
            {"stage": "masking", "side": middle, "stride": s} for s in (1, 2, 3, 4, 5)
        ],
    }
    return {name: series(name, [base | point for point in plan]) for name, plan in plans.items()}


def series(name: str, plan: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the points of a series, and the exponents of time and memory in what varies."""
    points, failed = [], []
    for point in plan:
        try:
            points.append(point | (in_a_child(point) if point["device"] == "cpu" else run(point)))
        except (RuntimeError, subprocess.SubprocessError) as error:
            failed.append(point | {"error": str(error)[-500:]})
    varied = name.rsplit(", ", 1)[1]
    sized = [p for p in points if varied != "side" or p["side"] ** 2 >= FROM] or points
    counts = [p["side"] ** 2 if varied == "side" else p[varied] for p in sized]
    return {
        "points": points,
        "failed": failed,
        "in": "pixels" if varied == "side" else varied,
        "exponent_of_time": exponent(counts, [p["seconds"] for p in sized]),
        "exponent_of_memory": exponent(counts, [p["peak_bytes"] for p in sized]),
    }


def in_a_child(point: dict[str, Any]) -> dict[str, Any]:
    """Return what `run` does, in a process of its own.

    Raises:
        RuntimeError: it failed, for example for lack of memory.
    """
    told = subprocess.run(
        [sys.executable, __file__, json.dumps(point)], capture_output=True, text=True, check=False
    )
    if told.returncode:
        raise RuntimeError(told.stderr.strip() or f"ended with code {told.returncode}")
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


def run(point: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of a point, and the bytes that it takes beside input and weights."""
    device = point["device"]
    torch.set_num_threads(point["threads"])
    work = STAGES[point["stage"]](point)
    repeat = max(1, min(20, PIXELS // (point["side"] ** 2 * point.get("batch", 1))))
    before = reset_peak(device)
    with held_memory():  # as within fit and denoise
        work()
        peak = peak_bytes(device) - before
        seconds = []
        for _ in range(repeat):
            start = time.perf_counter()
            work()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return {"seconds": sorted(seconds)[len(seconds) // 2], "peak_bytes": max(peak, 0)}


def masking(point: dict[str, Any]) -> Run:
    """Return all masking of one image: hide with mean fill, distance, and merge of all branches."""
    stride, branches = point.get("stride", 2), point.get("branches", 2)
    scheme, key = RandomPartition(branches), Key(0, 0, 1)
    side = point["side"]

    def masked(image: torch.Tensor) -> None:
        seen = MaskedImage(image, scheme, key, stride)
        shown = seen.show(0)
        seen.distance(shown, 0)
        seen.merge(shown.expand(branches, *shown.shape))

    masked(torch.rand(1, 3, 32, 32, device=point["device"]))  # what is loaded at the first call
    image = torch.rand(point.get("batch", 1), 3, side, side, device=point["device"])
    return lambda: masked(image)


def denoise(point: dict[str, Any]) -> Run:
    """Return `denoise` of an 8-bit picture."""
    name = point["network"]
    network = torch.nn.Conv2d(3, 3, 3, padding=1) if name == "convolution" else name
    denoiser = AsymmetricMaskDenoiser(network, channels=3).to(point["device"]).eval()
    denoiser.denoise(torch.zeros(3, 64, 64, dtype=torch.uint8, device=point["device"]))
    shape = (3, point["side"], point["side"])
    picture = torch.randint(256, shape, dtype=torch.uint8, device=point["device"])
    return lambda: denoiser.denoise(picture)


STAGES = {"masking": masking, "denoise": denoise}


def reset_peak(device: str) -> int:
    """Return the bytes that are held now, and count the peak from here."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
        return _status("VmRSS")
    return _most_resident()


def peak_bytes(device: str) -> int:
    """Return the most bytes that were held since `reset_peak`."""
    if device != "cpu":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM") if Path("/proc/self/clear_refs").exists() else _most_resident()


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _most_resident() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))

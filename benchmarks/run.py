"""Check that the operators are right, and time them and the program: one table, and a JSON file.

    python benchmarks/run.py [--only operators steps] [--json FILE]
    python benchmarks/run.py --gpu --out DIR [--data NOISY [--clean CLEAN]]

Everything is checked against its definition before anything is timed. README.md beside this file
explains the output. Sections are independent: if one fails, that is printed and the others run; the
JSON file is written after each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gpu
import torch
from ops import run_operators
from scaling import SIDES, scale
from stages import denoising, overhead
from timing import machine

Section = Callable[[], Any]


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    sections = on_gpu(args) if args.gpu else on_cpu(args)
    unknown = sorted(set(args.only or ()) - set(sections))
    if unknown:
        raise SystemExit(f"no section {', '.join(unknown)}; there are {', '.join(sections)}")
    chosen = [name for name in sections if not args.only or name in args.only]
    report = Report(result_file(args), machine("cuda" if args.gpu else "cpu"), vars(args))
    end = time.monotonic() + args.seconds
    for name in chosen:
        apart = args.gpu and len(chosen) > 1
        report.add(name, partial(in_a_process, name, report.file, end) if apart else sections[name])
    return report.finish()


def in_a_process(name: str, file: Path, end: float) -> Any:
    """Return what a section gives in a process of its own: a fault of the GPU ends only that one.

    Raises:
        RuntimeError: it failed.
        subprocess.TimeoutExpired: it was not done when the time was over.
    """
    part = file.with_name(f"{file.stem}_part.json")
    part.unlink(missing_ok=True)
    left = max(end - time.monotonic(), 1.0)
    command = [sys.executable, __file__, *sys.argv[1:], "--only", name, "--json", str(part)]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=left, check=False)
    if not part.exists():
        raise RuntimeError(f"ended with code {ended.returncode}")
    found = json.loads(part.read_text())["sections"][name]
    part.unlink()
    if isinstance(found, dict) and "error" in found:
        raise RuntimeError(found["error"])
    return found


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--gpu", action="store_true")
    ask.add_argument("--out", type=Path, help="folder for all that is written; results/ by default")
    ask.add_argument("--json", type=Path, help="name of the file, instead")
    ask.add_argument("--only", nargs="+", metavar="SECTION")
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--side", type=int, help="of the operators' images; 1024, 512 on a CPU")
    ask.add_argument("--batch", type=int, help="of the operators; 16, 2 on a CPU")
    ask.add_argument("--repeat", type=int, default=30)
    ask.add_argument("--pairs", type=int, default=30, help="of blocks of training steps")
    ask.add_argument("--sides", type=int, nargs="+", default=SIDES, help="for the scaling")
    ask.add_argument("--network-sides", type=int, nargs="+", help="for that of the default network")
    ask.add_argument("--data", help="folder of noisy pictures, for a training run")
    ask.add_argument("--clean", help="folder of their clean partners, to score the run")
    ask.add_argument("--minutes", type=float, default=2.0, help="of the training run")
    ask.add_argument("--seconds", type=float, default=1800.0, help="for all sections, on a GPU")
    args = ask.parse_args()
    if args.gpu and not torch.cuda.is_available():
        ask.error("--gpu needs a GPU, and PyTorch sees none")
    return args


def result_file(args: argparse.Namespace) -> Path:
    """Return where the numbers go."""
    folder = args.out or Path(__file__).parent / "results"
    file: Path = args.json or folder / ("run_gpu.json" if args.gpu else "run_cpu.json")
    return file


def on_cpu(args: argparse.Namespace) -> dict[str, Section]:
    """Return the sections for a CPU, by name."""
    shape = (args.batch or 2, 3, *[args.side or 512] * 2)
    return {
        "operators": lambda: {
            "shape": shape,
            "stride": 2,
            "rows": run_operators(shape, (torch.float32,), args.repeat, "cpu"),
        },
        "steps": lambda: {
            "rows": [
                overhead(network, 2, crop, "cpu", pairs=args.pairs, block=2)
                for network, crop in (("fast-unet", 128), ("unet", 128), ("nafnet", 64))
            ]
        },
        "denoising": lambda: denoising(512, "cpu", max(args.repeat // 10, 1)),
        "scaling": lambda: scale("cpu", args.threads, args.sides, args.network_sides or SIDES[:4]),
    }


def on_gpu(args: argparse.Namespace) -> dict[str, Section]:
    """Return the sections for a GPU, by name: what matters most comes first."""
    shape = (args.batch or 16, 3, *[args.side or 1024] * 2)

    def operators(dtype: torch.dtype) -> Section:
        return lambda: {
            "shape": shape,
            "stride": 2,
            "rows": run_operators(shape, (dtype,), args.repeat, "cuda"),
        }

    sections: dict[str, Section] = {
        "operators float32": operators(torch.float32),
        "operators bfloat16": operators(torch.bfloat16),
        "never waits": gpu.never_waits,
        "graphs": gpu.graphs,
        "steps": lambda: gpu.overheads(args.pairs),
        "throughput": gpu.throughput,
    }
    if args.data:
        out = result_file(args).parent
        sections["training"] = lambda: gpu.train(args.data, args.clean, out, args.minutes)
    return sections | {
        "denoising": lambda: denoising(512, "cuda", args.repeat),
        "scaling": lambda: scale("cuda", args.threads, args.sides, args.network_sides or SIDES),
    }


class Report:
    """Prints every section and writes all of them to a file."""

    def __init__(self, file: Path, machine: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self.file, self.failed = file, 0
        told = {key: str(value) for key, value in settings.items() if value is not None}
        self.content: dict[str, Any] = {"machine": machine, "settings": told, "sections": {}}
        file.parent.mkdir(parents=True, exist_ok=True)
        print(*(f"{key}: {value}" for key, value in machine.items()), sep="\n")

    def add(self, name: str, section: Section) -> None:
        """Run a section; one that fails is told and does not end the others."""
        start = time.perf_counter()
        try:
            found = section()
        except Exception as error:  # of any kind: the numbers of the others must not be lost
            traceback.print_exc()
            self.failed += 1
            found = {"error": f"{type(error).__name__}: {error}"}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.content["sections"][name] = found
        print(f"\n## {name} ({time.perf_counter() - start:.0f} s)\n")
        print(shown(found), flush=True)
        self.file.write_text(json.dumps(self.content, indent=1, default=str))

    def finish(self) -> int:
        """Return the exit code: 1 where a section failed."""
        print(f"\nwritten to {self.file}" + (f"; {self.failed} failed" if self.failed else ""))
        if self.content["settings"]["gpu"] == "False":
            print("Not on a GPU: kernels, waiting, CUDA graphs and precision were not measured.")
        return 1 if self.failed else 0


def shown(found: Any) -> str:
    """Return a section as text: a table for rows, else its numbers."""
    if not isinstance(found, dict):
        return str(found)
    if "rows" in found:
        rest = {key: value for key, value in found.items() if key != "rows" and value}
        return "\n".join([table(found["rows"]), *(f"{key}: {rest[key]}" for key in rest)])
    if found and all(isinstance(value, dict) and "points" in value for value in found.values()):
        return "\n\n".join(growth(name, value) for name, value in found.items())
    return "\n".join(f"{key}: {_figure(value)}" for key, value in found.items())


def growth(name: str, found: Mapping[str, Any]) -> str:
    """Return a series as text."""
    points = [
        {
            **{k: p[k] for k in ("side", "batch", "branches", "stride") if k in p},
            "milliseconds": p["seconds"] * 1e3,
            "peak megabytes": p["peak_bytes"] / 1e6,
        }
        for p in found["points"]
    ]
    time_, memory = found["exponent_of_time"], found["exponent_of_memory"]
    told = f"time grows with {found['in']} to the power {_figure(time_)}, memory {_figure(memory)}"
    failed = [f"failed: {point}" for point in found["failed"]]
    return "\n".join([f"### {name}", table(points), told, *failed])


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    if not rows:
        return "(nothing)"
    head = list(rows[0])
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in head) + " |",
        "|" + "---|" * len(head),
    ]
    lines += ["| " + " | ".join(_figure(row.get(name)) for name in head) + " |" for row in rows]
    return "\n".join(lines)


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())

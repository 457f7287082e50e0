"""Measure the time of `from masked_denoise import *` beyond that of `import torch`.

    python benchmarks/import_time.py

Best of several new processes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

RUNS = 7


def seconds(code: str) -> float:
    """Return the shortest time that a new interpreter takes for the code, in seconds."""
    timed = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
    runs = [
        subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
        for _ in range(RUNS)
    ]
    return min(float(run.stdout) for run in runs)


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch, both = seconds("import torch"), seconds("import torch; from masked_denoise import *")
    print(f"import torch {torch:.3f} s, with masked_denoise {both:.3f} s: {both - torch:+.3f} s")

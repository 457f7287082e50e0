"""Measure how long a model takes to load from a folder, beside the unavoidable part.

That part is `safetensors.torch.load_file` and building the network, both as PyTorch does them.
Every load checks the weights against their SHA-256 digest. Best of several runs, after one that
fills the disk cache.

    python benchmarks/load_time.py restormer
    python benchmarks/load_time.py restormer '{"dim": 48}'
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable

import torch
from safetensors.torch import load_file

from masked_denoise import AsymmetricMaskDenoiser, create_backbone, from_pretrained

RUNS = 7


def seconds(run: Callable[[], object]) -> float:
    """Return the shortest time of a call, in seconds."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main(name: str, arguments: dict[str, object]) -> None:
    """Print the times and their ratio."""
    denoiser = AsymmetricMaskDenoiser(name, backbone_args=arguments)
    size = sum(weight.numel() for weight in denoiser.backbone.parameters())
    with tempfile.TemporaryDirectory() as folder:
        denoiser.save_pretrained(folder, card=False)
        read = seconds(lambda: load_file(f"{folder}/model.safetensors"))
        build = seconds(lambda: create_backbone(name, **arguments))
        load = seconds(lambda: from_pretrained(folder))
    print(
        f"{name}, {size / 1e6:.1f} M parameters, {torch.get_num_threads()} threads: load_file "
        f"{1e3 * read:.0f} ms + build {1e3 * build:.0f} ms; from_pretrained {1e3 * load:.0f} ms; "
        f"ratio {load / (read + build):.2f}"
    )


if __name__ == "__main__":
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("backbone", nargs="?", default="restormer")
    ask.add_argument("arguments", nargs="?", type=json.loads, default={}, help="of it, as JSON")
    args = ask.parse_args()
    main(args.backbone, args.arguments)

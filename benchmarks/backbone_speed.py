"""Measure how fast the backbones are, beside a plain convolution and a plain form.

    python benchmarks/backbone_speed.py [NAME ...] [--json FILE]

For each network, at its default arguments, on 2 x 3 x 128 x 128 float32: the times of a forward
pass and of a training step (forward, backward, AdamW); its multiply-adds per second, beside those
of one 3 x 3 convolution of similar width in the same run; and, if it has one, the ratio to the
straightforward, channels-first form in `plain_backbones.py`, after checking that the outputs agree
to 1e-5. The two forms take turns; medians and the median ratio are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from plain_backbones import PLAIN, plain_form
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from masked_denoise import create_backbone, list_backbones
from masked_denoise.memory import held_memory

WIDTHS = {"restormer": 96, "nafnet": 32, "deamnet": 64, "dncnn": 64, "dbsn": 128, "unet": 96}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("names", nargs="*", default=[])
    ask.add_argument("--size", type=int, default=128)
    ask.add_argument("--batch", type=int, default=2)
    ask.add_argument("--runs", type=int, default=7)
    ask.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    ask.add_argument("--json")
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": args.threads,
        "torch": torch.__version__,
    }
    rows = []
    print(f"{'network':12}{'pass':>10}{'s':>9}{'GMAC/s':>9}{'3x3 conv':>10}{'plain / ours':>14}")
    with held_memory():
        for name in args.names or list_backbones():
            for row in measure(name, args):
                rows.append(row)
                ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
                print(
                    f"{name:12}{row['pass']:>10}{row['seconds']:9.3f}{row['gmacs']:9.1f}"
                    f"{row['conv_gmacs']:10.1f}{ratio:>14}",
                    flush=True,
                )
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"machine": machine, **vars(args), "rows": rows}, file, indent=1)


def measure(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the row of the forward pass and the row of the training step."""
    torch.manual_seed(0)
    network = scrambled(create_backbone(name))
    image = torch.rand(args.batch, 3, args.size, args.size)
    plain = plain_form(network) if type(network) in PLAIN else None
    if plain is not None:
        compare(network, plain, image)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    macs = counter.get_total_flops() / 2e9
    width = WIDTHS.get(name, 32)
    rows = []
    for kind, factor, make in (("forward", 1, forward_of), ("training", 3, training_of)):
        ours = make(network, image)
        other = None if plain is None else make(plain, image)
        seconds, ratio = times(ours, other, args.runs)
        conv, conv_macs = convolution(width, args, kind)
        rows.append({
            "network": name, "pass": kind, "seconds": seconds, "gmacs": factor * macs / seconds,
            "conv_gmacs": conv_macs / times(conv, None, args.runs)[0], "ratio": ratio,
        })  # fmt: skip
    return rows


def scrambled(network: nn.Module) -> nn.Module:
    """Return the network with weights that leave no part without effect."""
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.05)
    return network


def compare(network: nn.Module, plain: nn.Module, image: Tensor) -> None:
    """Stop where the two forms do not give the same output."""
    network.eval(), plain.eval()
    with torch.no_grad():
        ours, theirs = network(image), plain(image)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def forward_of(network: nn.Module, image: Tensor) -> Callable[[], None]:
    network.eval()

    def run() -> None:
        with torch.no_grad():
            network(image)

    return run


def training_of(network: nn.Module, image: Tensor) -> Callable[[], None]:
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        network(image).abs().mean().backward()
        optimizer.step()

    return run


def convolution(
    width: int, args: argparse.Namespace, kind: str
) -> tuple[Callable[[], None], float]:
    """Return one 3 x 3 convolution, channels last, and its multiply-adds in units of 1e9."""
    layout = torch.channels_last
    x = torch.rand(args.batch, width, args.size, args.size).contiguous(memory_format=layout)
    weight = torch.rand(width, width, 3, 3).contiguous(memory_format=layout)
    macs = x.numel() * width * 9 / 1e9
    if kind == "forward":
        return (lambda: [F.conv2d(x, weight, padding=1), None][1]), macs
    x.requires_grad_(), weight.requires_grad_()
    return (lambda: F.conv2d(x, weight, padding=1).sum().backward()), 3 * macs


def times(
    ours: Callable[[], None], other: Callable[[], None] | None, runs: int
) -> tuple[float, float | None]:
    """Return the median seconds of `ours`, and the median ratio of `other` to it, in turns."""
    forms = [ours] if other is None else [ours, other]
    taken: list[list[float]] = [[] for _ in forms]
    for number in range(runs + 1):
        for form, seconds in zip(forms, taken, strict=True):
            start = time.perf_counter()
            form()
            if number:
                seconds.append(time.perf_counter() - start)
    median = statistics.median(taken[0])
    if other is None:
        return median, None
    return median, statistics.median(b / a for a, b in zip(*taken, strict=True))


if __name__ == "__main__":
    main()

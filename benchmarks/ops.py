"""The masking operators: are they right, and how near are they to the speed of memory?

    python benchmarks/ops.py [--json results/ops.json]

First every operator is checked against its definition. Then, on a GPU: time of each on 16 x 3 x
1024 x 1024 pixels at stride 2, in float32 and bfloat16, beside the time of a device copy that moves
the same bytes; proof that a training step never waits for the GPU, and one that a CUDA graph of it
can be recorded and replayed with new masks. On a CPU: smaller images, beside the straightforward
form with boolean indexing.

Columns: time (median); bytes read and written; share of the bound, the copy's time over the
operator's; and how many times as long the plain form takes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from masked_denoise import PixelDownsample, RandomPartition, smoothness_loss
from masked_denoise.ops import MaskedImage, masked, reference, replace, why_eager
from masked_denoise.refine import replacement
from masked_denoise.scheme import Key

KEY, STRIDE, SHARE = Key(0, 0, 1), 2, 0.16
Run = Callable[[], Any]


class Case(NamedTuple):
    """An operator, its plain form, and the bytes that it must at least move."""

    name: str
    fused: Run
    plain: Run
    moved: int
    exact: bool


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ask.add_argument("--side", type=int, help="of the images; default 1024, 512 on a CPU")
    ask.add_argument("--batch", type=int, help="default 16, 2 on a CPU")
    ask.add_argument("--repeat", type=int, default=30)
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    ask.add_argument("--json")
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    gpu = args.device != "cpu"
    shape = (args.batch or (16 if gpu else 2), 3, *[args.side or (1024 if gpu else 512)] * 2)
    rows: list[dict[str, Any]] = []
    for dtype in (torch.float32, torch.bfloat16) if gpu else (torch.float32,):
        image = torch.rand(shape, device=args.device).to(dtype)
        if gpu and (reason := why_eager(image)):
            raise SystemExit(f"the fused path is off: {reason}")
        cases = operators(image)
        for case in cases:
            check(case)
        rows += [measure(case, image, args.repeat) for case in cases]
    print(table(rows))
    result = {"machine": machine(args.device), "shape": shape, "stride": STRIDE, "rows": rows}
    if gpu:
        result["step"] = prove_step(args.device)
        print(result["step"])
    else:
        print("There was no GPU: kernels, waiting and CUDA graphs were not measured.")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))


def operators(image: Tensor) -> list[Case]:
    """Return every operator on an image batch, with one random mask of two branches."""
    scheme, size = RandomPartition(2), (image.shape[2], image.shape[3])
    kept = MaskedImage(image, scheme, KEY, STRIDE)
    zero = MaskedImage(image, RandomPartition(2, fill="zero"), KEY, STRIDE)
    label, pixels = kept.label, PixelDownsample(STRIDE)
    hidden, nbytes = label == 0, image.nbytes
    outputs = torch.rand(2, *kept.sub_images.shape, device=image.device).to(image.dtype)
    learned = outputs[0].clone().requires_grad_()
    rough = torch.rand_like(image).requires_grad_()

    def plain_zero() -> Tensor:
        sub_images = pixels.down(image).clone()
        sub_images[hidden.expand_as(sub_images)] = 0
        return sub_images

    def plain_mean() -> Tensor:
        sub_images = pixels.down(image)
        if image.is_cuda:
            return reference.fill_hidden(sub_images, hidden, "mean")
        return indexed_mean(sub_images, hidden)

    def plain_distance() -> Tensor:
        mask = hidden.expand_as(learned)
        return (learned[mask] - pixels.down(image)[mask]).abs().float().mean()

    def plain_merge() -> Tensor:
        merged = outputs[0].clone()
        other = (label == 1).expand_as(merged)
        merged[other] = outputs[1][other]
        return pixels.up(merged, size=size).contiguous()

    def plain_replace() -> Tensor:
        copies = []
        for draw in range(2):
            mask = replacement(size, len(image), SHARE, key=Key(draw), device=image.device)
            copy, mask = image.clone(), mask.expand_as(image)
            copy[mask] = rough.detach()[mask]
            copies.append(copy)
        return torch.cat(copies)

    keys = [Key(0), Key(1)]
    cases = [
        ("hide, zero", lambda: zero.show(0), plain_zero, 2 * nbytes, True),
        ("hide, mean", lambda: kept.show(0), plain_mean, 2 * nbytes, False),
        ("distance", lambda: kept.distance(learned, 0), plain_distance, 2 * nbytes, False),
        (
            "distance, backward",
            gradient(lambda: kept.distance(learned, 0), learned),
            gradient(plain_distance, learned),
            3 * nbytes,
            False,
        ),
        ("merge", lambda: kept.merge(outputs), plain_merge, 3 * nbytes, True),
        (
            "replace",
            lambda: replace(rough.detach(), image, SHARE, keys),
            plain_replace,
            6 * nbytes,
            True,
        ),
        (
            "smoothness",
            lambda: smoothness_loss(image),
            lambda: reference.smoothness(image, 1e-6),
            nbytes,
            False,
        ),
        (
            "smoothness, backward",
            gradient(lambda: smoothness_loss(rough), rough),
            gradient(lambda: reference.smoothness(rough, 1e-6), rough),
            2 * nbytes,
            False,
        ),
    ]
    return [Case(*case) for case in cases]


def indexed_mean(sub_images: Tensor, hidden: Tensor) -> Tensor:
    """Return sub-images filled with 3 x 3 means, the straightforward way."""
    seen, channels = (~hidden).to(sub_images.dtype), sub_images.shape[1]
    kernel = torch.ones(channels, 1, 3, 3, dtype=sub_images.dtype, device=sub_images.device)
    total = torch.nn.functional.conv2d(sub_images * seen, kernel, padding=1, groups=channels)
    count = torch.nn.functional.conv2d(seen, kernel[:1], padding=1)
    filled, mask = sub_images.clone(), hidden.expand_as(sub_images)
    filled[mask] = (total / count.clamp_min(1))[mask]
    alone = hidden & (count == 0)
    for n, _, row, col in alone.nonzero().tolist():
        near = (slice(max(row - 2, 0), row + 3), slice(max(col - 2, 0), col + 3))
        use = ~hidden[n, 0][near]
        if not bool(use.any()):
            near = (slice(max(row - 3, 0), row + 4), slice(max(col - 3, 0), col + 4))
            use = ~hidden[n, 0][near]
        filled[n, :, row, col] = sub_images[n][(slice(None), *near)][:, use].mean(1)
    return filled


class gradient:
    """A loss and its gradient; `forward` is the part that is not counted."""

    def __init__(self, forward: Run, leaf: Tensor) -> None:
        self.forward, self.leaf = forward, leaf
        self.loss: Tensor | None = None

    def prepare(self) -> None:
        self.loss = self.forward()

    def __call__(self) -> Tensor:
        if self.loss is None:
            self.prepare()
        assert self.loss is not None
        (slope,) = torch.autograd.grad(self.loss, self.leaf)
        self.loss = None
        return slope


def check(case: Case) -> None:
    """Raise where an operator and its plain form differ."""
    ours, plain = case.fused(), case.plain()
    if case.exact:
        assert torch.equal(ours, plain), f"{case.name}: not the same bits"
        return
    half = ours.dtype != torch.float32
    scale = float(plain.detach().float().abs().max())
    tolerance = (2e-2 if half else 1e-5) * scale
    torch.testing.assert_close(
        ours.float(), plain.float(), atol=tolerance, rtol=1e-3, msg=case.name
    )


def measure(case: Case, image: Tensor, repeat: int) -> dict[str, Any]:
    source = torch.zeros(case.moved // 2, dtype=torch.uint8, device=image.device)
    target = torch.empty_like(source)
    seconds = timed(case.fused, repeat, image.is_cuda)
    copy = timed(lambda: target.copy_(source), repeat, image.is_cuda)
    plain = timed(case.plain, max(repeat // 5, 3), image.is_cuda)
    return {
        "operator": case.name,
        "dtype": str(image.dtype).removeprefix("torch."),
        "milliseconds": seconds * 1e3,
        "bytes": case.moved,
        "copy_milliseconds": copy * 1e3,
        "share_of_bound": copy / seconds,
        "times_plain": plain / seconds,
    }


def timed(run: Run, repeat: int, gpu: bool) -> float:
    """Return the median seconds of a call, with a cold cache on a GPU."""
    prepare = getattr(run, "prepare", lambda: None)
    flush = torch.empty(2**28 if gpu else 0, dtype=torch.uint8, device="cuda" if gpu else "cpu")
    times = []
    for turn in range(repeat + 3):
        prepare()
        flush.zero_()
        if gpu:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            torch.cuda._sleep(2_000_000)  # calls from Python are queued meanwhile
            first.record()
            run()
            last.record()
            torch.cuda.synchronize()
            elapsed = first.elapsed_time(last) / 1e3
        else:
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
        times += [elapsed] if turn >= 3 else []
    return statistics.median(times)


def prove_step(device: str) -> str:
    """Run a training step that may not wait for the GPU, then one from a CUDA graph.

    Raises where the step waits, or where a replay gives another loss than the step itself.
    """
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1).to(device)
    scheme, image = RandomPartition(2), torch.rand(4, 3, 160, 160, device=device)
    numbers = torch.arange(4, device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, capturable=True)
    draw = masked.draw_of(Key(0), 0, device=device)

    def step(key: Key, branch: int, draw: Tensor | None) -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        seen = MaskedImage(image, scheme, key, STRIDE, sample=numbers, draw=draw)
        shown = seen.show(branch)
        loss = seen.distance(shown + network(shown), branch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(KEY, 0, draw)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(KEY, 1, None)
        step(KEY, 1, draw)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step(KEY, 0, draw)
    for number in range(4):
        key, branch = Key(5, 0, number), number % 2
        draw.copy_(masked.draw_of(key, branch))
        graph.replay()
        expected = step(key, branch, None)
        assert torch.equal(recorded, expected), f"replay {number}: {recorded} is not {expected}"
    return "A training step never waited for the GPU; its CUDA graph gave the same losses."


def table(rows: list[dict[str, Any]]) -> str:
    head = (
        "| operator | dtype | ms | MB | share of copy | plain takes |\n|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(
        f"| {row['operator']} | {row['dtype']} | {row['milliseconds']:.3f} "
        f"| {row['bytes'] / 1e6:.0f} | {100 * row['share_of_bound']:.0f} % "
        f"| {row['times_plain']:.1f} x |"
        for row in rows
    )


def machine(device: str) -> dict[str, Any]:
    """Return what the numbers belong to: commit, machine and versions."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    try:
        import triton

        version = triton.__version__
    except ImportError:
        version = None
    return {
        "commit": commit.stdout.strip(),
        "device": torch.cuda.get_device_name() if device != "cpu" else platform.processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version,
        "system": platform.platform(),
    }


if __name__ == "__main__":
    main()

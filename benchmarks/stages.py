"""Whole stages of the program, a training step and a denoised picture, beside the network alone.

Imported by run.py.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from timing import Run
from torch import Tensor

from masked_denoise import AsymmetricMaskDenoiser, PixelDownsample
from masked_denoise.memory import held_memory

STRIDE = 2
NETWORKS = ("fast-unet", "nafnet")


class Steps:
    """Training steps of one network: with the scheme, and on sub-images made beforehand.

    Both do the same but for the masking: network, loss, backward, clipping, AdamW. `full` draws the
    masks of a new step every time.

    Args:
        network: name of a backbone.
        batch, crop: of the images, (batch, 3, crop, crop).
        device: where they run.
        precision: None, or the dtype of autocast.
        compiled: whether the network is compiled.
    """

    def __init__(
        self,
        network: str,
        batch: int,
        crop: int,
        device: str,
        *,
        precision: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.denoiser = AsymmetricMaskDenoiser(network, train_stride=STRIDE).to(device).train()
        self.weights = list(self.denoiser.backbone.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4, fused=True)
        if compiled:
            self.denoiser.backbone = torch.compile(self.denoiser.backbone)  # type: ignore[assignment]
        self.image = torch.rand(batch, 3, crop, crop, device=device)
        ready = PixelDownsample(STRIDE).down(self.image)
        self.ready = ready.contiguous(memory_format=torch.channels_last)
        self.target = torch.rand_like(self.ready)
        self.numbers = count()
        self.autocast = torch.autocast(
            torch.device(device).type, dtype=precision, enabled=precision is not None
        )

    def full(self) -> None:
        """Do a step as `fit` does."""
        with self.autocast:
            loss = self.denoiser(self.image, step=next(self.numbers))
        self._learn(loss)

    def plain(self) -> None:
        """Do a step of the network alone."""
        with self.autocast:
            output = self.denoiser.backbone(self.ready)
            output = self.ready + output if self.denoiser.residual else output
            loss = (output.float() - self.target).abs().mean()
        self._learn(loss)

    def _learn(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()


def overhead(
    network: str, batch: int, crop: int, device: str, *, pairs: int, block: int, **how: Any
) -> dict[str, Any]:
    """Return the milliseconds of a step with and without the scheme, in blocks that take turns."""
    steps = Steps(network, batch, crop, device, **how)
    times: dict[str, list[float]] = {"full": [], "plain": []}
    with held_memory():  # as `fit` does
        for turn in range(pairs + 1):
            for name in times:
                seconds = seconds_of_block(getattr(steps, name), block, device)
                times[name] += [seconds] if turn else []  # the first warms up
    full, plain = (statistics.median(times[name]) for name in ("full", "plain"))
    ratios = [a / b for a, b in zip(times["full"], times["plain"], strict=True)]
    return {
        "network": network,
        "batch": batch,
        "crop": crop,
        "stride": STRIDE,
        "precision": str(how.get("precision") or torch.float32).removeprefix("torch."),
        "compiled": bool(how.get("compiled")),
        "full_milliseconds": full * 1e3,
        "plain_milliseconds": plain * 1e3,
        "overhead": statistics.median(ratios) - 1,
        "steps_per_second": 1 / full,
    }


def seconds_of_block(run: Run, steps: int, device: str) -> float:
    """Return the seconds of one of `steps` calls in a row, after one that is not counted."""
    gpu = torch.device(device).type == "cuda"
    run()
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        run()
    if gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Switch the fused kernels off."""
    before = os.environ.get("MASKED_DENOISE_EAGER")
    os.environ["MASKED_DENOISE_EAGER"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["MASKED_DENOISE_EAGER"]
        else:
            os.environ["MASKED_DENOISE_EAGER"] = before


def denoising(side: int, device: str, repeat: int) -> dict[str, Any]:
    """Return the seconds of `denoise`, as it comes, and of its network passes within."""
    torch.manual_seed(0)
    denoiser = AsymmetricMaskDenoiser("fast-unet").to(device).eval()
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    clock = Clock(device)
    hooks = (
        denoiser.backbone.register_forward_pre_hook(lambda *_: clock.start()),
        denoiser.backbone.register_forward_hook(lambda *_: clock.stop()),
    )
    denoiser.denoise(picture)
    totals, ratios = [], []
    for _ in range(repeat):
        clock.seconds, clock.calls, start = 0.0, 0, time.perf_counter()
        denoiser.denoise(picture)
        totals.append(time.perf_counter() - start)
        ratios.append(totals[-1] / clock.seconds)
    for hook in hooks:
        hook.remove()
    return {
        "side": side,
        "seconds": statistics.median(totals),
        "network_calls": clock.calls,
        "times_the_network": statistics.median(ratios),
    }


class Clock:
    """Adds up seconds between `start` and `stop`."""

    def __init__(self, device: str) -> None:
        self.gpu = torch.device(device).type == "cuda"
        self.seconds, self.calls, self.began = 0.0, 0, 0.0

    def start(self) -> None:
        self.began = self._now()

    def stop(self) -> None:
        self.seconds += self._now() - self.began
        self.calls += 1

    def _now(self) -> float:
        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

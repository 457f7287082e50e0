"""What only a GPU shows: that nothing waits, CUDA graphs, precision and compilation, a real run.

Imported by run.py; every section is independent.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from stages import NETWORKS, STRIDE, overhead, seconds_of_block, without_kernels
from torch import Tensor, nn

from masked_denoise import AsymmetricMaskDenoiser, Noise2Void, RandomPartition
from masked_denoise.hashing import Key
from masked_denoise.ops import MaskedImage, draw_of

BATCH, CROP = 16, 160
KEY = Key(0, 0, 1)


def never_waits() -> dict[str, Any]:
    """Run training steps that may not wait for the GPU, of both networks and all kinds of fill.

    Raises:
        RuntimeError: something waits; the message names it.
    """
    done = []
    fills = (RandomPartition(2), RandomPartition(2, fill="zero"), RandomPartition(2, fill=0.5))
    runs = [(NETWORKS[0], scheme) for scheme in (*fills, Noise2Void())]
    for network, scheme in [*runs, *((name, fills[0]) for name in NETWORKS[1:])]:
        denoiser = AsymmetricMaskDenoiser(network, scheme=scheme, train_stride=STRIDE)
        denoiser.cuda().train()
        weights = list(denoiser.backbone.parameters())
        optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
        image = torch.rand(2, 3, CROP, CROP, device="cuda")

        def step(number: int) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                loss = denoiser(image, step=number, smoothness=0.01)  # noqa: B023
            optimizer.zero_grad()  # noqa: B023
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)  # noqa: B023
            optimizer.step()  # noqa: B023

        for number in range(3):  # what is chosen, compiled and cached at first
            step(number)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for number in range(3, 7):
                step(number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        done.append(f"{network}, {scheme!r}")
    return {"steps_without_waiting": done}


class GraphStep:
    """A training step on its own stream, recorded as a CUDA graph and replayed with new masks.

    Weights stay as they are (the rate is 0), so that a replay can be compared with the step itself.
    """

    def __init__(self, network: nn.Module, batch: int, crop: int, *, adds: bool) -> None:
        self.network, self.adds = network.cuda(), adds
        self.image = torch.rand(batch, 3, crop, crop, device="cuda")
        self.numbers = torch.arange(batch, device="cuda")
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, capturable=True)
        self.scheme = RandomPartition(2)
        self.draw = draw_of(Key(0), 0, device="cuda")

    def step(self, key: Key, branch: int, draw: Tensor | None) -> Tensor:
        """Do a step; return its loss."""
        self.optimizer.zero_grad(set_to_none=False)
        seen = MaskedImage(
            self.image, self.scheme, key, STRIDE, sample=self.numbers, draw=draw
        )  # fmt: skip
        shown = seen.show(branch, channels_last=True)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            output = self.network(shown)
        loss = seen.distance(shown + output.float() if self.adds else output.float(), branch)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def record(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Return the graph of a step, and where its loss appears."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step(KEY, 0, self.draw)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.step(KEY, 0, self.draw)
        return graph, loss


def graphs() -> dict[str, Any]:
    """Return milliseconds of a step of one convolution and of the small U-Net, and of their graphs.

    Raises:
        AssertionError: a replay gives another loss than the step with the same masks.
    """
    torch.manual_seed(0)
    unet = AsymmetricMaskDenoiser("fast-unet").cuda().train()
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    rows = []
    for name, network, adds, share in (
        ("convolution", convolution, True, 1e-5),
        ("fast-unet", unet.backbone, bool(unet.residual), 1e-3),
    ):
        stepper = GraphStep(network, BATCH, CROP, adds=adds)
        graph, recorded = stepper.record()
        losses = []
        for number in range(4):
            key, branch = Key(5, 0, number), number % 2
            stepper.draw.copy_(draw_of(key, branch))
            graph.replay()
            expected = stepper.step(key, branch, None)
            torch.testing.assert_close(recorded, expected, rtol=share, atol=0)
            losses.append(float(expected))
        assert len(set(losses)) == 4, f"the masks of a graph do not change: {losses}"
        rows.append(
            {
                "network": name,
                "step_milliseconds": seconds_of_block(
                    lambda: stepper.step(KEY, 0, None), 20, "cuda"  # noqa: B023
                ) * 1e3,
                "graph_milliseconds": seconds_of_block(graph.replay, 20, "cuda") * 1e3,
            }
        )  # fmt: skip
    return {"rows": rows}


def overheads(pairs: int = 20, block: int = 10) -> dict[str, Any]:
    """Return what the scheme costs in a step of bf16 with a compiled network."""
    rows, failed = [], []
    for network in NETWORKS:
        for compiled in (True, False):
            try:
                rows.append(
                    overhead(
                        network, BATCH, CROP, "cuda", pairs=pairs, block=block,
                        precision=torch.bfloat16, compiled=compiled,
                    )
                )  # fmt: skip
            except Exception as error:  # compilers fail in many ways; the other rows are wanted
                failed.append({"network": network, "compiled": compiled, "error": repr(error)})
    return {"rows": rows, "failed": failed}


def throughput(pairs: int = 5, block: int = 10) -> dict[str, Any]:
    """Return steps a second in float32 without kernels, and in bf16 compiled, and their ratio."""
    rows = []
    for network in NETWORKS:
        slow = {"pairs": pairs, "block": block}
        with without_kernels():
            plain = overhead(network, BATCH, CROP, "cuda", **slow)
        kernels = overhead(network, BATCH, CROP, "cuda", **slow)
        fast = overhead(
            network, BATCH, CROP, "cuda", **slow, precision=torch.bfloat16, compiled=True
        )
        rates = {
            "eager_float32": plain["steps_per_second"],
            "float32_with_kernels": kernels["steps_per_second"],
            "bf16_compiled": fast["steps_per_second"],
        }
        ratio = rates["bf16_compiled"] / rates["eager_float32"]
        rows.append({"network": network, **rates, "ratio": ratio})
    return {"rows": rows, "tf32": torch.backends.cuda.matmul.allow_tf32}


def train(
    data: str, clean: str | None, out: Path, minutes: float, device: str = "cuda"
) -> dict[str, Any]:
    """Return what training runs on a folder came to: a masked network, and a student.

    Args:
        data: folder of noisy pictures.
        clean: folder of clean ones of the same names, to score with; or None.
        out: where models and their histories go, in folders of their own.
        minutes: budget of each.
        device: where they are trained.
    """
    made = {}
    for name, run in (("masked", fit_masked), ("student", learn_student)):
        torch.manual_seed(0)
        start = time.perf_counter()
        denoiser = run(data, minutes, device)
        seconds = time.perf_counter() - start
        denoiser.save_pretrained(out / name)
        (out / name / "history.json").write_text(json.dumps(denoiser.history, default=str))
        made[name] = {
            "seconds": seconds,
            "fit_record": json.loads(json.dumps(denoiser.fit_record, default=str)),
            "last": denoiser.history[-1] if denoiser.history else None,
        }
        if clean is not None:
            made[name]["scores"] = score(denoiser.to(device), data, clean)
    return made


def fit_masked(data: str, minutes: float, device: str) -> AsymmetricMaskDenoiser:
    """Return the default network, fitted for so long."""
    return AsymmetricMaskDenoiser("fast-unet").fit(
        data, minutes=minutes, batch_size=BATCH, crop=CROP, mixed_precision="bf16",
        compile=device == "cuda", device=device, progress=False,
    )  # fmt: skip


def learn_student(data: str, minutes: float, device: str) -> AsymmetricMaskDenoiser:
    """Return a student that has learnt the noise in two rounds, for so long in all."""
    student = AsymmetricMaskDenoiser("fast-student", preset="student")
    return student.learn_noise(
        data, minutes=minutes, rounds=2, mixed_precision="bf16", device=device, progress=False
    )


def score(denoiser: AsymmetricMaskDenoiser, data: str, clean: str) -> dict[str, Any]:
    """Return mean PSNR and SSIM of the pictures before and after."""
    from masked_denoise.evaluate import evaluate_pairs
    from masked_denoise.images.pairs import find_pairs

    pairs = find_pairs(data, clean).pairs
    denoiser.eval()
    result = evaluate_pairs(pairs, denoise=lambda pixels: denoiser.denoise(pixels))
    return {"pictures": len(result.scores), **result.mean}

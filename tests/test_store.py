"""Pictures held on a device, and training steps that nothing waits for."""

from __future__ import annotations

import functools
import itertools
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.errors import CheckpointError, SettingError
from masked_denoise.training import crops, store
from masked_denoise.training.batches import LoaderBatches
from masked_denoise.training.crops import CropBatches
from masked_denoise.training.loop import Trainer
from masked_denoise.training.pictures import Array, pictures_in_memory
from masked_denoise.training.settings import FitSettings
from masked_denoise.training.store import CropPlace, PixelStore, can_hold, crop_of

RNG = np.random.default_rng(0)
SIZES = ((3, 20, 31), (3, 17, 18), (3, 40, 16))
FAST: dict[str, Any] = {"batch_size": 2, "crop": 16, "progress": False}
DATA = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CPU = torch.device("cpu")


def pictures(dtype: str) -> list[Array]:
    return [RNG.integers(0, 60_000, size).astype(dtype) for size in SIZES]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int32", "float32", "float64"])
def test_gathered_crops_are_those_cut_one_by_one(dtype: str) -> None:
    arrays = pictures(dtype)
    held = PixelStore(arrays, CPU)
    assert held.dtype == torch.from_numpy(arrays[0].astype(arrays[0].dtype.newbyteorder("="))).dtype
    assert held.pixels.nbytes == sum(array.nbytes for array in arrays)
    chosen = [turn % 3 for turn in range(16)]
    places = [
        CropPlace((5 * k) % (SIZES[i][1] - 12), (7 * k) % (SIZES[i][2] - 12), k % 8)
        for k, i in enumerate(chosen)
    ]
    gathered = held.cut(chosen, places, 13)
    cut = [crop_of(arrays[i], place, 13) for i, place in zip(chosen, places, strict=True)]
    assert np.array_equal(gathered.numpy(), np.stack(cut))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_held_pictures_give_the_same_batches(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [np.moveaxis(array, 0, 2) for array in pictures(dtype)]
    settings = FitSettings(steps=1, batch_size=6, crop=16)

    def batches() -> tuple[list[Tensor], PixelStore | None]:
        made = CropBatches(pictures_in_memory(arrays, 3), settings)
        made.value_range = (0.0, 60_000.0)
        stream = made.start(3, lambda number: 8)
        return [*made.held_out(4), *itertools.islice(stream, 3)], made._store

    one_by_one, nothing = batches()
    monkeypatch.setattr(crops, "can_hold", lambda *_: True)
    gathered, held = batches()
    assert nothing is None
    assert held is not None
    assert all(map(torch.equal, one_by_one, gathered))
    assert gathered[0].dtype == torch.float32


def test_pictures_are_held_where_they_are_alike_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = pictures_in_memory([np.zeros((30, 30), np.uint8)] * 4, 1)
    mixed = pictures_in_memory([np.zeros((30, 30), np.uint8), np.zeros((30, 30))], 1)
    gpu = torch.device("cuda")
    monkeypatch.setattr(store, "free_memory", lambda device: 4 * 4 * 900)
    assert can_hold(made, gpu)
    assert not can_hold(mixed, gpu)
    assert not can_hold(made, CPU)
    monkeypatch.setattr(store, "free_memory", lambda device: 4 * 4 * 900 - 1)
    assert not can_hold(made, gpu)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("hold", [True, False])
def test_batches_on_a_gpu_have_the_same_bits(
    dtype: str, hold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FitSettings(steps=1, batch_size=6, crop=16)
    found = []
    if not hold:
        monkeypatch.setattr(crops, "can_hold", lambda *_: False)
    arrays = [torch.from_numpy(array) for array in pictures(dtype)]
    loader = [torch.from_numpy(np.stack([pictures(dtype)[0]]))]
    for device in ("cpu", "cuda"):
        for batches in (
            CropBatches(pictures_in_memory(arrays, 3), settings),
            LoaderBatches(loader, 3, seed=0),
        ):
            batches.value_range, batches.device = (0.0, 60_000.0), torch.device(device)
            stream = batches.start(0, lambda number: 8)
            found.append(next(stream))
            assert found[-1].device.type == device
    assert torch.equal(found[0], found[2].cpu())
    assert torch.equal(found[1], found[3].cpu())


# -- steps that nothing waits for -----------------------------------------------------------------


class Reads(TorchDispatchMode):
    """Counts the operators that make the CPU wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        indices = args[1] if name.startswith("aten.index.") else []
        boolean = any(index is not None and index.dtype == torch.bool for index in indices)
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default")
        if boolean or any(word in name for word in waits):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("smooth", [0, 1])
def test_a_step_reads_nothing_back(smooth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops, "can_hold", lambda *_: True)
    step, seen = Trainer._step, []

    def watched(self: Trainer, *arguments: Any) -> None:
        with Reads() as reads:
            step(self, *arguments)
        seen.append(reads.seen)

    monkeypatch.setattr(Trainer, "_step", watched)
    denoiser = AsymmetricMaskDenoiser(backbone_args={"widths": (4, 8)})
    share = 0.5 * smooth
    denoiser.fit(DATA, steps=4, smooth_steps=share, accumulate=2, validation=False, **FAST)
    assert seen == [[]] * 4
    with Reads() as reads:
        torch.ones(3)[torch.ones(3) > 0].sum().item()
    assert len(reads.seen) >= 2


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("hold", [True, False])
def test_the_cpu_waits_for_no_step_on_a_gpu(
    precision: str, hold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hold:
        monkeypatch.setattr(crops, "can_hold", lambda *_: False)
    step = Trainer._step

    def watched(self: Trainer, *arguments: Any) -> None:
        if self.step < 3:  # kernels are compiled
            return step(self, *arguments)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "_step", watched)
    denoiser = AsymmetricMaskDenoiser(backbone_args={"widths": (4, 8)})
    denoiser.fit(DATA, steps=8, mixed_precision=precision, validation=False, **FAST)
    assert denoiser.fit_record["steps"] == 8


def test_weights_that_are_not_finite_are_seen() -> None:
    from masked_denoise.training.learner import Learner

    learner = Learner.__new__(Learner)
    learner.weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(0, 2))]
    assert learner.is_finite()
    for bad in (torch.nan, torch.inf, -torch.inf):
        learner.weights[0].data[1] = bad
        assert not learner.is_finite()


# -- compiled -------------------------------------------------------------------------------------


class Plain(nn.Module):
    """A small network with running statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout2d(0.3),
                nn.Conv2d(4, 3, 3, padding=1),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Killed(Exception):
    """Stands for whatever ends a process."""


def kill(entry: dict[str, Any]) -> None:
    if entry["step"] == 4:
        raise Killed


def same(one: AsymmetricMaskDenoiser, other: AsymmetricMaskDenoiser) -> bool:
    first, second = one.backbone.state_dict(), other.backbone.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_compiled_run_has_plain_names_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = functools.partial(torch.compile, backend="eager")  # traced, and run as it is
    monkeypatch.setattr(torch, "compile", eager)
    plain, whole, broken, resumed = (AsymmetricMaskDenoiser(Plain()) for _ in range(4))
    attributes = set(vars(whole.backbone))
    told: dict[str, Any] = {"steps": 6, "save_every": 2, "keep": "last", **FAST}
    plain.fit(DATA, **told)
    whole.fit(DATA, compile=True, **told)
    assert (plain.fit_record["compiled"], whole.fit_record["compiled"]) == (False, True)
    assert whole.fit_record["settings"]["compile"] is True
    assert set(vars(whole.backbone)) == attributes
    assert same(plain, whole)
    told |= {"compile": True, "output": tmp_path}
    with pytest.raises(Killed):
        broken.fit(DATA, callback=kill, **told)
    assert set(vars(broken.backbone)) == attributes
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    for name in ("backbone", "average"):
        assert state[name].keys() == plain.backbone.state_dict().keys()
    with pytest.raises(CheckpointError, match="compile: True then, False now"):
        resumed.fit(DATA, resume=True, **{**told, "compile": False})
    resumed.fit(DATA, resume=True, **told)
    assert same(resumed, whole)


def test_without_a_compiler_training_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            raise RuntimeError("no compiler here\nlong story")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    plain, tried = AsymmetricMaskDenoiser(Plain()), AsymmetricMaskDenoiser(Plain())
    plain.fit(DATA, steps=3, **FAST)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tried.fit(DATA, steps=3, compile=True, **FAST)
    texts = [str(one.message) for one in caught if "compile=True" in str(one.message)]
    assert texts == [
        "training goes on without compile=True, since torch.compile failed: no compiler here"
    ]
    assert tried.fit_record["compiled"] is False
    assert same(plain, tried)


def test_what_the_network_cannot_do_is_not_blamed_on_the_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("not in training")
            return super().forward(x)

    monkeypatch.setattr(torch, "compile", lambda function: function)
    denoiser = AsymmetricMaskDenoiser(Failing())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="not in training"):
            denoiser.fit(DATA, steps=3, compile=True, **FAST)
    assert "forward" not in vars(denoiser.backbone)
    with pytest.raises(SettingError, match="compile is 'yes'"):
        denoiser.fit(DATA, steps=3, compile="yes", **FAST)  # type: ignore[arg-type]


# -- the rate of steps ----------------------------------------------------------------------------


def test_the_rate_of_steps_is_that_of_the_time_spent() -> None:
    denoiser = AsymmetricMaskDenoiser(Plain()).fit(DATA, steps=50, **FAST)
    before = [{"step": 0, "seconds": 0.0}, *denoiser.history]
    for last, entry in itertools.pairwise(before):
        steps, seconds = entry["step"] - last["step"], entry["seconds"] - last["seconds"]
        assert entry["steps_per_second"] == pytest.approx(steps / seconds)
    rates = [entry["steps_per_second"] for entry in denoiser.history]
    assert denoiser.fit_record["steps_per_second"] == pytest.approx(
        statistics.median(rates), abs=1e-3
    )


def test_the_terminal_tells_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    from masked_denoise.commands.learning import finish_run
    from masked_denoise.commands.terminal import Terminal

    record = {"steps": 9, "seconds": 3.0, "steps_per_second": 3.14159, "stopped": "steps"}
    finish_run(Terminal(False), Path("model"), record, [])
    assert ", 3.14 steps/s)" in "".join(capsys.readouterr())

"""Training: it learns, it comes back exactly, it stops well, and it leaves nothing behind."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import masked_denoise
from masked_denoise import AsymmetricMaskDenoiser, Checkerboard, RandomPartition
from masked_denoise.denoiser import from_pretrained
from masked_denoise.errors import (
    BackboneError,
    CheckpointError,
    DataError,
    SettingError,
    SizeError,
    TrainingError,
)
from masked_denoise.images import ImageFile, write_image
from masked_denoise.metrics import psnr
from masked_denoise.noise import measure_noise
from masked_denoise.presets import PRESETS
from masked_denoise.training import session
from masked_denoise.training.schedule import UNKNOWN, Schedule
from masked_denoise.training.settings import FitSettings, fit_settings
from masked_denoise.training.validation import CleanPairs, Scores
from masked_denoise.values import CountRange

FAST: dict[str, Any] = {"batch_size": 2, "crop": 16, "progress": False}


def clean_picture() -> np.ndarray[Any, Any]:
    y, x = np.mgrid[:64, :64] / 64
    return np.stack([x, y, 0.5 + 0.4 * np.sin(9 * x) * np.cos(7 * y)], -1) * 0.8 + 0.1


CLEAN = clean_picture()
NOISY = np.clip(CLEAN + np.random.default_rng(0).normal(0, 0.1, CLEAN.shape), 0, 1)
DATA = (NOISY * 255).round().astype(np.uint8)


def make(seed: int = 0, **recipe: Any) -> AsymmetricMaskDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AsymmetricMaskDenoiser(backbone_args={"widths": (4, 8)}, **recipe)


class Dropping(nn.Module):
    """A small network that draws random numbers and has running statistics."""

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


def weights(denoiser: AsymmetricMaskDenoiser) -> list[Tensor]:
    return [value.detach().clone() for value in denoiser.backbone.state_dict().values()]


def same(one: AsymmetricMaskDenoiser, other: AsymmetricMaskDenoiser) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


class Killed(Exception):
    """Stands for whatever ends a process."""


def kill_at(step: int) -> Any:
    def callback(entry: dict[str, Any]) -> None:
        if entry["step"] >= step:
            raise Killed

    return callback


# -- what comes out ---------------------------------------------------------------------------


def test_it_learns_to_denoise() -> None:
    scheme = RandomPartition(2, fill="zero")
    denoiser = AsymmetricMaskDenoiser(nn.Conv2d(3, 3, 5, padding=2), scheme=scheme, train_stride=1)
    untrained, noisy = (float(psnr(x, CLEAN)) for x in (denoiser.denoise(NOISY), NOISY))
    assert denoiser.fit(DATA, steps=150, learning_rate=0.02, **FAST) is denoiser
    assert float(psnr(denoiser.denoise(NOISY), CLEAN)) > max(untrained + 10, noisy + 1)
    losses = [entry["loss"] for entry in denoiser.history]
    assert losses[-1] < losses[0]
    assert denoiser.fit_record["steps"] == denoiser.history[-1]["step"] == 150


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    one, two, three = make(), make(), make()
    one.fit(DATA, steps=5, **FAST)
    two.fit(DATA, steps=5, **FAST)
    three.fit(DATA, steps=5, seed=1, **FAST)
    assert same(one, two)
    assert not same(one, three)


@pytest.mark.parametrize("there", [True, False])
def test_named_networks_train_in_bf16_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr("masked_denoise.training.session.computes_bf16", lambda device: there)
    narrow = {"backbone_args": {"widths": (4, 8)}}
    named = AsymmetricMaskDenoiser("fast-unet", preset="default", **narrow)
    seen = []
    handle = named.backbone.register_forward_hook(lambda *told: seen.append(told[2].dtype))
    named.fit(DATA, steps=2, **FAST, device="cpu", validation=False)
    handle.remove()
    assert named.fit_record["settings"]["mixed_precision"] == ("bf16" if there else "no")
    assert seen[-1] == (torch.bfloat16 if there else torch.float32)
    assert all(weight.dtype == torch.float32 for weight in named.parameters())
    for other, settings in (
        (AsymmetricMaskDenoiser(Dropping()), {}),  # one's own: nobody knows its gradients
        (AsymmetricMaskDenoiser("dbsn", backbone_args={"width": 4, "blocks": 1}), {}),
        (AsymmetricMaskDenoiser("fast-unet", **narrow), {"mixed_precision": "no"}),
        (AsymmetricMaskDenoiser("fast-unet", preset="amsnet", **narrow), {}),
    ):
        other.fit(DATA, steps=2, **FAST, device="cpu", validation=False, **settings)
        assert other.fit_record["settings"]["mixed_precision"] == "no"


@pytest.mark.parametrize(
    ("gpu", "computes", "precision"),
    [("cuda", "cuda", "bf16"), ("cuda", "cpu", "no"), ("", "cpu", "bf16"), ("", "cuda", "no"),
     ("mps", "cpu", "no")],
)  # fmt: skip
def test_auto_is_bf16_where_the_device_of_training_has_it(
    monkeypatch: pytest.MonkeyPatch, gpu: str, computes: str, precision: str
) -> None:
    monkeypatch.setattr(session, "computes_bf16", lambda device: device.type == computes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: gpu == "mps")
    assert session._precision("auto", False, True) == precision
    assert session._precision("auto", False, False) == "no"
    assert session._precision("fp16", False, True) == "fp16"
    assert session._precision("auto", True, True) == ("bf16" if computes == "cpu" else "no")


def test_nothing_is_left_behind() -> None:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    denoiser = AsymmetricMaskDenoiser(Dropping())
    attributes = set(vars(denoiser))
    generator, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    denoiser.fit(DATA, steps=3, mixed_precision="bf16", **FAST)
    denoiser.fit(DATA, steps=3, accumulate=2, **FAST)  # another precision in the same process
    assert set(vars(denoiser)) == attributes
    assert torch.equal(generator, torch.get_rng_state())
    assert signal.getsignal(signal.SIGINT) is handler
    for kind in (PartialState, AcceleratorState, GradientState):
        assert kind._shared_state == {}
    assert not denoiser.training
    assert all(weight.grad is None for weight in denoiser.parameters())
    assert denoiser(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def test_averaged_weights_end_up_in_the_backbone(tmp_path: Path) -> None:
    averaged, plain = make(preset="default"), make(preset="default")
    averaged.fit(DATA, steps=8, output=tmp_path, **FAST)
    plain.fit(DATA, steps=8, ema_decay=0, **FAST)
    assert not same(averaged, plain)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    raw = list(state["backbone"].values())
    assert all(map(torch.equal, raw, weights(plain)))
    assert all(map(torch.equal, state["average"].values(), weights(averaged)))
    image = torch.rand(3, 16, 16)
    for path in (tmp_path, tmp_path / "last.pt"):
        assert torch.equal(from_pretrained(path).denoise(image), averaged.denoise(image))


def test_accumulated_batches_are_as_good_as_a_large_one() -> None:
    recipe: dict[str, Any] = {"scheme": RandomPartition(1, fill="zero"), "residual": False}
    one, two = make(**recipe), make(**recipe)  # all pixels scored: means of equal size
    settings: dict[str, Any] = {"crop": 16, "progress": False, "warmup_steps": 0, "clip_norm": 0}
    one.fit(DATA, steps=3, batch_size=4, **settings)
    two.fit(DATA, steps=3, batch_size=2, accumulate=2, **settings)
    for a, b in zip(weights(one), weights(two), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_stage_p_runs_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    denoiser = make()
    forward = denoiser.forward

    def spy(image: Tensor, **given: Any) -> Tensor:
        told.append(given["smoothness"])
        return forward(image, **given)

    monkeypatch.setattr(AsymmetricMaskDenoiser, "forward", lambda self, *a, **k: spy(*a, **k))
    denoiser.fit(DATA, steps=5, smooth_steps=0.4, smoothness=0.02, validation=False, **FAST)
    assert told == [None, None, None, 0.02, 0.02]


def test_several_strides_and_schemes_train() -> None:
    denoiser = make(train_stride=(1, 2, 3), scheme=RandomPartition(3))
    assert denoiser.fit(DATA, steps=6, **FAST).history[-1]["loss"] > 0


# -- budgets and schedule ---------------------------------------------------------------------


def test_epochs_count_passes_over_the_data() -> None:
    loader = DataLoader(torch.from_numpy(DATA).permute(2, 0, 1).repeat(6, 1, 1, 1), batch_size=2)
    assert make().fit(loader, epochs=2, progress=False).fit_record["steps"] == 6
    assert make().fit(loader, epochs=2, accumulate=2, progress=False).fit_record["steps"] == 3
    assert make().fit(DATA, epochs=1, **FAST).fit_record["steps"] == 8  # 16 crops cover it
    with pytest.raises(SettingError, match="no length"):
        make().fit(iter([torch.rand(1, 3, 16, 16)] * 3), epochs=1, progress=False)


def test_minutes_are_kept() -> None:
    denoiser = make()
    denoiser.fit(DATA, minutes=0.06, smooth_steps=0.25, warmup_steps=3, **FAST)
    assert denoiser.fit_record["seconds"] == pytest.approx(3.6, rel=0.25)
    rates = [entry["learning_rate"] for entry in denoiser.history]
    assert rates[-1] < 0.2e-3


def test_minutes_follow_a_changing_speed() -> None:
    schedule = Schedule(FitSettings(minutes=1, warmup_steps=0), None)
    assert schedule.expected_steps is None
    seconds, step, rates = 0.0, 0, []
    while schedule.stage_at(step):
        rates.append(schedule.factor(step))
        step += 1
        seconds += 0.5 if step < 5 else 0.1 if step < 200 else 0.3  # slow, fast, slower
        if step % 20 == 0:
            schedule.mark(step, seconds)
    assert seconds == pytest.approx(60, rel=0.05)
    assert rates[-1] < 0.02
    assert rates[0] == 1


def test_stages_in_minutes_share_the_time() -> None:
    schedule = Schedule(FitSettings(minutes=1, smooth_steps=0.5), None)
    seconds, step, first = 0.0, 0, None
    while stage := schedule.stage_at(step):
        if stage.smooth and first is None:
            first = (step, seconds)
        seconds += 0.2 if stage.smooth else 0.1
        step += 1
        if step % 20 == 0:
            schedule.mark(step, seconds)
    assert first is not None
    assert first[1] == pytest.approx(30, rel=0.1)
    assert seconds == pytest.approx(60, rel=0.05)


def test_the_learning_rate_rises_and_falls_in_each_stage() -> None:
    schedule = Schedule(FitSettings(steps=100, smooth_steps=40, warmup_steps=10), 100)
    rates = []
    for step in range(100):
        stage = schedule.stage_at(step)
        assert stage is not None
        assert stage.smooth == (step >= 60)
        rates.append(schedule.factor(step))
    assert schedule.stage_at(100) is None
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(max(rates[8:12]))
    assert rates[59] < 0.001
    assert rates[60] == pytest.approx(0.1)
    assert rates[99] < 0.002


def test_a_budget_in_minutes_goes_on_where_it_was() -> None:
    schedule = Schedule(FitSettings(minutes=1), None)
    for step in (20, 40):
        schedule.mark(step, step * 0.1)
    again = Schedule(FitSettings(minutes=1), None)
    again.load_state(schedule.state())
    assert again.expected_steps == pytest.approx(600, abs=2)
    again.mark(60, 61.0)
    assert again.stage_at(60) is None
    assert Schedule(FitSettings(minutes=1), None).stages[0].steps == UNKNOWN


def test_long_runs_go_no_further_than_short_ones() -> None:
    def way(steps: int, **enough: float) -> float:
        schedule = Schedule(FitSettings(steps=steps), steps, **enough)
        return sum(schedule.factor(step) for step in range(steps))

    assert way(400, full_rate_steps=400) == way(400)
    assert way(4000, full_rate_steps=400) == pytest.approx(way(400), rel=0.15)
    assert way(4000) > 8 * way(400)
    unknown = Schedule(
        FitSettings(minutes=1), None, full_rate_steps=400
    )  # the speed is not known yet
    assert unknown.factor(100) == Schedule(FitSettings(minutes=1), None).factor(100)


def test_only_masked_networks_under_correlated_noise_are_held_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    init = Schedule.__init__

    def watched(self: Schedule, *told: Any, full_rate_steps: float) -> None:
        seen.append(full_rate_steps)
        init(self, *told, full_rate_steps=full_rate_steps)

    monkeypatch.setattr(Schedule, "__init__", watched)
    for recipe in ({"preset": "default"}, {"preset": "independent"}, {"preset": "amsnet"},
                   {"preset": "default", "train_stride": 1}):  # fmt: skip
        make(**recipe).fit(DATA, steps=1, **FAST)
    for rate in (2e-3, 1e-3):  # what is given is taken, be it the default
        make(preset="default").fit(DATA, steps=1, learning_rate=rate, **FAST)
    assert seen == [3000, *[math.inf] * 5]


def test_given_settings_win_over_the_preset_and_all_presets_are_known() -> None:
    for name, recipe in PRESETS.items():
        assert fit_settings(recipe["fit"], {}), name
    paper = PRESETS["amsnet-p"]["fit"]
    assert fit_settings(paper, {"minutes": 3}).steps is None
    assert fit_settings(paper, {"minutes": 3}).learning_rate == 1e-4
    assert fit_settings(paper, {"learning_rate": 1.0, "steps": None}).learning_rate == 1
    assert fit_settings({}, {}).minutes == 2
    denoiser = AsymmetricMaskDenoiser(nn.Conv2d(3, 3, 3, padding=1), preset="amsnet-p")
    assert denoiser.fit(DATA, steps=5, **FAST).fit_record["settings"]["betas"] == [0.9, 0.999]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 3, "minutes": 1}, "steps and minutes given"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "whole number"),
        ({"minutes": -1}, "minutes is -1"),
        ({"steps": 5, "ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"steps": 5, "betas": (0.9,)}, "two numbers"),
        ({"steps": 5, "betas": 0.9}, "two numbers"),
        ({"steps": "five"}, "steps is 'five'"),
        ({"steps": 5, "crop": True}, "crop is True"),
        ({"steps": 5, "loss": "l3"}, "l1, l2"),
        ({"steps": 5, "mixed_precision": "fp4"}, "fp4"),
        ({"steps": 5, "keep": "all"}, "auto, best, last"),
        ({"steps": 5, "smooth_steps": 1.5}, "smooth_steps is 1.5"),
        ({"steps": 5, "smooth_steps": 6}, "more than the 5 steps"),
        ({"minutes": 5, "smooth_steps": 600}, "share of it"),
        ({"steps": 5, "resume": True}, "needs output"),
        ({"steps": 5, "save_every": 0}, "save_every is 0"),
        ({"steps": 5, "batch_size": "8"}, "batch_size is '8'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        make().fit(DATA, **settings)


# -- resuming ---------------------------------------------------------------------------------

RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "stage B": (DATA, {"steps": 30}),
    "into stage P": (DATA, {"steps": 30, "smooth_steps": 0.5}),
    "inside stage P": (DATA, {"steps": 30, "smooth_steps": 25, "ema_decay": 0}),
    "accumulated": (DATA, {"steps": 30, "accumulate": 2, "keep": "best"}),
    "loader": (
        DataLoader(torch.from_numpy(DATA).view(-1, 3, 16, 16), batch_size=3, shuffle=True),
        {"steps": 30},
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_a_run_that_broke_off_ends_as_if_it_had_not(run: Any, tmp_path: Path) -> None:
    data, settings = run
    settings = {"keep": "last", **FAST, **settings, "output": tmp_path / "a", "save_every": 7}
    networks = [AsymmetricMaskDenoiser(Dropping()) for _ in range(3)]
    networks[0].fit(data, **settings)
    settings["output"] = tmp_path / "b"
    with pytest.raises(Killed):
        networks[1].fit(data, callback=kill_at(20), **settings)
    assert torch.load(tmp_path / "b" / "last.pt", weights_only=True)["step"] == 14
    networks[2].fit(data, resume=True, **settings)
    assert same(networks[0], networks[2])
    for name in ("backbone", "average", "optimizer"):
        one, two = (
            torch.load(tmp_path / folder / "last.pt", weights_only=True)[name] for folder in "ab"
        )
        assert _equal(one, two)


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_equal, one, two))
    return bool(one == two)


SCRIPT = """
import os, signal, sys
import numpy as np, torch
from masked_denoise import AsymmetricMaskDenoiser
torch.set_num_threads(int(sys.argv[3]))
torch.manual_seed(0)
denoiser = AsymmetricMaskDenoiser(backbone_args={"widths": (4, 8)})
kill = lambda entry: entry["step"] == 20 and os.kill(os.getpid(), signal.SIGKILL)
denoiser.fit(np.load(sys.argv[1]), steps=30, batch_size=2, crop=16, smooth_steps=12,
             output=sys.argv[2], save_every=9, progress=False, callback=kill)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_process_can_be_resumed(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", DATA)
    threads = torch.get_num_threads()
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "data.npy", tmp_path / "run", str(threads)],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": str(threads)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] == 18
    settings: dict[str, Any] = {"steps": 30, "smooth_steps": 12, **FAST}
    resumed, whole = make(seed=5), make()
    resumed.fit(DATA, resume=True, output=tmp_path / "run", **settings)
    whole.fit(DATA, **settings)
    assert same(resumed, whole)


def test_a_finished_run_is_left_as_it_is_and_a_missing_one_begun(tmp_path: Path) -> None:
    one, two = make(), make(seed=3)
    one.fit(DATA, steps=5, output=tmp_path, resume=True, **FAST)
    two.fit(DATA, steps=5, output=tmp_path, resume=True, **FAST)
    assert same(one, two)
    assert len(two.history) == len(one.history)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        make().fit(DATA, steps=5, resume=tmp_path / "no.pt", **FAST)


def test_what_differs_from_the_run_is_named(tmp_path: Path) -> None:
    make(preset="default").fit(DATA, steps=3, output=tmp_path, **FAST)
    with pytest.raises(CheckpointError, match=r"steps: 3 then, 4 now; learning_rate: 0\.001 then"):
        make(preset="default").fit(DATA, steps=4, learning_rate=0.1, resume=tmp_path, **FAST)
    with pytest.raises(CheckpointError, match="train_stride"):
        make(train_stride=3).fit(DATA, steps=3, resume=tmp_path, **FAST)
    with pytest.raises(CheckpointError, match="backbone"):
        AsymmetricMaskDenoiser(Dropping()).fit(DATA, steps=3, resume=tmp_path, **FAST)
    with pytest.raises(CheckpointError, match=r"only last\.pt"):
        make().fit(DATA, steps=3, resume=tmp_path / "best.pt", **FAST)
    other = make(preset="default", passes=2)
    other.fit(DATA, steps=3, resume=tmp_path, **FAST)  # passes are of no account in training


def test_a_measured_range_is_kept_in_a_resumed_run(tmp_path: Path) -> None:
    data = NOISY.astype(np.float32) * 4000
    one, two = make(), make()
    one.fit(data, steps=3, output=tmp_path, **FAST)
    assert one.value_range is not None
    assert 2500 < one.value_range[1] < 4001
    two.fit(data[:40], steps=3, resume=tmp_path, **FAST)
    assert two.value_range == one.value_range
    assert same(one, two)
    assert 500 < float(one.denoise(data).mean()) < 3000


# -- stopping ---------------------------------------------------------------------------------


def test_ctrl_c_stops_after_the_step_and_keeps_the_model(tmp_path: Path) -> None:
    class Pressing:
        def __init__(self) -> None:
            self.count = 0

        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> Tensor:
            self.count += 1
            if self.count == 40:
                signal.raise_signal(signal.SIGINT)
            return torch.from_numpy(DATA).permute(2, 0, 1)

    denoiser = make()
    denoiser.fit(Pressing(), steps=500, output=tmp_path, **FAST)
    assert denoiser.fit_record["stopped"] == "interrupted"
    assert 1 < denoiser.fit_record["steps"] < 40
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["step"] == denoiser.fit_record["steps"]
    assert all(map(torch.equal, state["average"].values(), weights(denoiser)))


def test_a_second_ctrl_c_or_one_in_a_callback_stops_at_once(tmp_path: Path) -> None:
    def press(entry: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    denoiser = make().fit(DATA, steps=500, callback=press, output=tmp_path, **FAST)
    assert denoiser.fit_record["steps"] == 20
    resumed = make().fit(DATA, steps=500, resume=tmp_path, callback=press, **FAST)
    assert resumed.fit_record["steps"] == 40


class Exploding(nn.Module):
    """Gives NaN, or weights that are no longer finite, after so many training passes."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.at, self.how, self.count = at, how, 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.training:
            self.count += 1
            if self.count == self.at and self.how == "loss":
                return y * torch.nan
            if self.count == self.at:
                y.register_hook(lambda gradient: gradient * torch.inf)
        return y


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_with_good_weights(how: str, tmp_path: Path) -> None:
    denoiser = AsymmetricMaskDenoiser(Exploding(147, how), preset="default")
    with pytest.raises(TrainingError) as caught:
        denoiser.fit(DATA, steps=400, output=tmp_path, validation=False, **FAST)
    assert f"at step {147 if how == 'loss' else 148}" in str(caught.value)
    assert "the weights of step 100 again" in str(caught.value)
    assert "lower learning_rate (now 0.001)" in str(caught.value)
    assert all(bool(weight.isfinite().all()) for weight in denoiser.parameters())
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["step"] == 100
    assert all(map(torch.equal, state["average"].values(), weights(denoiser)))
    good = AsymmetricMaskDenoiser(Exploding(10**6, how), preset="default")
    good.fit(DATA, steps=400, resume=tmp_path, validation=False, callback=_stop, **FAST)
    assert bool(good.denoise(torch.rand(3, 16, 16)).isfinite().all())


def _stop(entry: dict[str, Any]) -> None:
    raise KeyboardInterrupt


def test_data_that_fail_on_the_way_leave_finite_weights() -> None:
    denoiser = make()
    with pytest.raises(DataError, match="ended after 4"):
        denoiser.fit(iter([torch.rand(1, 3, 16, 16)] * 5), steps=50, progress=False)
    assert denoiser.fit_record["stopped"] == "failed"
    assert bool(denoiser.denoise(torch.rand(3, 16, 16)).isfinite().all())


def test_a_network_that_cannot_be_copied_trains_without_average() -> None:
    class Uncopied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.scale = torch.ones((), requires_grad=True) * 1.0  # no leaf

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.scale.detach()  # type: ignore[no-any-return]

    with pytest.raises(BackboneError, match="ema_decay=0"):
        AsymmetricMaskDenoiser(Uncopied()).fit(DATA, steps=1, **FAST)


def test_networks_without_weights_and_wrong_channels_are_refused() -> None:
    with pytest.raises(BackboneError, match="no weights to train"):
        AsymmetricMaskDenoiser(nn.Identity()).fit(DATA, steps=1, **FAST)
    with pytest.raises(SizeError, match="takes 3 channels"):
        make().fit(DATA[..., :1], steps=1, **FAST)


def test_a_full_disk_stops_the_run_but_not_the_denoiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    denoiser = make()
    monkeypatch.setattr("masked_denoise.training.states.try_folder", lambda folder: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*last\.pt"):
            denoiser.fit(DATA, steps=9, output=tmp_path, validation=False, **FAST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    assert denoiser.fit_record["steps"] == 9
    assert bool(denoiser.denoise(torch.rand(3, 16, 16)).isfinite().all())
    kept = make().fit(DATA, steps=9, validation=False, **FAST)  # the averaged weights are there
    assert same(denoiser, kept)


def test_a_full_disk_keeps_what_an_earlier_run_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make().fit(DATA, steps=2, output=tmp_path, **FAST)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "last.pt" in before
    monkeypatch.setattr(
        "masked_denoise.training.states.save_state", _raising(CheckpointError("full"))
    )
    with pytest.raises(CheckpointError, match="full"):
        make().fit(DATA, steps=2, output=tmp_path, **FAST)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    denoiser = make()
    before = weights(denoiser)
    with pytest.raises(CheckpointError, match=r"output=.*file/run: .*file is not a folder"):
        denoiser.fit(DATA, steps=10**6, output=tmp_path / "file" / "run", **FAST)
    assert all(map(torch.equal, before, weights(denoiser)))


def test_a_new_run_leaves_nothing_of_an_older_one(tmp_path: Path) -> None:
    make().fit(DATA, steps=4, output=tmp_path, validate_every=2, **FAST)
    old = AsymmetricMaskDenoiser.from_pretrained(tmp_path)
    old.save_pretrained(tmp_path, training_data="pictures of A", before_after=DATA)
    assert {"README.md", "before_after.png", "best.pt"} <= {p.name for p in tmp_path.iterdir()}
    make(1).fit(DATA, steps=2, output=tmp_path, validation=False, **FAST)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["config.json", "last.pt", "model.safetensors"]
    (tmp_path / "README.md").write_text("of my own")
    make(1).fit(DATA, steps=2, output=tmp_path, validation=False, **FAST)
    assert (tmp_path / "README.md").read_text() == "of my own"
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    make(1).fit(DATA, steps=2, output=tmp_path, validation=False, resume=True, **FAST)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"steps": np.int64(2), "batch_size": 2.0, "crop": np.float32(16)}, (2, 2, 16)),
        ({"minutes": np.float32(0.5)}, (None, 2, 128)),
    ],
)
def test_numbers_of_all_kinds_are_taken(given: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    settings = FitSettings(**given)
    assert (settings.steps, settings.batch_size, settings.crop) == wanted
    assert type(settings.crop) is int
    settings.to_json()


# -- validation -------------------------------------------------------------------------------


def test_clean_pairs_are_scored_and_the_best_weights_kept(tmp_path: Path) -> None:
    noisy, clean = tmp_path / "noisy", tmp_path / "clean"
    write_image(noisy / "a_real.png", ImageFile(DATA))
    write_image(noisy / "b_real.png", ImageFile(DATA))
    write_image(clean / "a_mean.png", ImageFile((CLEAN * 255).round().astype(np.uint8)))
    runs = [make(preset="default"), make(preset="default")]
    pairs = [(noisy, clean), [(DATA, (CLEAN * 255).round().astype(np.uint8))]]
    for run, validation in zip(runs, pairs, strict=True):
        run.fit(DATA, steps=20, validation=validation, validate_every=5, **FAST)
    scores = [entry["score"] for entry in runs[0].history if "score" in entry]
    assert len(scores) == 4
    assert 15 < scores[0] < 40
    assert scores == [entry["score"] for entry in runs[1].history if "score" in entry]
    best = runs[0].fit_record["best"]
    assert best["score"] == max(scores)
    denoised = runs[0].denoise(DATA, passes=1)
    assert float(psnr(denoised, pairs[1][0][1])) == pytest.approx(max(scores), abs=1e-4)
    write_image(tmp_path / "other" / "c.png", ImageFile(DATA))
    with pytest.raises(DataError, match="no file of"):
        make().fit(DATA, steps=5, validation=(noisy, tmp_path / "other"), **FAST)
    with pytest.raises(SizeError, match="same shape"):
        make().fit(DATA, steps=5, validation=[(DATA, DATA[:5])], **FAST)
    with pytest.raises(DataError, match="validation is 3"):
        make().fit(DATA, steps=5, validation=3, **FAST)
    with pytest.raises(DataError, match="no pair"):
        make().fit(DATA, steps=5, validation=[], **FAST)


def test_fixed_masks_give_the_same_score_to_the_same_weights() -> None:
    denoiser = make()
    denoiser.fit(DATA, steps=3, learning_rate=1e-30, validate_every=1, **FAST)
    scores = [entry["score"] for entry in denoiser.history]
    assert len(scores) == 3
    assert scores[0] == pytest.approx(scores[2], abs=1e-6)
    assert scores[0] > 0


def test_training_stops_when_the_score_falls(tmp_path: Path) -> None:
    class Falling(Scores):
        def add(self, score: float, step: int, weights: dict[str, Tensor]) -> bool:
            return super().add(50.0 - step, step, weights)

    from masked_denoise.training import loop as train

    original, train.Scores = train.Scores, Falling  # type: ignore[misc]
    try:
        denoiser = make().fit(DATA, steps=13, validate_every=2, patience=2, output=tmp_path, **FAST)
    finally:
        train.Scores = original  # type: ignore[misc]
    assert denoiser.fit_record["stopped"] == "worse"
    assert denoiser.fit_record["steps"] == 8
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["step"] == 2
    assert all(map(torch.equal, best["backbone"].values(), weights(denoiser)))


def test_stage_p_is_scored_by_its_own_loss() -> None:
    denoiser = make().fit(DATA, steps=20, smooth_steps=10, validate_every=5, smoothness=5.0, **FAST)
    scores = [entry["score"] for entry in denoiser.history if "score" in entry]
    assert scores[2] < scores[1] - 3  # all branches and a large lambda
    assert denoiser.fit_record["best"]["step"] >= 10
    assert denoiser.fit_record["stopped"] == "finished"


def test_scores_count_only_what_is_clearly_worse() -> None:
    scores = Scores(None, None)
    empty: dict[str, Tensor] = {}
    worse = []
    for score in (30.0, 31.0, 30.97, 30.9, 30.8, 31.5, 31.0):
        scores.add(score, 0, empty)
        worse.append(scores.worse)
    assert worse == [0, 0, 0, 1, 2, 0, 1]


# -- accelerate -------------------------------------------------------------------------------


def test_trackers_are_told() -> None:
    from accelerate.tracking import GeneralTracker, on_main_process

    class Remembering(GeneralTracker):  # type: ignore[misc]
        name = "remembering"
        requires_logging_directory = False

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, dict[str, Any]]] = []

        @property
        def tracker(self) -> list[Any]:
            return self.seen

        @on_main_process  # type: ignore[untyped-decorator]
        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self.config = values

        @on_main_process  # type: ignore[untyped-decorator]
        def log(self, values: dict[str, Any], step: int | None = None, **more: Any) -> None:
            self.seen.append((step or 0, values))

    tracker = Remembering()
    make().fit(DATA, steps=25, log_with=tracker, **FAST)
    assert [step for step, _ in tracker.seen] == [20, 25]
    assert "loss" in tracker.seen[0][1]
    assert tracker.config["batch_size"] == "2"


def _train_one_of_two(folder: str) -> None:
    torch.set_num_threads(1)
    for number in range(2):  # twice: the process group stays
        denoiser = make(scheme=Checkerboard())  # scores as many pixels in every batch
        denoiser.fit(
            DATA, steps=22, output=folder, resume=bool(number), clip_norm=0, ema_decay=0,
            mixed_precision="no", **FAST,
        )  # fmt: skip
    rank = torch.distributed.get_rank()
    torch.save([weights(denoiser), denoiser.history], Path(folder) / f"{rank}.pt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    # In a new process: one that has computed with several threads must not fork.
    code = (
        "import sys; from accelerate import debug_launcher; import test_train; "
        "debug_launcher(test_train._train_one_of_two, (sys.argv[1],), num_processes=2)"
    )
    places = [str(Path(__file__).parent), str(Path(masked_denoise.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, env=environment, check=True, timeout=240)
    (first, history), (second, same_history) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert all(map(torch.equal, first, second))
    assert [e["loss"] for e in history] == [e["loss"] for e in same_history]
    whole = make(scheme=Checkerboard()).fit(
        DATA, steps=22, crop=16, batch_size=4, clip_norm=0, ema_decay=0, progress=False,
        mixed_precision="no",
    )  # fmt: skip
    for one, other in zip(first, weights(whole), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_unavailable_devices_are_named() -> None:
    with pytest.raises(SettingError, match="device is 'cuda'"):
        make().fit(DATA, steps=1, device="cuda", **FAST)
    with pytest.raises(SettingError, match="device is 'gpu'"):
        make().fit(DATA, steps=1, device="gpu", **FAST)
    make().fit(DATA, steps=1, device="cpu", **FAST)


@pytest.mark.parametrize("when", ["validation", "tracker", "resume"])
def test_a_fit_that_is_refused_changes_nothing(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser, floats = make(), 4000 * NOISY.astype(np.float32)
    arguments: dict[str, Any] = {}
    if when == "validation":
        arguments = {"validation": [(floats, floats[1:])]}
    elif when == "resume":
        make().fit(DATA, steps=1, output=tmp_path, **FAST)
        arguments = {"resume": tmp_path / "last.pt"}
        monkeypatch.setattr(
            "masked_denoise.training.learner.load_weights", _raising(CheckpointError("no"))
        )
    else:
        monkeypatch.setattr("accelerate.Accelerator.init_trackers", _raising(DataError("no")))
        arguments = {"log_with": "all"}
    before = dict(vars(denoiser))
    with pytest.raises((SizeError, CheckpointError, DataError)):
        denoiser.fit(floats if when != "resume" else DATA, steps=1, **arguments, **FAST)
    assert vars(denoiser) == before
    assert denoiser.undecided
    assert denoiser.value_range is None
    assert all(module.training == denoiser.training for module in denoiser.modules())


@pytest.mark.parametrize("when", ["first step", "callback"])
def test_a_fit_that_fails_before_it_learns_changes_nothing(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = make()
    before, learnt = dict(vars(denoiser)), copy.deepcopy(denoiser.backbone.state_dict())
    floats = 4000 * NOISY.astype(np.float32)
    if when == "first step":
        monkeypatch.setattr("masked_denoise.training.learner.Learner.is_finite", lambda self: False)
        with pytest.raises(TrainingError, match="no longer finite"):
            denoiser.fit(floats, steps=1, **FAST)
    else:
        monkeypatch.setattr(
            "masked_denoise.training.learner.Learner.backward", _raising(ValueError("no"))
        )
        with pytest.raises(ValueError, match="no"):
            denoiser.fit(floats, steps=1, **FAST)
    assert vars(denoiser) == before
    assert denoiser.undecided
    assert denoiser.value_range is None
    after = denoiser.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in learnt.items())


def test_a_callback_that_fails_later_keeps_what_was_learnt() -> None:
    denoiser = make()
    with pytest.raises(ValueError, match="enough"):
        denoiser.fit(DATA, steps=40, callback=_raising(ValueError("enough")), **FAST)
    assert denoiser.fit_record["steps"] == 20
    assert not denoiser.undecided


def test_a_picture_must_have_room_for_the_stride_that_may_be_taken() -> None:
    blurred = torch.nn.functional.avg_pool2d(torch.rand(3, 200, 200), 9, 1)  # smooth: stride 3
    denoiser = make()
    with pytest.raises(SizeError, match="2 pixels; 3 or more"):
        denoiser.fit([blurred, torch.rand(3, 2, 60)], steps=1, **FAST)
    denoiser = AsymmetricMaskDenoiser(nn.Conv2d(3, 3, 3, padding=1), train_stride=2)
    denoiser.fit([blurred, torch.rand(3, 2, 60)], steps=1, **FAST)
    assert denoiser.train_strides == (2,)


@pytest.mark.parametrize("scale", [1e-7, 0.05, 4000.0])
def test_the_range_of_floats_is_measured_where_they_are_not_on_that_scale(scale: float) -> None:
    pictures = scale * np.random.default_rng(0).random((2, 96, 96, 3)).astype(np.float32)
    denoiser = make().fit(list(pictures), steps=1, **FAST)
    assert denoiser.value_range == pytest.approx((0, scale), abs=0.01 * scale)
    assert np.ptp(denoiser.denoise(pictures[0])) < 2 * scale


def test_counts_in_16_bits_train_as_the_same_counts_in_floats() -> None:
    counts = np.random.default_rng(0).integers(100, 900, (2, 48, 48, 3))
    few, floats = counts.astype(np.uint16), counts.astype(np.float32)
    one, other = (make().fit(list(data), steps=3, **FAST) for data in (few, floats))
    assert one.value_range == CountRange(*other.value_range)  # holds for integers, too
    assert one.value_range != other.value_range == pytest.approx((100, 899), abs=2)
    assert same(one, other)
    made, expected = one.denoise(few[0]), other.denoise(floats[0])
    assert made.dtype == np.uint16
    assert np.array_equal(made, expected.round())
    _, std = one.denoise(few[0], return_std=True)
    assert np.allclose(std, other.denoise(floats[0], return_std=True)[1])
    assert 1 < std.mean() < 900
    bytes_ = (counts // 4).astype(np.uint8)
    assert make().fit(list(bytes_), steps=1, **FAST).value_range is None
    bright = np.concatenate([few, np.full_like(few, 60000)])
    assert make().fit(list(bright), steps=1, **FAST).value_range is None


def test_a_range_of_counts_is_not_that_of_floats_or_bytes() -> None:
    floats = 255 * np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)
    denoiser = make().fit(floats, steps=2, **FAST)
    assert denoiser.value_range is not None
    deep = (floats / 255 * 65535).astype(np.uint16)
    bytes_ = floats.astype(np.uint8)
    one, other = denoiser.denoise(deep) / 65535, denoiser.denoise(bytes_) / 255
    assert np.abs(one - other).max() < 0.02


def test_integers_keep_their_scale_where_something_rests_on_it() -> None:
    few = np.random.default_rng(0).integers(100, 900, (48, 48, 3)).astype(np.uint16)
    given = make(noise_level=[(1e-4, 0.0)]).fit(few, steps=1, **FAST)
    assert given.value_range is None
    bright = make().fit(few * np.uint16(60), steps=1, **FAST)
    assert bright.fit(few, steps=1, **FAST).value_range is None


@pytest.mark.parametrize("counts", [False, True])
def test_clean_pictures_of_another_depth_are_scored_on_their_own_scale(counts: bool) -> None:
    clean = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    denoiser = make()
    pairs = [(clean, clean / 255), (clean, clean * np.uint16(257)), (clean, clean)]
    if counts:
        denoiser.value_range = CountRange(0, 255)
        pairs = [(one.astype(np.uint16), clean.astype(np.uint16)) for one, _ in pairs]
    found = [CleanPairs([pair]).score(denoiser) for pair in pairs]
    assert np.ptp(found) < 0.1


def test_a_range_of_counts_comes_back_and_holds_for_a_student(tmp_path: Path) -> None:
    few = np.random.default_rng(0).integers(100, 900, (48, 48, 3)).astype(np.uint16)
    teacher = make().fit(few, steps=2, output=tmp_path / "a", **FAST)
    again = from_pretrained(tmp_path / "a")
    assert np.array_equal(again.denoise(few), teacher.denoise(few))
    student = teacher.distill(few, steps=1, crop=16, progress=False)
    assert student.value_range == teacher.value_range
    resumed = make().fit(few, steps=2, output=tmp_path / "b", **FAST)
    assert same(resumed, teacher)
    resumed = make().fit(few, steps=2, output=tmp_path / "b", resume=True, **FAST)
    assert same(resumed, teacher)


@pytest.mark.parametrize("form", ["float", "range", "deep"])
def test_fit_decides_alike_on_any_scale(form: str) -> None:
    pictures = np.random.default_rng(0).random((2, 96, 96, 3)).astype(np.float32)
    denoiser = make()
    if form == "range":
        denoiser.value_range = (0, 0.01)
        pictures *= 0.01
    elif form == "deep":
        pictures = (4095 * pictures).astype(np.uint16)
    denoiser.fit(list(pictures), steps=1, **FAST)
    assert denoiser.preset == "independent"


def test_fit_takes_the_stride_of_the_report() -> None:
    luma = torch.nn.functional.avg_pool2d(torch.rand(1, 200, 200), 5, 1)
    colour = torch.rand(1, 196, 196) * torch.tensor([1, -0.8978, 2.0])[:, None, None]
    for picture in (luma.expand(3, -1, -1), 0.5 + 0.1 * colour, torch.full((3, 96, 96), 0.5)):
        denoiser = make()
        denoiser.fit([picture], steps=1, **FAST)
        report = measure_noise(picture)
        assert denoiser.preset == ("independent" if report.independent else "default")
        assert denoiser.train_strides == (report.train_stride,)


def _raising(error: Exception) -> Any:
    def fail(*arguments: object, **settings: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("refused", ["psnr without a target", "a student"])
def test_a_refused_run_leaves_the_run_before_it_alone(tmp_path: Path, refused: str) -> None:
    denoiser = make()
    denoiser.fit(DATA, steps=3, output=tmp_path, **FAST)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    record = denoiser.fit_record
    if refused == "a student":
        other = AsymmetricMaskDenoiser(nn.Conv2d(3, 3, 3, padding=1), preset="student")
        with pytest.raises(SettingError, match="this is a student"):
            other.fit(DATA, steps=2, output=tmp_path, **FAST)
    else:
        with pytest.raises(SettingError, match="compares with a target"):
            denoiser.fit(DATA, steps=2, output=tmp_path, loss="psnr", **FAST)  # type: ignore[arg-type]
        assert denoiser.fit_record == record
    assert "last.pt" in before
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_fails_in_its_first_step_leaves_the_run_before_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = make()
    denoiser.fit(DATA, steps=3, output=tmp_path, **FAST)
    denoiser.card["metrics"] = {"some pictures": {"PSNR": 30.0}}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    record, history, card = denoiser.fit_record, denoiser.history, dict(denoiser.card)

    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("masked_denoise.training.learner.Learner.backward", broken)
    with pytest.raises(OSError, match="disk is gone"):
        denoiser.fit(DATA, steps=2, output=tmp_path, **FAST)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert (denoiser.fit_record, denoiser.history) == (record, history)
    assert denoiser.card == card


def test_validation_keeps_nothing_but_the_middles() -> None:
    picture = torch.zeros(3, 900, 700)

    def pairs() -> Any:
        for _ in range(3):
            yield picture.clone(), np.zeros((900, 700, 3), np.uint8)

    with pytest.raises(SizeError):
        CleanPairs(pairs())
    kept = CleanPairs((picture.clone(), picture.numpy().copy()) for _ in range(2)).pairs
    for noisy, clean in kept:
        assert noisy.shape == (3, 256, 256)
        assert noisy.untyped_storage().nbytes() == noisy.nbytes
        assert clean.base is None

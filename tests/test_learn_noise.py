"""A student trained on noisy images made smaller: repeatable pairs, no worse weights."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.camera_noise import CameraNoise
from masked_denoise.errors import DataError, SettingError
from masked_denoise.training import learn_noise as module
from masked_denoise.training.settings import FitSettings
from masked_denoise.training.simulated import SimulatedPairs, smaller

SMALL = {"widths": (8, 12), "blocks": (1, 1)}


def _pictures(channels: int = 3, count: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(0.3 + 0.4 * random.random((count, channels, 6, 5)))
    smooth = F.interpolate(coarse, (144, 120), mode="bicubic").clamp(0, 1)
    return list((255 * smooth).round().to(torch.uint8).numpy())


def _noisy(channels: int = 3) -> list[np.ndarray]:
    random, noise = np.random.default_rng(1), CameraNoise(sigma=(0.03, 0.04))
    made = [noise.add(torch.from_numpy(one).float() / 255, random) for one in _pictures(channels)]
    return [(255 * one.permute(1, 2, 0)).round().to(torch.uint8).numpy() for one in made]


def _student(channels: int = 3) -> AsymmetricMaskDenoiser:
    torch.manual_seed(0)
    return AsymmetricMaskDenoiser(
        "fast-student", preset="student", channels=channels, backbone_args=SMALL
    )


def _pairs(**settings: int) -> SimulatedPairs:
    told = FitSettings(steps=1, **{"batch_size": 3, "crop": 32, **settings})  # type: ignore[arg-type]
    return SimulatedPairs(_pictures(), told, noise=CameraNoise(), scale=(0.7, 2.5))


def test_batches_made_ahead_for_a_gpu_are_the_same() -> None:
    here, ahead = _pairs(), _pairs()
    ahead.device = torch.device("cuda")  # the loop takes them there; they are made on the CPU
    before = threading.active_count()
    one, other = here.start(3, lambda _: 1), ahead.start(3, lambda _: 1)
    for _ in range(40):
        assert torch.equal(next(one), next(other))
    assert threading.active_count() > before
    other.close()  # type: ignore[attr-defined]
    end = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_batches_are_functions_of_their_number() -> None:
    first = _pairs().start(0, lambda number: 4)
    batches = [next(first) for _ in range(3)]
    later = next(_pairs().start(2, lambda number: 4))
    assert batches[0].shape == (3, 6, 32, 32)
    assert torch.equal(batches[2], later)
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(next(_pairs(seed=1).start(0, lambda number: 4)), batches[0])


def test_target_is_the_clean_half() -> None:
    batch = next(_pairs().start(0, lambda number: 4))
    noisy, clean = batch.chunk(2, 1)
    step = (clean[..., 1:] - clean[..., :-1]).abs().median()
    assert step < (noisy[..., 1:] - noisy[..., :-1]).abs().median()


def test_sides_are_multiples_of_the_unit() -> None:
    assert next(_pairs(crop=37).start(0, lambda number: 8)).shape[2:] == (32, 32)


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(DataError, match="one is needed"):
        SimulatedPairs([], FitSettings(steps=1), noise=CameraNoise(), scale=(1, 2))


def test_smaller_pictures_have_less_noise() -> None:
    random = np.random.default_rng(0)
    noisy = (128 + 20 * random.standard_normal((3, 128, 96))).astype(np.uint8)
    small = smaller(noisy, 2.0)
    assert (small.shape, small.dtype) == ((3, 64, 48), np.uint8)
    assert small.std() < 0.6 * noisy.std()
    floats = smaller(noisy.astype(np.float32) * 4 - 100, 2.0, (-100.0, 920.0))
    assert np.abs(floats.astype(int) - small).max() <= 1


def test_it_gains_on_simulated_noise_and_on_the_images() -> None:
    clean, noisy = _pictures(), _noisy()
    strong = CameraNoise(sigma=(0.03, 0.05), uncompressed=1.0)
    student = _student().learn_noise(
        noisy, noise=strong, steps=120, crop=64, warmup_steps=5, loss="l1", progress=False
    )
    score = student.fit_record["score"]
    assert score["after"] > score["before"] + 1

    def error(picture: np.ndarray, truth: np.ndarray) -> float:
        return float(np.mean((picture.astype(float) - np.moveaxis(truth, 0, 2)) ** 2))

    for one, truth in zip(noisy, clean, strict=True):
        assert error(student.denoise(one), truth) < 0.8 * error(one, truth)


def test_worse_weights_are_not_kept() -> None:
    student = _student().learn_noise(_noisy(), steps=30, crop=64, batch_size=4, progress=False)
    before = {name: value.clone() for name, value in student.backbone.state_dict().items()}
    student.learn_noise(
        _noisy(), steps=3, crop=32, learning_rate=1.0, warmup_steps=0, ema_decay=0, progress=False,
        clip_norm=0, validation=False,
    )  # fmt: skip
    score = student.fit_record["score"]
    assert score["after"] < score["before"]
    assert all(
        torch.equal(before[name], now) for name, now in student.backbone.state_dict().items()
    )


def test_a_student_that_has_learnt_learns_from_both_and_goes_part_of_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[np.ndarray]] = []
    rates: list[float] = []
    trained: list[dict[str, torch.Tensor]] = []

    def take(kind: type, student: AsymmetricMaskDenoiser, make_batches: Any, *rest: Any) -> None:
        seen.append(list(make_batches((0, 1)).pictures))
        rates.append(rest[0].learning_rate)
        with torch.no_grad():
            for weight in student.backbone.parameters():
                weight += 0.01
        student.fit_record = {"stopped": "finished"}
        trained.append({k: v.clone() for k, v in student.backbone.state_dict().items()})

    monkeypatch.setattr(module, "train", take)
    monkeypatch.setattr(module.Targets, "score", lambda *_: 1.0)
    noisy = _noisy()
    student = _student().learn_noise(noisy, steps=4, rounds=2, crop=32, progress=False)
    first, second = seen
    assert rates == [2e-3, module.GENTLE]
    assert len(second) == 2 * len(first) == 2 * len(noisy)
    for picture, small in zip(noisy, second[len(noisy) :], strict=True):
        assert np.array_equal(small, smaller(np.moveaxis(picture, 2, 0), 2.0))
    old, new = trained
    for name, weight in student.backbone.state_dict().items():
        assert torch.allclose(weight, old[name].lerp(new[name], 0.65), atol=1e-6)


def test_one_channel_and_a_run_in_two_rounds() -> None:
    student = _student(1).learn_noise(_noisy(1), steps=4, rounds=2, crop=32, progress=False)
    assert student.fit_record["learn_noise"]["rounds"] == 2


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    student = _student().learn_noise(
        _noisy(), steps=2, crop=32, progress=False, output=tmp_path / "student"
    )
    loaded = AsymmetricMaskDenoiser.from_pretrained(tmp_path / "student")
    picture = _noisy()[0]
    assert np.array_equal(loaded.denoise(picture), student.denoise(picture))


def test_what_cannot_learn_is_refused() -> None:
    masked = AsymmetricMaskDenoiser(torch.nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(SettingError, match="plain network"):
        masked.learn_noise(_noisy(), steps=1)
    with pytest.raises(SettingError, match="1 or 3"):
        _student(2).learn_noise(np.zeros((40, 40, 2), np.uint8), steps=1)
    with pytest.raises(SettingError, match="shrink"):
        _student().learn_noise(_noisy(), steps=1, shrink=0.5)


def test_strong_noise_is_simulated_as_strong() -> None:
    usual, strong = CameraNoise(), CameraNoise(sigma=(0.1, 0.1))
    random = np.random.default_rng(2)
    noisy = [strong.add(torch.from_numpy(one).float() / 255, random) for one in _pictures()]
    bytes_ = [(255 * one).round().to(torch.uint8).numpy() for one in noisy]
    floats = [(one * 400 - 100).numpy() for one in noisy]
    assert 0.1 < module.noise_like(bytes_).sigma[1] < 0.5
    assert 0.1 < module.noise_like(floats, (-100.0, 300.0)).sigma[1] < 0.5
    assert module.noise_like(_pictures()) == usual
    assert module.noise_like([one[:, :9, :9] for one in bytes_]) == usual


def test_what_is_simulated_follows_the_pictures() -> None:
    images = [np.random.default_rng(3).integers(0, 256, (96, 96, 3), dtype=np.uint8)]
    student = _student().learn_noise(images, steps=1, progress=False)
    assert student.fit_record["learn_noise"]["sigma"][1] > 0.1
    told = CameraNoise(sigma=(0.01, 0.02))
    student = _student().learn_noise(images, steps=1, progress=False, noise=told)
    assert student.fit_record["learn_noise"]["sigma"] == [0.01, 0.02]


def test_weights_that_were_no_better_do_not_stay_on_disk(tmp_path: Path) -> None:
    student = module.train_on_simulated(
        _student(), _pictures(), steps=4, learning_rate=0.3, warmup_steps=0, crop=32,
        progress=False, output=tmp_path,
    )  # fmt: skip
    assert student.fit_record["kept"] == "before"
    again = AsymmetricMaskDenoiser.from_pretrained(tmp_path)
    for name, value in student.backbone.state_dict().items():
        assert torch.equal(again.backbone.state_dict()[name], value)


def test_a_refused_call_changes_nothing() -> None:
    student = _student()
    floats = [4000.0 * one.astype(np.float32) / 255 for one in _noisy()]
    with pytest.raises(DataError, match="validation"):
        student.learn_noise(floats, steps=2, validation=[1, 2, 3], progress=False)
    assert student.value_range is None
    assert student.dct_threshold == 0
    with pytest.raises(SettingError, match="epochs"):
        student.learn_noise(floats, epochs=2, progress=False)

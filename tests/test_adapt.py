"""A student adapted to noisy images with a masked network as second opinion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.errors import DataError, SettingError
from masked_denoise.training import adapt as adapt_module
from masked_denoise.training import distill as module
from masked_denoise.training.batches import windows_of
from masked_denoise.training.student import blend_weights


def _noisy() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    ramp = np.linspace(60, 190, 72)[:, None, None] * np.ones((1, 64, 3))
    return [
        (ramp + 8 * random.standard_normal(ramp.shape)).round().astype(np.uint8) for _ in range(2)
    ]


def _student() -> AsymmetricMaskDenoiser:
    torch.manual_seed(0)
    return AsymmetricMaskDenoiser(
        "fast-student", preset="student", backbone_args={"widths": (8, 12), "blocks": (1, 1)}
    )


def test_both_networks_get_half_of_the_budget_and_the_student_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        adapt_module, "_restore_if_worse", lambda *models: {}
    )  # six steps win nothing
    student = _student()
    before = {name: value.clone() for name, value in student.backbone.state_dict().items()}
    student.adapt(_noisy(), steps=6, crop=32, progress=False)
    assert student.fit_record["adaptation"]["masked_steps"] == 3
    assert student.fit_record["steps"] == 3
    assert student.fit_record["distillation"]["trust"] == 0.3
    assert any(
        not torch.equal(before[name], now) for name, now in student.backbone.state_dict().items()
    )


def test_small_coefficients_stay_in_the_targets_and_the_student_keeps_its_threshold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[float] = []

    def spy(teacher: AsymmetricMaskDenoiser, noisy: object, **settings: Any) -> None:
        seen.extend([teacher.dct_threshold, settings["student"].dct_threshold])
        raise KeyboardInterrupt

    monkeypatch.setattr(adapt_module, "distill", spy)
    student = _student()
    student.dct_threshold = 0.05
    with pytest.raises(KeyboardInterrupt):
        student.adapt(_noisy(), steps=2, crop=32, progress=False)
    assert seen == [0, 0]
    assert student.dct_threshold == 0.05


def test_the_weights_are_the_mean_of_old_and_new() -> None:
    before, after = _student(), _student()
    for weight in after.backbone.parameters():
        weight.data += 1
    blend_weights(after, before.backbone.state_dict())
    for old, new in zip(before.backbone.parameters(), after.backbone.parameters(), strict=True):
        assert torch.allclose(new, old + 0.65, atol=1e-6)


def test_targets_are_the_weighted_mean_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[np.ndarray]] = []
    monkeypatch.setattr(module, "_train", lambda student, pairs, *rest: seen.append(pairs))
    teacher = AsymmetricMaskDenoiser(nn.Conv2d(3, 3, 3, padding=1)).eval()
    picture = _noisy()[0].astype(np.uint16) * 257
    student = _student()
    student.fit_record = {"stopped": "finished"}
    teacher.distill(picture, student=student, trust=0.25, steps=1, progress=False)
    student.turns = True
    own = student.denoise(picture, passes=4).astype(float)
    wanted = 0.25 * teacher.denoise(picture).astype(float) + 0.75 * own
    target = np.moveaxis(seen[0][0][3:], 0, 2)
    assert np.abs(target - wanted).max() <= 1.5


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(SettingError, match="plain network"):
        AsymmetricMaskDenoiser(nn.Conv2d(3, 3, 3, padding=1)).adapt(_noisy(), steps=2)
    with pytest.raises(SettingError, match="trust"):
        _student().adapt(_noisy(), steps=2, trust=0, progress=False)
    with pytest.raises(SettingError, match="cannot be resumed"):
        _student().adapt(_noisy(), epochs=1)


def test_what_can_be_read_once_only_is_refused() -> None:
    batches = (torch.rand(1, 3, 32, 32) for _ in range(9))
    with pytest.raises(DataError, match="read once"):
        _student().adapt(batches, steps=2, progress=False)


def test_old_weights_may_lie_on_another_device() -> None:
    before, after = _student(), _student().to("meta")
    blend_weights(after, before.backbone.state_dict())


def test_targets_of_a_shuffling_loader_are_a_function_of_the_seed() -> None:
    pictures = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, 3, 8, 8)
    loader = DataLoader(pictures, shuffle=True)
    orders = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        state = torch.get_rng_state()
        orders.append([int(one.max()) for one in windows_of(loader, 3, 1.0, seed=0)])
        assert torch.equal(state, torch.get_rng_state())
    assert orders[0] == orders[1] != sorted(orders[0])
    other = [int(one.max()) for one in windows_of(loader, 3, 1.0, seed=1)]
    assert other != orders[0]


@pytest.mark.parametrize("wrong", [{"trust": 2.0}, {"megapixels": 0.0}, {"validation": [1, 2, 3]}])
def test_what_cannot_be_used_is_refused_before_any_training(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", lambda *told, **given: pytest.fail("began"))
    student = _student()
    with pytest.raises((SettingError, DataError), match=next(iter(wrong))):
        student.adapt(_noisy(), steps=4, crop=32, progress=False, **wrong)
    monkeypatch.setattr(
        AsymmetricMaskDenoiser, "denoise", lambda *told, **given: pytest.fail("began")
    )
    with pytest.raises((SettingError, DataError), match=next(iter(wrong))):
        module.distill(_student(), _noisy(), steps=4, crop=32, progress=False, **wrong)

"""A pixel's own value, weighed by the variances of noise and prediction; what `fit` decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from masked_denoise import AsymmetricMaskDenoiser, Checkerboard, RandomPartition, from_pretrained
from masked_denoise import observation as own
from masked_denoise.errors import CheckpointError, SettingError, WeightsError
from masked_denoise.observation import NoiseLevel, check_levels, find_levels, weighed

SLOPE, OFFSET = 0.02, 4e-4


def scene(side: int = 256) -> np.ndarray:
    """A ramp from dark to bright, of which the lower half has a texture no neighbour tells of."""
    ramp = np.tile(np.linspace(0.05, 0.8, side), (side, 1))
    texture = 0.1 * np.random.default_rng(1).standard_normal((side, side))
    texture[: side // 2] = 0
    return ramp + texture


def exposed(clean: np.ndarray, seed: int = 0) -> np.ndarray:
    sigma = np.sqrt(np.maximum(SLOPE * clean + OFFSET, 0))
    return clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


def batch(*planes: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(planes))[None].float()


def ramp_of(side: int = 256) -> Tensor:
    return batch(np.tile(np.linspace(0.05, 0.8, side), (side, 1)))


def error(result: Tensor, clean: np.ndarray, rows: slice) -> float:
    return float((result - batch(clean))[..., rows, :].square().mean())


# -- the mixture ------------------------------------------------------------------------------


def test_detail_comes_back_as_far_as_its_variance_allows_and_noise_does_not() -> None:
    clean = scene()
    noisy, predicted = batch(exposed(clean)), ramp_of()
    result = weighed(noisy, predicted, [NoiseLevel(SLOPE, OFFSET)])
    flat, textured = slice(0, 110), slice(146, 256)
    noise = SLOPE * np.tile(np.linspace(0.05, 0.8, 256), (256, 1)) + OFFSET
    best = float((0.01 * noise / (0.01 + noise)).mean())
    assert error(result, clean, textured) < 1.1 * best
    assert error(predicted, clean, textured) > 1.5 * best
    assert error(noisy, clean, textured) > 1.5 * best
    assert error(result, clean, flat) < 0.02 * float(noise.mean())


def test_no_constant_share_does_as_well() -> None:
    clean = scene()
    noisy, predicted = batch(exposed(clean)), ramp_of()
    result = weighed(noisy, predicted, [NoiseLevel(SLOPE, OFFSET)])
    everywhere = slice(None)
    constant = min(
        error(predicted + share * (noisy - predicted), clean, everywhere)
        for share in np.linspace(0, 1, 21)
    )
    assert error(result, clean, everywhere) < 0.8 * constant


def test_every_channel_has_its_own_noise() -> None:
    clean = scene()
    noisy = batch(exposed(clean), clean + 0.5 * (exposed(clean, 1) - clean))
    predicted = ramp_of().repeat(1, 2, 1, 1)
    levels = [NoiseLevel(SLOPE, OFFSET), NoiseLevel(SLOPE / 4, OFFSET / 4)]
    both = weighed(noisy, predicted, levels)
    for channel, level in enumerate(levels):
        one = slice(channel, channel + 1)
        assert torch.equal(both[:, one], weighed(noisy[:, one], predicted[:, one], [level]))


def test_pieces_give_the_same_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, predicted = batch(exposed(scene(200))), ramp_of(200)
    whole = weighed(noisy, predicted, [NoiseLevel(SLOPE, OFFSET)])
    monkeypatch.setattr(own, "TILE", 48)
    torch.testing.assert_close(weighed(noisy, predicted, [NoiseLevel(SLOPE, OFFSET)]), whole)


def test_where_nothing_is_left_over_nothing_comes_back() -> None:
    image = torch.full((1, 1, 32, 32), 0.5)
    assert torch.equal(weighed(image, image, [NoiseLevel(0.0, 0.0)]), image)
    negative = weighed(image + 0.1, image, [NoiseLevel(0.0, -1.0)])
    torch.testing.assert_close(negative, image + 0.1)


# -- the level of the noise -------------------------------------------------------------------


def test_the_level_is_found_where_the_picture_is_smooth() -> None:
    clean = scene(384)
    found = find_levels([(batch(exposed(clean)), ramp_of(384))])
    assert found is not None
    values = np.linspace(0.1, 0.75, 9)
    told = found[0].slope * values + found[0].offset
    assert told == pytest.approx(SLOPE * values + OFFSET, rel=0.08)


def test_the_level_is_that_of_all_pictures() -> None:
    """Of texture alone it is too high; a smooth picture of the same sensor puts it right."""
    ramp = ramp_of()[0, 0].numpy()
    rough = ramp + 0.1 * np.random.default_rng(2).standard_normal(ramp.shape)
    pairs = [(batch(exposed(one)), ramp_of()) for one in (rough, ramp)]
    found, alone = find_levels(pairs), find_levels(pairs[:1])
    assert found is not None
    assert alone is not None
    true = SLOPE * 0.4 + OFFSET
    assert found[0].slope * 0.4 + found[0].offset == pytest.approx(true, rel=0.08)
    assert alone[0].slope * 0.4 + alone[0].offset > 1.5 * true


def test_too_little_tells_no_level() -> None:
    small = torch.rand(1, 1, 2 * own.RADIUS, 64)
    assert find_levels([(small, small)]) is None
    assert find_levels([]) is None


@pytest.mark.parametrize(
    "level",
    [[(0.1,)], [(0.1, 0.2, 0.3)], [(0.1, float("nan"))], [(-0.1, 0.2)], [(0, 1)] * 2, 5, "x"],
)
def test_a_level_that_cannot_be_used_is_told(level: Any) -> None:
    with pytest.raises(SettingError, match=r"noise_level is .* \[\(0\.01, 1e-4\)\]"):
        AsymmetricMaskDenoiser(noise_level=level)
    assert check_levels([(0.1, 0.2)], 3) == (NoiseLevel(0.1, 0.2),) * 3


# -- denoising --------------------------------------------------------------------------------


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 5, 1, 2) + self.weight


def make(**settings: Any) -> AsymmetricMaskDenoiser:
    plain: dict[str, Any] = {"channels": 1, "passes": 2, "stride": 1, "residual": False}
    return AsymmetricMaskDenoiser(Blur(), **{**plain, **settings})


def test_denoise_weighs_by_the_level() -> None:
    image = batch(exposed(scene(96)))
    bare = make(observation=0.0).denoise(image)
    told = make(observation="measured", noise_level=[(SLOPE, OFFSET)])
    expected = weighed(image, bare, [NoiseLevel(SLOPE, OFFSET)])
    torch.testing.assert_close(told.denoise(image), expected)
    torch.testing.assert_close(told.denoise(image, strength=0.5), (expected + image) / 2)
    assert torch.equal(make(observation="measured").denoise(image), bare)  # no level is known yet


def test_pixels_without_a_value_do_not_count() -> None:
    image = exposed(scene(96)).astype(np.float32)
    holed = image.copy()
    holed[40:44, 50:53] = np.nan
    denoiser = make(observation="measured", noise_level=[(SLOPE, OFFSET)])
    result, std = denoiser.denoise(holed, nan="mask", return_std=True)
    assert np.isfinite(result).all()
    assert np.isfinite(std).all()
    bare = make(observation=0.0).denoise(holed, nan="mask")
    assert np.array_equal(result[40:44, 50:53], bare[40:44, 50:53])
    assert np.abs(result - bare)[60:64, 50:53].max() > 0


def test_observation_is_a_share_or_measured() -> None:
    with pytest.raises(SettingError, match=r"observation is 'auto'.*\"measured\" is needed"):
        make(observation="auto")


# -- what fit decides -------------------------------------------------------------------------

FAST: dict[str, Any] = {"steps": 4, "progress": False, "validation": False, "batch_size": 1}


def blurred(window: float = 4, side: int = 192) -> np.ndarray:
    """A picture whose noise is that of a mean over so many pixels, the last of them in part."""
    mixed = np.random.default_rng(3).standard_normal((side + 4, side + 4))
    weights = np.clip(window - np.arange(5), 0, 1)
    for _ in range(2):
        mixed = sum(weight * mixed[k : k + side] for k, weight in enumerate(weights)).T
    return np.asarray(0.5 + 0.02 * mixed / mixed.std())


def test_independent_noise_is_seen() -> None:
    denoiser = make(stride=None, passes=None).fit(exposed(scene()), **FAST)
    assert denoiser.preset == "independent"
    assert (denoiser.train_strides, denoiser.stride) == ((1,), 1)
    assert denoiser.scheme.branches == 4
    settings = denoiser.fit_record["settings"]
    assert (settings["loss"], settings["optimizer"]) == ("l2", "muon")
    assert denoiser.noise_level is not None
    told = denoiser.noise_level[0].slope * 0.5 + denoiser.noise_level[0].offset
    assert told == pytest.approx(SLOPE * 0.5 + OFFSET, rel=0.25)


@pytest.mark.parametrize(("window", "stride"), [(1.4, 1), (2, 2), (4, 2)])
def test_noise_that_is_alike_in_neighbours_asks_for_a_stride(window: float, stride: int) -> None:
    denoiser = make(stride=None).fit(blurred(window), **FAST)
    assert denoiser.preset == "default"
    assert (denoiser.train_strides, denoiser.stride) == ((stride,), 1)
    assert denoiser.fit_record["settings"]["loss"] == "l1"
    assert denoiser.noise_level is None


def test_what_was_given_is_left_as_it_is() -> None:
    scheme = Checkerboard()
    denoiser = make(train_stride=2, observation=0.1, scheme=scheme, stride=None)
    denoiser.fit(exposed(scene()), loss="l1", **FAST)
    assert (denoiser.train_strides, denoiser.stride) == ((2,), 1)
    assert (denoiser.observation, denoiser.scheme) == (0.1, scheme)
    settings = denoiser.fit_record["settings"]
    assert (settings["loss"], settings["optimizer"]) == ("l1", "muon")


def test_a_preset_that_is_named_decides_everything() -> None:
    denoiser = make(preset="default").fit(exposed(scene()), **FAST)
    assert denoiser.preset == "default"
    assert denoiser.train_strides == (2,)
    assert denoiser.observation != "measured"
    assert denoiser.fit_record["settings"]["loss"] == "l1"


def test_the_second_fit_decides_no_more_but_measures_the_level_again() -> None:
    denoiser = make().fit(exposed(scene()), **FAST)
    first = denoiser.noise_level
    denoiser.fit(0.5 * blurred(), **FAST)
    assert denoiser.preset == "independent"
    assert denoiser.noise_level != first


def test_batches_of_a_loader_tell_of_the_noise_too() -> None:
    crops = torch.from_numpy(exposed(scene())).float().reshape(4, 64, 256).reshape(4, 1, 64, 256)
    denoiser = make().fit(DataLoader(crops, batch_size=2), **FAST)
    assert denoiser.preset == "independent"
    assert denoiser.noise_level is not None


def test_pictures_too_small_to_measure_are_trained_on_as_before() -> None:
    denoiser = make().fit(np.random.default_rng(0).random((20, 24)), **FAST)
    assert denoiser.undecided
    assert denoiser.train_strides == (2,)


def test_the_reason_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    make().fit(exposed(scene()), **{**FAST, "progress": True})
    assert "at most): preset 'independent'" in capfd.readouterr().err


@pytest.mark.parametrize("picture", [exposed(scene()), blurred()], ids=["independent", "alike"])
def test_a_resumed_run_decides_what_the_first_did(tmp_path: Path, picture: np.ndarray) -> None:
    whole = make(stride=None).fit(picture, **{**FAST, "steps": 6})

    def stop(entry: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    begun = make(stride=None)
    begun.fit(picture, output=tmp_path, callback=stop, validate_every=3, **{**FAST, "steps": 6})
    assert begun.fit_record["steps"] == 3
    resumed = make(stride=None)
    resumed.fit(picture, resume=tmp_path, validate_every=3, **{**FAST, "steps": 6})
    assert resumed.fit_record["steps"] == 6
    assert torch.equal(resumed.backbone.weight, whole.backbone.weight)
    assert resumed.noise_level == whole.noise_level
    assert (resumed.preset, resumed.train_strides) == (whole.preset, whole.train_strides)
    with pytest.raises(CheckpointError, match="train_stride"):
        make(train_stride=4).fit(picture, resume=tmp_path, **{**FAST, "steps": 6})


def test_ctrl_c_while_the_level_is_measured_keeps_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("masked_denoise.training.loop.find_noise_level", press)
    denoiser = make().fit(exposed(scene()), output=tmp_path, **FAST)
    assert denoiser.fit_record["stopped"] == "interrupted"
    assert denoiser.noise_level is None
    assert (tmp_path / "model.safetensors").exists()


# -- on disk ----------------------------------------------------------------------------------


def test_the_level_comes_back_with_the_model(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"channels": 1, "backbone_args": {"widths": (4, 8)}}
    denoiser = AsymmetricMaskDenoiser(**settings).fit(exposed(scene(128)), **FAST)
    denoiser.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert again.noise_level == denoiser.noise_level
    assert again.observation == "measured"
    assert isinstance(again.scheme, RandomPartition)
    image = exposed(scene(64))
    assert np.array_equal(again.denoise(image), denoiser.denoise(image))


@pytest.mark.parametrize(
    "level", ["0.1", [], [[0.1]], [[0.1, "x"]], [[-1.0, 0.1]], [[0.1, 0.1]] * 2]
)
def test_a_level_on_disk_is_checked(tmp_path: Path, level: Any) -> None:
    settings: dict[str, Any] = {"channels": 1, "backbone_args": {"widths": (4, 8)}}
    AsymmetricMaskDenoiser(**settings).save_pretrained(tmp_path)
    place = tmp_path / "config.json"
    config = json.loads(place.read_text())
    place.write_text(json.dumps({**config, "noise_level": level}))
    with pytest.raises(WeightsError, match="noise_level"):
        from_pretrained(tmp_path)

"""A pixel's own value, weighed by the variances of noise and prediction; what `fit` decides."""

from __future__ import annotations

import json
import os
import pickle
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
from masked_denoise import AsymmetricMaskDenoiser, Checkerboard, RandomPartition, from_pretrained
from masked_denoise import observation as own
from masked_denoise.errors import CheckpointError, PixelError, SettingError, WeightsError
from masked_denoise.inference import denoise_batch
from masked_denoise.observation import NoiseLevel, check_levels, estimate_noise_levels, weighed
from masked_denoise.training.student import train_student

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
    found = estimate_noise_levels([(batch(exposed(clean)), ramp_of(384))])
    assert found is not None
    values = np.linspace(0.1, 0.75, 9)
    told = found[0].slope * values + found[0].offset
    assert told == pytest.approx(SLOPE * values + OFFSET, rel=0.08)


@pytest.mark.parametrize("black", [0.001, 0.01, 0.05])
def test_the_level_of_a_sensor_that_counts_from_black(black: float) -> None:
    """Its line falls below zero on the left of black: a line through zero would be too flat."""
    gain, reading = 0.004, 1.5
    light = np.tile(np.linspace(0.01, 0.7, 384), (384, 1))  # above black
    variance = gain * light + (gain * reading) ** 2
    noise = np.sqrt(variance) * np.random.default_rng(0).standard_normal(light.shape)
    clean = batch(light + black)
    found = estimate_noise_levels([(clean + batch(noise), clean)])
    assert found is not None
    values = np.linspace(0.05, 0.65, 7)
    told = found[0].slope * (values + black) + found[0].offset
    assert told == pytest.approx(gain * values + (gain * reading) ** 2, rel=0.1)


def test_the_level_is_that_of_all_pictures() -> None:
    """Of texture alone it is too high; a smooth picture of the same sensor puts it right."""
    ramp = ramp_of()[0, 0].numpy()
    rough = ramp + 0.1 * np.random.default_rng(2).standard_normal(ramp.shape)
    pairs = [(batch(exposed(one)), ramp_of()) for one in (rough, ramp)]
    found, alone = estimate_noise_levels(pairs), estimate_noise_levels(pairs[:1])
    assert found is not None
    assert alone is not None
    true = SLOPE * 0.4 + OFFSET
    assert found[0].slope * 0.4 + found[0].offset == pytest.approx(true, rel=0.08)
    assert alone[0].slope * 0.4 + alone[0].offset > 1.5 * true


def test_nothing_left_over_is_no_noise() -> None:
    assert estimate_noise_levels([(ramp_of(), ramp_of())]) == (NoiseLevel(0.0, 0.0),)


def test_too_little_tells_no_level() -> None:
    small = torch.rand(1, 1, 2 * own.RADIUS, 64)
    assert estimate_noise_levels([(small, small)]) is None
    assert estimate_noise_levels([]) is None


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
    plain: dict[str, Any] = {
        "channels": 1, "passes": 2, "stride": 1, "residual": False, "dct_threshold": 0.0,
    }  # fmt: skip
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
    known = np.where(np.isnan(holed), bare, holed)  # nothing is left over in the hole
    expected = weighed(batch(known), batch(bare), [NoiseLevel(SLOPE, OFFSET)])
    np.testing.assert_allclose(result, expected[0, 0], atol=1e-6)
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


@pytest.mark.parametrize(("soft", "stride"), [(True, 3), (False, 2)])
def test_pictures_that_are_smooth_ask_for_a_larger_stride(soft: bool, stride: int) -> None:
    """Tiles of other brightness; of smooth pictures their edges are several pixels wide."""
    shades = np.random.default_rng(1).uniform(0.2, 0.8, (24, 24))
    tiles = shades.repeat(8, 0).repeat(8, 1)
    for _ in range(3 if soft else 0):
        around = np.pad(tiles, 2, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(around, (5, 5))
        tiles = windows.mean((2, 3))
    tiles[:, 128:] = 0.5  # a calm place, in which the noise is measured
    noisy = tiles + (blurred(2) - 0.5) / 2
    denoiser = make(stride=None).fit(noisy, **FAST)
    assert (denoiser.preset, denoiser.train_strides) == ("default", (stride,))


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


def test_what_was_set_before_the_first_fit_is_left_as_it_is() -> None:
    denoiser = make(passes=None)
    denoiser.passes, denoiser.chroma_radius, denoiser.observation = 3, 2, 0.1
    denoiser.scheme = scheme = Checkerboard()
    denoiser.fit(exposed(scene()), **FAST)
    assert denoiser.preset == "independent"
    assert denoiser.train_strides == (1,)
    assert (denoiser.passes, denoiser.chroma_radius, denoiser.observation) == (3, 2, 0.1)
    assert denoiser.scheme is scheme
    again = pickle.loads(pickle.dumps(make(passes=None)))
    again.fit(exposed(scene()), **FAST)
    assert again.observation == "measured"


@pytest.mark.parametrize("sigma", [0.0, 1e-4])
def test_pictures_of_no_noise_are_not_of_independent_noise(sigma: float) -> None:
    clean = np.tile(np.linspace(0.2, 0.4, 128), (128, 1))
    noise = sigma * np.random.default_rng(0).standard_normal(clean.shape)
    assert make().fit(clean + noise, **FAST).preset == "default"
    assert make(train_stride=None).fit(clean + noise, **FAST).train_strides == (3,)


def test_every_fit_measures_the_level_and_decides_no_more() -> None:
    picture = exposed(scene())
    denoiser = make().fit(picture, **FAST)
    first = denoiser.noise_level
    denoiser.fit(0.5 * blurred(), **FAST)
    assert denoiser.preset == "independent"
    assert denoiser.noise_level != first
    denoiser.fit(picture, **FAST)
    bare = make(observation=0.0, scheme=denoiser.scheme)
    bare.backbone.load_state_dict(denoiser.backbone.state_dict())
    noisy = batch(picture)
    predicted = denoise_batch(bare.eval(), noisy, passes=bare.passes, seed=0)
    assert denoiser.noise_level == estimate_noise_levels([(noisy, predicted)])


def test_a_level_that_is_given_stays(tmp_path: Path) -> None:
    given = [(0.5, 0.01)]
    for denoiser in (make(noise_level=given), make()):
        denoiser.noise_level = given
        denoiser.fit(exposed(scene()), **FAST)
        assert denoiser.noise_level == (NoiseLevel(0.5, 0.01),)
    denoiser.noise_level = None
    denoiser.fit(exposed(scene()), **FAST)
    assert denoiser.noise_level is not None
    assert denoiser.noise_level[0].slope < 0.1


def test_a_level_that_is_set_is_checked() -> None:
    denoiser = make()
    with pytest.raises(SettingError, match="noise_level is"):
        denoiser.noise_level = (0.01, 1e-4)  # type: ignore[assignment]
    denoiser.noise_level = np.array([[0.5, 0.25]], np.float32)  # type: ignore[assignment]
    assert [type(value) for value in denoiser.noise_level[0]] == [float, float]


def test_pictures_too_small_for_a_level_do_not_cost_the_model(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pictures = [0.5 + 0.1 * random.standard_normal(size) for size in ((96, 96), (3, 64), (14, 40))]
    denoiser = make(train_stride=1, stride=15).fit(pictures, output=tmp_path, **FAST)
    assert denoiser.preset == "independent"
    assert denoiser.noise_level is not None
    assert (tmp_path / "model.safetensors").exists()


def test_a_level_that_cannot_be_measured_does_not_cost_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("masked_denoise.training.loop.measured_level", fail)
    denoiser = make().fit(exposed(scene()), output=tmp_path, **FAST)
    assert denoiser.noise_level is None
    assert denoiser.fit_record["stopped"] == "finished"
    assert "out of memory" in caplog.text
    assert (tmp_path / "model.safetensors").exists()


def test_a_batch_with_nan_is_told_as_a_batch() -> None:
    holed = torch.rand(2, 1, 64, 64)
    holed[0, 0, 3, 3] = float("nan")
    with pytest.raises(PixelError, match=r"batch 0 has NaN.*nan_to_num"):
        make().fit([holed], **FAST)


def test_a_student_finds_no_level() -> None:
    student = AsymmetricMaskDenoiser(
        Blur(), channels=1, preset="student", residual=False, observation="measured"
    )
    noisy = torch.rand(2, 1, 64, 64)
    train_student(student, [(noisy, noisy)], steps=2, progress=False, validation=False)
    assert student.noise_level is None


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
    assert "from pixel to pixel: preset 'independent'" in capfd.readouterr().err


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
    other = make(train_stride=4)
    with pytest.raises(CheckpointError, match="train_stride"):
        other.fit(picture, resume=tmp_path, **{**FAST, "steps": 6})
    assert other.undecided
    assert other.preset is None


def test_ctrl_c_while_the_level_is_measured_keeps_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("masked_denoise.training.loop.measured_level", press)
    denoiser = make().fit(exposed(scene()), output=tmp_path, **FAST)
    assert denoiser.fit_record["stopped"] == "interrupted"
    assert denoiser.noise_level is None
    assert (tmp_path / "model.safetensors").exists()


def _fit_one_of_two(folder: str) -> None:
    torch.set_num_threads(1)
    rank = torch.distributed.get_rank()
    picture = [exposed(scene()), blurred(4, 256)][rank]
    denoiser = make(train_stride=None).fit(picture, **FAST)
    found = [denoiser.preset, denoiser.noise_level, denoiser.backbone.weight.tolist()]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_processes_decide_and_measure_alike(tmp_path: Path) -> None:
    code = (
        "import sys; from accelerate import debug_launcher; import test_observation as here; "
        "debug_launcher(here._fit_one_of_two, (sys.argv[1],), num_processes=2)"
    )
    places = [str(Path(__file__).parent), str(Path(masked_denoise.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, timeout=240
    )
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first[0] == "independent"
    assert first == second


# -- on disk ----------------------------------------------------------------------------------


def test_the_level_comes_back_with_the_model(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"channels": 1, "backbone_args": {"widths": (4, 8)}}
    denoiser = AsymmetricMaskDenoiser(**settings).fit(exposed(scene(128)), **FAST)
    denoiser.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert again.noise_level == denoiser.noise_level
    assert not again.level_given
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

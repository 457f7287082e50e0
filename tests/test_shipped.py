"""The model that comes with the package: it is there, small, good, and what the command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from masked_denoise import AsymmetricMaskDenoiser, from_pretrained
from masked_denoise.camera_noise import CameraNoise
from masked_denoise.errors import SettingError, WeightsError
from masked_denoise.images import ImageFile, read_image, write_image
from masked_denoise.jobs.models import (
    is_for_shipped,
    prefer_shipped,
    shipped_models,
    shipped_suits,
)
from masked_denoise.jobs.survey import Kind, Picture
from masked_denoise.metrics import score
from masked_denoise.pretrained.shipped import SHIPPED, as_grey, load_shipped
from masked_denoise.samples import list_samples, sample_path
from masked_denoise.training.ranking import Rank


def test_it_is_at_most_five_megabytes_and_says_where_it_comes_from() -> None:
    for model in SHIPPED.values():
        files = list(model.folder.iterdir())
        assert sum(file.stat().st_size for file in files) < 5e6
        loaded = from_pretrained(model.name)
        assert loaded.card["license"] == model.license
        assert loaded.card["training_data"] == model.training_data
        assert model.license in (model.folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", list_samples())
def test_samples_gain_at_least_two_decibels(name: str) -> None:
    noisy, clean = (read_image(sample_path(name, clean=which)).pixels for which in (False, True))
    denoised = load_shipped().denoise(noisy)
    assert score(denoised, clean)["psnr"] > score(noisy, clean)["psnr"] + 2


@pytest.mark.parametrize("name", list_samples())
@pytest.mark.parametrize(
    ("kind", "level", "gain"),
    [("camera", 9, 4), ("camera", 20, 7), ("camera", 35, 9), ("white", 20, 9)],
)
def test_noise_of_any_strength_goes(name: str, kind: str, level: float, gain: float) -> None:
    clean = read_image(sample_path(name, clean=True)).pixels
    unit = torch.from_numpy(clean.copy()).permute(2, 0, 1).float() / 255
    noise = CameraNoise(
        sigma=(level / 255, level / 255), white=float(kind == "white"), uncompressed=1.0
    )
    made = noise.add(unit, np.random.default_rng(0)).mul(255).round().to(torch.uint8)
    noisy = made.permute(1, 2, 0).contiguous().numpy()
    denoised = load_shipped().denoise(noisy)
    assert score(denoised, clean)["psnr"] > score(noisy, clean)["psnr"] + gain


def test_clean_pictures_are_left_nearly_as_they_are() -> None:
    clean = read_image(sample_path("lighthouse", clean=True)).pixels
    assert score(load_shipped().denoise(clean), clean)["psnr"] > 38


def test_grey_is_what_equal_colours_give() -> None:
    model = load_shipped()
    grey = torch.rand(1, 50, 61, generator=torch.Generator().manual_seed(0))
    wanted = model.denoise(grey.expand(3, -1, -1)).mean(0, keepdim=True)
    off = (as_grey(model).denoise(grey) - wanted).abs()
    assert float(off.median()) < 1e-5  # a coefficient at its threshold may fall to either side
    assert float(off.max()) < 1e-2
    with pytest.raises(SettingError, match="'fast-student' and 3"):
        as_grey(AsymmetricMaskDenoiser(torch.nn.Conv2d(3, 3, 3, padding=1)))


def test_only_integers_of_one_or_three_channels_are_for_it() -> None:
    kinds = [Kind(1), Kind(2), Kind(3), Kind(3, "dim"), Kind(3, "floats"), Kind(4)]
    assert [kind for kind in kinds if is_for_shipped(kind)] == [Kind(1), Kind(3)]
    models = shipped_models(kinds)
    assert {kind: model.channels for kind, model in models.items()} == {Kind(1): 1, Kind(3): 3}
    assert shipped_models([Kind(2)]) == {}


def test_independent_noise_of_grey_pictures_is_for_another_network(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def suits(name: str, noisy: np.ndarray) -> bool:
        pixels = (255 * noisy).round().clip(0, 255).astype(np.uint8)
        write_image(tmp_path / name, ImageFile(pixels))
        kind = Kind(noisy.shape[2] if noisy.ndim == 3 else 1)
        picture = Picture(tmp_path / name, *noisy.shape[:2], kind.channels, "uint8")
        return shipped_suits(kind, [picture])

    white = random.standard_normal((128, 128, 3))
    assert not suits("grey.png", 0.5 + 0.1 * white[..., 0])
    assert suits("colour.png", 0.5 + 0.1 * white)
    assert suits("little.png", 0.5 + 0.004 * white[..., 0])
    assert suits("small.png", 0.5 + 0.1 * white[:20, :20, 0])
    shared = white.mean(2) + np.roll(white, 1, 1).mean(2) + np.roll(white, 1, 0).mean(2)
    assert suits("alike.png", 0.5 + 0.1 * shared)


def test_names_that_could_mean_two_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="neither revisions"):
        from_pretrained("camera-small@main")
    with pytest.raises(WeightsError, match="did you mean 'camera-small'"):
        from_pretrained("camera-smal")
    (tmp_path / "camera-small").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="local-dir:camera-small"):
        from_pretrained("camera-small")


def test_sixteen_bits_and_odd_sizes_come_back_as_they_came() -> None:
    noisy = (np.random.default_rng(0).random((37, 51, 3)) * 65535).astype(np.uint16)
    denoised = load_shipped().denoise(noisy)
    assert (denoised.shape, denoised.dtype) == (noisy.shape, noisy.dtype)


def test_the_grey_model_is_ready_and_made_without_disturbing_anything() -> None:
    model = load_shipped()
    model.passes = 3
    before = torch.get_rng_state()
    grey = as_grey(model)
    assert torch.equal(before, torch.get_rng_state())
    assert not grey.training
    assert grey.passes == 3


def test_the_better_of_a_fitted_model_and_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    white = np.random.default_rng(0).standard_normal((96, 96, 3))
    alike = sum(np.roll(white, shift, (0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))) / 2
    clean = np.linspace(0.2, 0.8, 96)[:, None, None] * np.ones((96, 3))
    noisy = (255 * (clean + 0.05 * alike)).round().clip(0, 255).astype(np.uint8)
    write_image(tmp_path / "a.png", ImageFile(noisy))
    pictures = [Picture(tmp_path / "a.png", 96, 96, 3, "uint8")]
    fitted = AsymmetricMaskDenoiser("fast-unet", preset="default").eval()
    better, psnr = prefer_shipped(fitted, Kind(3), pictures)
    assert better is not fitted
    assert psnr["camera-small"] > psnr["fitted"] + 1

    def reversed_ranks(*args: Any, **settings: Any) -> list[Rank]:
        return [Rank("fitted", 31.0, 1.0), Rank("camera-small", 30.0, 0.0)]

    monkeypatch.setattr("masked_denoise.training.ranking.rank_models", reversed_ranks)
    assert prefer_shipped(fitted, Kind(3), pictures)[0] is fitted
    assert prefer_shipped(fitted, Kind(3, "floats"), pictures) == (fitted, {})
    independent = AsymmetricMaskDenoiser("fast-unet", preset="independent").eval()
    assert prefer_shipped(independent, Kind(3), pictures) == (independent, {})

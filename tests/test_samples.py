"""The shipped pictures and the camera that makes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from masked_denoise.errors import UnknownNameError
from masked_denoise.samples import list_samples, sample_path

ROOT = Path(__file__).resolve().parents[1]
KODAK = ROOT.parent / "shared" / "data" / "kodak"
MADE_WITH = {
    "lighthouse": ("kodim21.png", "150,60,512,384", "21"),
    "parrot": ("kodim23.png", "330,60,384,256", "23"),
}


@pytest.fixture(scope="module")
def camera() -> ModuleType:
    path = ROOT / "examples" / "make_sample.py"
    if not path.exists():
        pytest.skip("examples/make_sample.py is in the repository only")
    spec = importlib.util.spec_from_file_location("make_sample", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(level: int, size: int = 96) -> NDArray[np.uint8]:
    return np.full((size, size, 3), level, np.uint8)


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def correlation(plane: NDArray[np.float64], lag: int) -> float:
    error = plane - plane.mean()
    across = np.mean(error[:, lag:] * error[:, :-lag])
    return float((across + np.mean(error[lag:] * error[:-lag])) / 2 / error.var())


@pytest.mark.parametrize("name", list_samples())
def test_sample_is_a_noisy_jpeg_and_its_clean_picture(name: str, camera: ModuleType) -> None:
    with Image.open(sample_path(name)) as noisy, Image.open(sample_path(name, clean=True)) as clean:
        assert (noisy.format, clean.format) == ("JPEG", "PNG")
        assert noisy.mode == clean.mode == "RGB"
        assert noisy.size == clean.size
        assert 28 < camera.psnr(np.asarray(noisy), np.asarray(clean)) < 31


def test_samples_stay_small() -> None:
    paths = [sample_path(name, clean=clean) for name in list_samples() for clean in (False, True)]
    assert sum(path.stat().st_size for path in paths) < 700_000
    assert len(paths) == 4


def test_unknown_sample_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'lighthouse'"):
        sample_path("lighthouses")


@pytest.mark.skipif(not KODAK.is_dir(), reason="the Kodak images are not here")
@pytest.mark.parametrize("name", list_samples())
def test_shipped_sample_is_what_the_script_makes(
    name: str, camera: ModuleType, tmp_path: Path
) -> None:
    source, crop, seed = MADE_WITH[name]
    noisy, clean = tmp_path / "n.jpg", tmp_path / "c.png"
    words = [str(KODAK / source), "-o", str(noisy), "--clean", str(clean), "--crop", crop]
    assert camera.main([*words, "--gain", "50", "--seed", seed]) == 0
    np.testing.assert_allclose(read(clean), read(sample_path(name, clean=True)).astype(int), atol=1)
    assert camera.psnr(read(noisy), read(sample_path(name))) > 45  # JPEG encoders round differently


def test_same_seed_same_picture(camera: ModuleType) -> None:
    first, again = (camera.simulate_camera(flat(120, 32), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != camera.simulate_camera(flat(120, 32), seed=4)).mean() > 0.8


def test_variance_grows_in_a_line_with_light(camera: ModuleType) -> None:
    levels = np.array([60, 100, 140, 180, 215])
    shots = [camera.simulate_camera(flat(level), gain=50, seed=1) for level in levels]
    variances = [camera.to_linear(shot / 255.0)[..., 1].var() for shot in shots]
    light = camera.to_linear(levels / 255.0)
    assert np.all(np.diff(variances) > 0)
    assert np.corrcoef(light, variances)[0, 1] > 0.99


def test_expose_follows_photon_and_read_noise(camera: ModuleType) -> None:
    for signal in (0.0, 0.1, 0.8):
        shot = camera.expose(np.full((200, 200), signal), 400.0, 6.0, seed=5)
        expected = signal / 400 + (6 / 400) ** 2
        assert shot.var() == pytest.approx(expected, rel=0.04)
        assert shot.mean() == pytest.approx(signal, abs=4 * (expected / shot.size) ** 0.5)


@pytest.mark.parametrize("level", [90, 128, 180])
def test_mean_is_unbiased_in_mid_tones(camera: ModuleType, level: int) -> None:
    shot = camera.simulate_camera(flat(level, 160), gain=50, seed=2)
    light = camera.to_linear(shot / 255.0).mean(axis=(0, 1))
    np.testing.assert_allclose(light, camera.to_linear(np.array(level / 255.0)), rtol=0.01)


def test_noise_is_correlated_and_coloured(camera: ModuleType) -> None:
    shot = camera.simulate_camera(flat(128, 160), seed=6).astype(np.float64)
    luma = shot @ [0.299, 0.587, 0.114]
    red_difference = 0.713 * (shot[..., 0] - luma)
    assert correlation(luma, 1) > 0.1
    assert correlation(red_difference, 1) > 0.5
    assert abs(correlation(red_difference, 10)) < 0.1
    assert red_difference.std() > 0.5 * luma.std()


def test_camera_without_noise_keeps_smooth_colours(camera: ModuleType) -> None:
    ramp = np.linspace(40, 220, 64)
    smooth = np.stack(
        [np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 130)], axis=2
    ).astype(np.uint8)
    kept = camera.simulate_camera(smooth, gain=0)
    assert np.abs(kept.astype(int) - smooth)[4:-4, 4:-4].max() <= 4


def test_demosaic_is_exact_on_grey_and_keeps_what_the_sensor_saw(camera: ModuleType) -> None:
    np.testing.assert_allclose(camera.demosaic(np.full((7, 10), 0.3)), 0.3)
    mosaic = np.random.default_rng(0).random((9, 8))
    masks = camera.bayer_masks(9, 8)
    assert (masks.sum(axis=2) == 1).all()
    assert masks[:2, :2].argmax(axis=2).tolist() == [[0, 1], [1, 2]]
    np.testing.assert_allclose((camera.demosaic(mosaic) * masks).sum(axis=2), mosaic)


@pytest.mark.parametrize("turned", [False, True])
def test_demosaic_follows_lines(turned: bool, camera: ModuleType) -> None:
    lines = np.tile(np.array([0.1, 0.1, 0.9, 0.2, 0.2, 0.2, 0.7, 0.7, 0.1, 0.1]), (10, 1))
    picture = lines.T if turned else lines
    np.testing.assert_allclose(camera.demosaic(picture), np.stack([picture] * 3, axis=2))


def test_jpeg_has_halved_chroma(camera: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(camera.jpeg_bytes(flat(90, 32)))
    with Image.open(path) as picture:
        assert picture.layer[0][1:3] == (2, 2)


@pytest.mark.parametrize(
    ("image", "settings"),
    [
        (np.zeros((8, 8), np.uint8), {}),
        (np.zeros((8, 8, 3), np.float32), {}),
        (flat(9, 8), {"gain": -1.0}),
        (flat(9, 8), {"full_well": 0.0}),
    ],
)
def test_camera_names_what_it_needs(
    image: NDArray[np.uint8], settings: dict[str, float], camera: ModuleType
) -> None:
    with pytest.raises(ValueError, match="got"):
        camera.simulate_camera(image, **settings)

"""Measured noise against noise that is known: simulated, and real where the photographs are."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from masked_denoise.errors import (
    DataError,
    ImageWriteError,
    MissingExtraError,
    PixelError,
    SettingError,
)
from masked_denoise.noise import ChannelNoise, NoiseReport, fit_line, measure_noise, plot_noise
from masked_denoise.noise_advice import advise

POLYU = Path(__file__).resolve().parents[2] / "shared" / "data" / "polyu"


def scene(size: int = 384, seed: int = 0) -> np.ndarray:
    """Return a clean grey image in 0.05..0.95: gradients, edges of discs, a textured band."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    image = 0.15 + 0.6 * x + 0.08 * np.sin(5 * y)
    for cy, cx, radius, level in random.random((8, 4)):
        image[(y - cy) ** 2 + (x - cx) ** 2 < (0.1 * radius) ** 2] = 0.15 + 0.7 * level
    image += (y > 0.8) * 0.08 * np.sin(250 * x) * np.sin(310 * y)
    return image.clip(0.05, 0.95)


def white(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def correlated(shape: tuple[int, int], kernel: list[float], seed: int = 0) -> np.ndarray:
    """Return noise of variance 1, white noise blurred along both axes by the kernel."""
    noise, weight = white(shape, seed), np.array(kernel) / np.sqrt(np.square(kernel).sum())
    for axis in (0, 1):
        noise = sum(w * np.roll(noise, i, axis) for i, w in enumerate(weight))
    return noise


def true_correlation(kernel: list[float]) -> np.ndarray:
    k = np.array([*kernel, *[0.0] * 16])
    return np.array([(k[d:] * k[: len(k) - d]).sum() for d in range(1, 17)]) / (k**2).sum()


@pytest.mark.parametrize(("slope", "offset"), [(0.004, 0.0002), (0.0, 0.002), (0.02, 0.0)])
def test_level_of_white_noise(slope: float, offset: float) -> None:
    clean = scene()
    noisy = clean + np.sqrt(slope * clean + offset) * white(clean.shape)
    report = measure_noise(noisy)
    middle = np.linspace(0.25, 0.75, 11)
    true = np.sqrt(slope * middle + offset)
    assert report.luma.fitted_sigma(middle) == pytest.approx(true, rel=0.1)
    measured = np.interp(middle, report.luma.intensity, report.luma.intensity_sigma)
    assert measured == pytest.approx(true, rel=0.1)
    assert report.luma.sigma == pytest.approx(np.sqrt((slope * clean + offset).mean()), rel=0.1)
    assert report.luma.fit_error < 0.2
    assert np.abs(report.luma.correlation[:3]).max() < 0.05
    assert (report.train_stride, report.stride) == (1, 1)
    assert "stride 1" in report.advice


@pytest.mark.parametrize(
    ("kernel", "reach"),
    [([1, 2, 1], 2), ([1, 3, 4, 3, 1], 3), ([1, 2, 3, 2, 1], 3)],
)
def test_correlated_noise(kernel: list[float], reach: int) -> None:
    clean = scene()
    report = measure_noise(clean + 0.03 * correlated(clean.shape, kernel))
    true = true_correlation(kernel)
    assert report.luma.correlation[:3] == pytest.approx(true[:3], abs=0.05)
    assert report.luma.correlation[3:] == pytest.approx(true[3:], abs=0.08)
    assert report.luma.sigma == pytest.approx(0.03, rel=0.1)
    assert report.reach == reach
    assert (report.train_stride, report.stride) == (2, 1)  # sharp edges
    assert f"from {reach} pixels on" in report.advice


def test_correlation_beyond_the_largest_stride() -> None:
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / 3) ** 2).tolist()
    image = 0.5 + 0.03 * correlated((384, 384), kernel)
    report = measure_noise(image, correlation_limit=0.2)
    assert report.reach == 5
    assert "still correlated at 5 pixels" in report.advice
    noisy = 0.5 + 0.03 * correlated((384, 384), [1, 2, 1])
    assert measure_noise(noisy).reach == 2
    assert measure_noise(noisy, correlation_limit=0.9).reach == 1


def test_colour_and_chroma() -> None:
    clean = scene(320)[..., None] * np.array([1.0, 0.8, 0.6])
    coarse = correlated((320, 320), [1.0] * 6, 1)[..., None] * np.array([0.03, 0.0, -0.03])
    noisy = clean + coarse + np.array([0.01, 0.02, 0.04]) * white(clean.shape)
    report = measure_noise(noisy)
    assert [c.name for c in report.channels] == ["R", "G", "B", "Y", "Cb", "Cr"]
    true = np.hypot([0.01, 0.02, 0.04], [0.03, 0.0, 0.03])
    assert [report[c].sigma for c in "RGB"] == pytest.approx(true, rel=0.1)
    assert report.luma is report["Y"]
    assert report["G"].correlation[0] == pytest.approx(0, abs=0.05)
    assert report["Cr"].correlation[2] > report.luma.correlation[2] + 0.2
    with pytest.raises(KeyError, match="Cr"):
        report["U"]


def textured() -> np.ndarray:
    """Return a colour picture (384, 384, 3) of grey texture, faint at its left edge."""
    spectrum = np.fft.rfft2(white((384, 384), 5))
    row, column = np.fft.fftfreq(384)[:, None], np.fft.rfftfreq(384)[None]
    texture = np.fft.irfft2(spectrum / (0.02 + np.hypot(row, column)), s=(384, 384))
    picture = (0.5 + np.minimum(np.arange(384) / 300, 0.1) * texture / texture.std())[..., None]
    return np.repeat(picture, 3, 2).astype(np.float64)


def test_colour_tells_noise_from_texture() -> None:
    clean = textured()
    report = measure_noise(clean + 0.05 * white(clean.shape))
    assert report.luma.correlation[0] > 0.4  # texture
    assert report["Cb"].correlation[0] < 0.1
    assert report.independent
    assert report.train_stride == 1
    assert "texture" in report.advice
    planes = [correlated((384, 384), [1, 1], seed) for seed in range(3)]
    assert not measure_noise(clean + 0.05 * np.stack(planes, 2)).independent
    assert not measure_noise(clean).independent  # no colour noise to tell by
    for colour in (0.002, 0.013, 0.03):  # such as a scan of a monochrome film
        grain = 0.05 * planes[0][..., None] + colour * white(clean.shape)
        assert not measure_noise(0.5 + grain).independent
    grey = (clean + 0.05 * white(clean.shape))[..., 0]
    assert not measure_noise(grey).independent


@pytest.mark.parametrize(
    ("correlation", "sharpness", "reach", "stride"),
    [
        ((0.1,), 0.2, 1, 1),
        ((0.5, 0.1), 0.2, 2, 3),
        ((0.5, 0.1), 0.6, 2, 2),
        ((0.9,) * 8, 0.4, 5, 3),
    ],
)
def test_sharp_pictures_take_a_smaller_stride(
    correlation: tuple[float, ...], sharpness: float, reach: int, stride: int
) -> None:
    far = correlation + (0.0,) * (16 - len(correlation))
    grey = ChannelNoise("grey", 0.03, (0.5,), (0.03,), 0.0, 0.0009, 0.0, far)
    found = advise([grey], sharpness=sharpness, luma_over_colour=0.0)
    assert (found.reach, found.train_stride, found.stride) == (reach, stride, 1)
    assert f"stride {stride}" in found.advice
    assert ("smooth" in found.advice, "sharp" in found.advice) == (stride == 3, stride == 2)


def test_edges_do_not_pull() -> None:
    clean = scene()
    clean[:150] = np.where(np.arange(clean.shape[1]) % 37 < 18, 0.2, 0.8)  # edges in all patches
    report = measure_noise(clean + 0.03 * white(clean.shape))
    middle = np.array([0.3, 0.45, 0.6])  # where flat areas are left
    got = np.interp(middle, report.luma.intensity, report.luma.intensity_sigma)
    assert got == pytest.approx(0.03, rel=0.12)


def test_small_things_in_flat_areas_do_not_pull() -> None:
    clean = np.full((384, 384), 0.5)
    for row, col in np.random.default_rng(1).integers(0, 380, (60, 2)):
        clean[row : row + 4, col : col + 4] = 0.8
    report = measure_noise(clean + 0.03 * white(clean.shape))
    assert report.luma.sigma == pytest.approx(0.03, rel=0.03)


def test_fit_passes_below_a_textured_brightness() -> None:
    intensity = np.linspace(0.1, 0.9, 9)
    variance = 0.004 * intensity + 0.0002
    variance[[2, 8]] *= 6
    slope, offset, error = fit_line(intensity, variance, np.ones(9))
    assert (slope, offset) == pytest.approx((0.004, 0.0002), rel=0.05)
    assert error > 0.4
    slope, offset, error = fit_line(intensity, 0.01 - 0.005 * intensity, np.ones(9))
    assert slope == 0
    assert 0.005 < offset < 0.01


def test_clipped_and_empty_areas_do_not_pull() -> None:
    clean = np.clip(1.6 * np.mgrid[0:384, 0:384][1] / 384 - 0.3, 0, 1)  # black to white
    noisy = np.clip(clean + 0.03 * white(clean.shape), 0, 1)
    noisy[:100] = 0.5  # a border without any noise
    report = measure_noise((255 * noisy).round().astype(np.uint8))
    assert np.array(report.luma.intensity_sigma) == pytest.approx(0.03, rel=0.1)
    assert report.luma.sigma == pytest.approx(0.03, rel=0.1)


def test_a_brightness_that_is_all_texture_does_not_pull() -> None:
    clean = np.full((384, 384), 0.7)
    waves = np.outer(np.sin(0.6 * np.arange(384)), np.sin(0.5 * np.arange(192)))
    clean[:, :192] = 0.45 + 0.25 * waves
    report = measure_noise(clean + 0.02 * white(clean.shape))
    assert report.luma.sigma == pytest.approx(0.02, rel=0.1)
    assert report.train_stride == 1


@pytest.mark.parametrize(
    "image",
    [
        np.full((64, 64), 100, np.uint8),
        np.zeros((64, 64, 3), np.float32),
        (255 * scene(320)).astype(np.uint8),
        scene(320),
    ],
)
def test_nearly_clean_images(image: np.ndarray) -> None:
    report = measure_noise(image)
    assert report.luma.sigma < 0.5 / 255
    assert report.negligible
    assert not report.independent
    assert "nearly nothing to remove" in report.advice
    assert all(np.isfinite(report.luma.correlation))


def test_forms_of_images_agree() -> None:
    noisy = np.clip(scene(192)[..., None] + 0.03 * white((192, 192, 3)), 0, 1)
    stored = (noisy * 65535).round().astype(np.uint16)
    expected = measure_noise(noisy).luma.sigma
    tensor = torch.from_numpy(noisy).movedim(-1, 0)
    assert measure_noise(stored).luma.sigma == pytest.approx(expected, rel=1e-3)
    assert measure_noise([tensor]).luma.sigma == pytest.approx(expected, rel=1e-5)
    assert measure_noise(tensor[None]).luma.sigma == pytest.approx(expected, rel=1e-5)
    scaled = measure_noise(noisy * 4000, value_range=(0, 4000))
    assert scaled.luma.sigma == pytest.approx(expected, rel=1e-5)
    assert scaled.value_range == (0, 4000)
    found = measure_noise(noisy * 4000)  # the range is found: lowest to highest value
    assert found.value_range == pytest.approx((4000 * noisy.min(), 4000 * noisy.max()))
    assert found.luma.sigma == pytest.approx(expected / np.ptp(noisy), rel=1e-3)
    pair = measure_noise(iter([noisy, noisy[:100]]))
    assert pair.images == 2
    assert pair.luma.sigma == pytest.approx(expected, rel=0.1)
    assert [c.name for c in measure_noise(noisy[..., :2]).channels] == ["1", "2", "mean"]


def test_advice_does_not_depend_on_the_scale() -> None:
    noisy = np.clip(scene(192)[..., None] + 0.03 * white((192, 192, 3)), 0, 1)
    few = np.round(noisy * 4095).astype(np.uint16)  # 12 bits stored in 16
    forms = [
        measure_noise((noisy * 65535).round().astype(np.uint16)),
        measure_noise(few),
        measure_noise(noisy.astype(np.float32)),
        measure_noise(noisy * 4000),
        measure_noise(noisy * 0.01, value_range=(0, 0.01)),
    ]
    advice = {(one.negligible, one.independent, one.train_stride) for one in forms}
    assert advice == {(False, True, 1)}
    assert np.ptp([one.sharpness for one in forms]) < 0.05 * forms[0].sharpness
    assert measure_noise([few, few // 4]).independent
    bright = np.full((64, 64, 3), 60000, np.uint16)  # so the others are dark, and without noise
    assert measure_noise([bright, (few // 16)]).negligible


def test_noise_of_colour_alone() -> None:
    colour = np.array([1, -(0.299 + 2 * 0.114) / 0.587, 2])  # of no luma
    random = white((192, 192))
    assert measure_noise(0.5 + 0.03 * random[..., None] * colour).train_stride == 1
    blotches = np.kron(random[:48, :48], np.ones((4, 4)))
    coarse = 0.5 + 0.03 * blotches[..., None] * colour
    report = measure_noise(coarse)
    assert report.luma.sigma < 0.5 / 255
    assert report.train_stride > 1
    assert "colour noise" in report.advice
    assert not report.independent


def test_strong_float_noise_keeps_the_scale() -> None:
    report = measure_noise(0.5 + 0.4 * white((256, 256)))
    assert report.value_range == (0, 1)
    assert report.luma.sigma == pytest.approx(0.4, rel=0.05)


def test_fewer_pixels_and_repetition() -> None:
    noisy = scene(512) + 0.05 * white((512, 512))
    few = measure_noise(noisy, max_pixels=200_000)
    assert few == measure_noise(noisy, max_pixels=200_000)
    assert few != measure_noise(noisy, max_pixels=200_000, seed=1)
    assert few.patches < measure_noise(noisy).patches
    assert few.luma.sigma == pytest.approx(0.05, rel=0.1)


def test_bad_input() -> None:
    good = white((64, 64))
    with pytest.raises(DataError, match="at least 32"):
        measure_noise([good[:20]])
    with pytest.raises(DataError, match="1 and 3 channels"):
        measure_noise([good, white((64, 64, 3))])
    with pytest.raises(PixelError, match="image 1 has NaN"):
        measure_noise([good, np.full((64, 64), np.nan)])
    with pytest.raises(SettingError, match="correlation_limit"):
        measure_noise(good, correlation_limit=0)
    assert measure_noise([good[:20], good]).images == 1


def report_of(channels: str) -> NoiseReport:
    size = (128, 128, 3) if channels == "RGB" else (128, 128)
    return measure_noise(0.5 + 0.05 * white(size))


def test_report_as_text_and_json() -> None:
    report = report_of("RGB")
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["channels"][3]["name"] == "Y"
    assert len(plain["channels"][3]["correlation"]) == 16
    assert plain["channels"][3]["sigma"] == report.luma.sigma
    assert plain["train_stride"] == report.train_stride
    channels = [
        ChannelNoise(**{k: tuple(v) if isinstance(v, list) else v for k, v in c.items()})
        for c in plain["channels"]
    ]
    assert tuple(channels) == report.channels
    text = str(report)
    assert text == report.summary()
    assert f"{report['Cb'].sigma:.4f}" in text
    assert report.advice in text
    assert max(map(len, text.splitlines()[:-1])) <= 100


@pytest.mark.parametrize(("channels", "suffix"), [("RGB", "png"), ("grey", "svg")])
def test_plot(channels: str, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = plot_noise(report_of(channels), tmp_path / f"noise.{suffix}")
    start = path.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in start
    assert plot_noise(report_of(channels), tmp_path / "new" / "noise.png").is_file()
    with pytest.raises(ImageWriteError, match=r"\.png"):
        plot_noise(report_of(channels), path / "below_a_file.png")
    assert path.read_bytes()[:200] == start


def test_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pip install matplotlib"):
        plot_noise(report_of("grey"), tmp_path / "noise.png")


def test_real_photographs() -> None:
    if not POLYU.exists():
        pytest.skip("the photographs are not here")
    from PIL import Image

    cleans = sorted((POLYU / "clean_dev").glob("*.JPG"))[::4]
    noisy, residual = [], []
    for path in cleans:
        name = path.name.replace("_mean", "_real")
        noisy.append(np.asarray(Image.open(POLYU / "noisy" / name).convert("RGB")))
        clean = np.asarray(Image.open(path).convert("RGB"))
        residual.append(noisy[-1].astype(float) - clean)
    report = measure_noise(noisy, max_pixels=1 << 21)
    true = np.sqrt(np.mean(np.square(residual), axis=(0, 1, 2))) / 255
    for channel, sigma in zip("RGB", true, strict=True):
        assert 0.5 * sigma < report[channel].sigma < 1.2 * sigma  # JPEG smooths flat areas
    # The correlation of the whole residual: .56 .21 .13 for Y, .91 .79 .64 for Cb and Cr.
    assert report.luma.correlation[:3] == pytest.approx([0.56, 0.21, 0.13], abs=0.2)
    for name in ("Cb", "Cr"):
        assert report[name].correlation[:3] == pytest.approx([0.91, 0.79, 0.64], abs=0.12)
    assert 2 <= report.reach <= 4
    assert report.train_stride == 3

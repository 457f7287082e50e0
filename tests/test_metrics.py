"""PSNR and SSIM against scikit-image, a direct calculation, and recorded numbers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from masked_denoise.errors import PixelError, SettingError, SizeError, UnknownNameError
from masked_denoise.metrics import psnr, score, ssim

SHARED = Path(__file__).resolve().parents[2] / "shared"
WINDOWS = {"uniform": {}, "gaussian": {"gaussian_weights": True, "sigma": 1.5}}


def pair(shape: tuple[int, ...], dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy and a clean array: smooth content and noise, over the range of the type."""
    random = np.random.default_rng(seed)
    rows, cols = np.arange(shape[0])[:, None], np.arange(shape[1])
    clean = 0.5 + 0.3 * np.sin(rows / 9) * np.cos(cols / 7)
    clean = np.broadcast_to(clean[..., None] if len(shape) == 3 else clean, shape)
    noisy = np.clip(clean + 0.05 * random.standard_normal(shape), 0, 1)
    if np.dtype(dtype).kind == "f":
        return noisy.astype(dtype), clean.astype(dtype)
    top = np.iinfo(dtype).max
    return (noisy * top).astype(dtype), (clean * top).astype(dtype)


def direct_ssim(a: np.ndarray, b: np.ndarray, weight: np.ndarray, correction: float) -> float:
    """Return SSIM of grey images in [0, 1], window after window, from the definition."""
    size, values = len(weight), []
    for top in range(a.shape[0] - size + 1):
        for left in range(a.shape[1] - size + 1):
            x = a[top : top + size, left : left + size]
            y = b[top : top + size, left : left + size]
            mx, my = (weight * x).sum(), (weight * y).sum()
            vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
            vxy = (weight * (x - mx) * (y - my)).sum()
            vx, vy, vxy = correction * vx, correction * vy, correction * vxy
            values.append(
                (2 * mx * my + 1e-4)
                * (2 * vxy + 9e-4)
                / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
            )
    return float(np.mean(values))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(33, 47), (32, 40, 3), (21, 22, 4)])
def test_equals_scikit_image(shape: tuple[int, ...], dtype: str) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    noisy, clean = pair(shape, dtype)
    top = 1.0 if np.dtype(dtype).kind == "f" else float(np.iinfo(dtype).max)
    a, b = noisy.astype(np.float64), clean.astype(np.float64)
    axis = 2 if len(shape) == 3 else None
    expected = metrics.peak_signal_noise_ratio(b, a, data_range=top)
    assert float(psnr(noisy, clean)) == pytest.approx(expected, abs=1e-8)
    for window, options in WINDOWS.items():
        extra = {**options, "use_sample_covariance": window == "uniform"}
        expected = metrics.structural_similarity(a, b, data_range=top, channel_axis=axis, **extra)
        assert float(ssim(noisy, clean, window=window)) == pytest.approx(expected, abs=1e-8)


def test_equals_the_definition() -> None:
    noisy, clean = pair((14, 17), "float64")
    mse = sum((x - y) ** 2 for x, y in zip(noisy.flat, clean.flat, strict=True)) / noisy.size
    assert float(psnr(noisy, clean)) == pytest.approx(-10 * math.log10(mse), abs=1e-10)
    flat = np.full((7, 7), 1 / 49)
    assert float(ssim(noisy, clean)) == pytest.approx(
        direct_ssim(noisy, clean, flat, 49 / 48), abs=1e-10
    )
    bell = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    bell = np.outer(bell, bell) / bell.sum() ** 2
    assert float(ssim(noisy, clean, window="gaussian")) == pytest.approx(
        direct_ssim(noisy, clean, bell, 1.0), abs=1e-10
    )


def test_strips_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, clean = pair((60, 30, 3), "float32")
    whole = [float(ssim(noisy, clean, window=window)) for window in WINDOWS]
    monkeypatch.setattr("masked_denoise.metrics._STRIP_PIXELS", 30 * 3 * 13)
    strips = [float(ssim(noisy, clean, window=window)) for window in WINDOWS]
    assert strips == pytest.approx(whole, abs=1e-12)


def test_batch_gives_one_number_an_image() -> None:
    pairs = [pair((24, 31, 3), "float32", seed) for seed in range(3)]
    noisy, clean = (torch.from_numpy(np.stack(x)).movedim(-1, 1) for x in zip(*pairs, strict=True))
    clean[1] = noisy[1]
    for metric in (psnr, ssim):
        result = metric(noisy, clean)
        assert result.shape == (3,)
        assert result.dtype == torch.float64
        for i in (0, 2):
            assert float(result[i]) == pytest.approx(float(metric(*pairs[i])), abs=1e-10)
            assert metric(noisy[i], clean[i]).shape == ()
    assert math.isinf(float(psnr(noisy, clean)[1]))
    assert float(ssim(noisy, clean)[1]) == 1.0


def test_layout_and_range_do_not_matter() -> None:
    noisy, clean = pair((20, 26, 3), "uint8")
    expected = float(psnr(noisy, clean)), float(ssim(noisy, clean))
    floats = noisy.astype(np.float32), clean.astype(np.float32)
    flipped = noisy[::-1, ::-1], clean[::-1, ::-1]
    assert (float(psnr(*flipped)), float(ssim(*flipped))) == pytest.approx(expected, abs=1e-10)
    got = float(psnr(*floats, data_range=255)), float(ssim(*floats, data_range=255))
    assert got == pytest.approx(expected, abs=1e-10)
    mixed = noisy, torch.from_numpy(clean.astype(np.float64) / 255).movedim(-1, 0)
    assert (float(psnr(*mixed)), float(ssim(*mixed))) == pytest.approx(expected, abs=1e-10)


def test_eight_bit_clamps_and_rounds() -> None:
    clean = np.array([[0.0, 1.0], [0.5, 0.25]]).repeat(4, 0).repeat(4, 1)
    noisy = clean + np.array([[-0.3, 0.3], [0.5 / 255, 0.1 / 255]]).repeat(4, 0).repeat(4, 1)
    rounded = [(np.clip(x, 0, 1) * 255).round().astype(np.uint8) for x in (noisy, clean)]
    assert float(psnr(noisy, clean, eight_bit=True)) == float(psnr(*rounded))
    assert float(ssim(noisy, clean, eight_bit=True)) == float(ssim(*rounded))
    assert float(psnr(noisy, clean)) < 20 < float(psnr(noisy, clean, eight_bit=True))


def test_score_is_eight_bit_and_uniform() -> None:
    noisy, clean = pair((19, 23, 3), "float32")
    noisy += 0.3
    expected = {
        "psnr": float(psnr(noisy, clean, eight_bit=True)),
        "ssim": float(ssim(noisy, clean, window="uniform", eight_bit=True)),
    }
    assert score(noisy, clean) == expected
    batch = torch.zeros(2, 3, 8, 8)
    with pytest.raises(SizeError, match="one image"):
        score(batch, batch)


@pytest.mark.parametrize(
    ("image", "clean", "error", "says"),
    [
        (np.zeros((8, 8)), np.zeros((8, 9)), SizeError, r"\(8, 8\).*\(8, 9\)"),
        (np.zeros((8, 8, 3)), np.zeros((8, 8)), SizeError, "same height, width and channels"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8), SizeError, "same height"),
        (torch.zeros(8, 8), torch.zeros(8, 8), SizeError, r"image\[None\]"),
        (np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8, 3)), SizeError, "a batch must be a tensor"),
        (np.zeros((6, 40)), np.zeros((6, 40)), SizeError, "6 x 40.*at least 7"),
        (np.zeros((0, 8)), np.zeros((0, 8)), SizeError, "no pixels"),
        (np.zeros((8, 8), bool), np.zeros((8, 8), bool), PixelError, "bool"),
        (torch.zeros(1, 8, 8, dtype=torch.bool), torch.zeros(1, 8, 8), PixelError, "bool"),
        (np.full((8, 8), np.nan), np.zeros((8, 8)), PixelError, "NaN"),
    ],
)
def test_bad_input(image: object, clean: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ssim(image, clean)  # type: ignore[arg-type]


def test_bad_settings() -> None:
    image = np.zeros((10, 10))
    with pytest.raises(UnknownNameError, match="gaussian"):
        ssim(image, image, window="gausian")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="data_range"):
        psnr(image, image, data_range=0)
    with pytest.raises(SizeError, match="window='uniform'"):
        ssim(image, image, window="gaussian")


def test_recorded_numbers() -> None:
    path = SHARED / "golden" / "metrics.safetensors"
    if not path.exists():
        pytest.skip("the recorded reference numbers are not here")
    from safetensors.torch import load_file

    golden = load_file(path)
    got = psnr(golden["a"], golden["b"], eight_bit=True)
    assert float(got) == pytest.approx(float(golden["psnr_uint8"]), abs=1e-3)
    got = ssim(golden["a"], golden["b"], window="gaussian", eight_bit=True)
    assert float(got) == pytest.approx(float(golden["ssim_uint8"]), abs=1e-4)


def test_score_equals_the_score_tool(tmp_path: Path) -> None:
    tool = SHARED / "tools" / "score.py"
    if not tool.exists():
        pytest.skip("the score tool is not here")
    pytest.importorskip("skimage")
    from PIL import Image

    noisy, clean = pair((40, 52, 3), "uint8")
    for name, array in (("denoised", noisy), ("clean", clean)):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "one.png")
    out = tmp_path / "scores.json"
    command = [sys.executable, tool, tmp_path / "denoised", tmp_path / "clean", "--json", out]
    subprocess.run(command, check=True, capture_output=True)
    expected = json.loads(out.read_text())["images"][0]
    got = score(noisy, clean)
    assert got["psnr"] == pytest.approx(expected["psnr"], abs=1e-8)
    assert got["ssim"] == pytest.approx(expected["ssim"], abs=1e-8)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int64"])
def test_values_that_leave_their_scale_empty_are_told(dtype: str) -> None:
    clean = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(dtype)
    with pytest.warns(UserWarning, match=rf"values of {dtype} up to 25\d are taken"):
        psnr(clean, clean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(psnr(clean, np.roll(clean, 1), data_range=255)) < 15


def test_floats_that_are_on_another_scale_are_told() -> None:
    clean = 255 * np.random.default_rng(0).random((9, 9, 3))
    with pytest.warns(UserWarning, match="are taken to be on the 0..1 scale"):
        score(clean, clean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(clean / 255, (clean / 255) ** 2)
        score(clean.astype(np.uint8), clean.astype(np.uint8))


@pytest.mark.parametrize("dtype", [">f4", ">u2"])
def test_another_byte_order_gives_the_same(dtype: str) -> None:
    random = np.random.default_rng(0)
    clean = (random.random((9, 9)) * (1000 if dtype == ">u2" else 1)).astype(dtype)
    native = clean.astype(clean.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert psnr(clean, clean[::-1]) == psnr(native, native[::-1])

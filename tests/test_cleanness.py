"""Pictures with hardly any noise stay as they are; strong noise is no reason to."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from masked_denoise.camera_noise import CameraNoise
from masked_denoise.cli import app
from masked_denoise.images import ImageFile, read_image, write_image
from masked_denoise.pretrained.cleanness import was_clean
from masked_denoise.pretrained.shipped import as_grey, load_shipped
from masked_denoise.samples import sample_path

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def _noisy(name: str, level: float, *, grey: bool = False) -> tuple[Pixels, Pixels]:
    """Return a sample with camera noise of a level of 255, and without."""
    clean = torch.from_numpy(read_image(sample_path(name, clean=True)).pixels.copy()).permute(
        2, 0, 1
    )
    clean = clean[:1] if grey else clean
    noise = CameraNoise(sigma=(level / 255, level / 255), uncompressed=1.0)
    made = noise.add(clean.float() / 255, np.random.default_rng(0)).mul(255).round()
    pair = (one.to(torch.uint8).permute(1, 2, 0).numpy() for one in (made, clean))
    first, second = (one[..., 0] if grey else one for one in pair)
    return np.ascontiguousarray(first), np.ascontiguousarray(second)


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def _save(folder: Path, **levels: float) -> Path:
    folder.mkdir()
    for name, level in levels.items():
        write_image(folder / f"{name}.png", ImageFile(_noisy("parrot", level)[0]))
    return folder


def test_the_preview_shows_a_picture_that_is_denoised(tmp_path: Path) -> None:
    source = _save(tmp_path / "in", z_noisy=3)
    ramp = np.linspace(40, 200, 160)[:, None, None] + np.linspace(0, 40, 144)[None, :, None]
    for name in ("a.png", "b.png"):
        write_image(source / name, ImageFile((ramp + np.zeros(3)).round().astype(np.uint8)))
    shown = _run("denoise", source, "-o", tmp_path / "out", "--preview")
    assert "z_noisy.png" in shown
    assert "hardly any noise" not in shown
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["z_noisy_preview.png"]


def test_the_command_leaves_clean_pictures_as_they_are(tmp_path: Path) -> None:
    source = _save(tmp_path / "in", noisy=3)
    ramp = np.linspace(40, 200, 160)[:, None, None] + np.linspace(0, 40, 144)[None, :, None]
    clean = (ramp + np.zeros(3)).round().astype(np.uint8)
    write_image(source / "clean.png", ImageFile(clean))
    text = _run("denoise", source, "-o", tmp_path / "out")
    assert "1 of them had hardly any noise and stayed as they were" in text
    assert "clean.png" in text
    assert np.array_equal(read_image(tmp_path / "out" / "clean.png").pixels, clean)
    noisy = read_image(source / "noisy.png").pixels
    wanted = load_shipped().denoise(noisy)
    assert np.array_equal(read_image(tmp_path / "out" / "noisy.png").pixels, wanted)
    shown = _run("denoise", source / "clean.png", "-o", tmp_path / "one.png", "--preview")
    assert "It has hardly any noise: pictures like it are left as they are" in shown
    sides = np.array_split(read_image(tmp_path / "one_preview.png").pixels, 2, axis=1)
    bottom = [np.unique(one[len(one) // 2 :]) for one in sides]
    assert np.array_equal(*bottom)
    named = _run("denoise", source, "-o", tmp_path / "named", "--model", "camera-small")
    assert "hardly any noise" not in named
    made = read_image(tmp_path / "named" / "clean.png").pixels
    assert not np.array_equal(made, clean)


def test_what_is_clean() -> None:
    noisy, clean = _noisy("lighthouse", 2)
    assert not was_clean(noisy, load_shipped().denoise(noisy))
    assert was_clean(clean, clean)
    assert not was_clean(clean[:8], clean[:8])  # too small to tell


def test_a_gentle_strength_makes_no_picture_clean(tmp_path: Path) -> None:
    source = _save(tmp_path / "in", noisy=3)
    text = _run("denoise", source, "-o", tmp_path / "out", "--strength", 0.1)
    assert "hardly any noise" not in text
    noisy = read_image(source / "noisy.png").pixels
    assert not np.array_equal(read_image(tmp_path / "out" / "noisy.png").pixels, noisy)
    assert not was_clean(noisy, noisy, strength=0)  # nothing taken off tells nothing


@pytest.mark.parametrize("level", [3, 20])
def test_a_grey_frame_hides_no_noise(level: int) -> None:
    noisy, _ = _noisy("parrot", level)
    height, width = noisy.shape[:2]
    framed = np.full((2 * height, 2 * width, 3), 128, np.uint8)
    framed[height // 2 :][:height, width // 2 :][:, :width] = noisy
    assert not was_clean(framed, load_shipped().denoise(framed))


@pytest.mark.parametrize("background", [255, 200])
def test_a_drawing_is_clean(background: int) -> None:
    drawing = np.full((256, 256, 3), background, np.uint8)
    drawing[8:-8:16, ::3] = 0  # rows of strokes, such as letters have
    drawing[16:-8:16, 2:-20:7] = (30, 60, 160)
    assert was_clean(drawing, load_shipped().denoise(drawing))


@pytest.mark.parametrize(("ground", "ink"), [("white", "black"), ((30, 31, 40), (90, 200, 240))])
def test_a_page_full_of_text_is_clean(ground: Any, ink: Any) -> None:
    page = Image.new("RGB", (400, 300), ground)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for row in range(17):
        draw.text((4, 18 * row), "for image in noisy: denoise(image, strength=1.0)", ink, font)
    pixels = np.asarray(page)
    assert was_clean(pixels, load_shipped().denoise(pixels))
    grain = np.random.default_rng(0).normal(0, 4, pixels.shape)
    scanned = (pixels * 0.8 + 20 + grain).clip(0, 255).astype(np.uint8)
    assert not was_clean(scanned, load_shipped().denoise(scanned))


def test_a_page_with_a_noisy_photograph_is_no_drawing() -> None:
    page = Image.new("RGB", (500, 400), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for row in range(22):
        draw.text((4, 18 * row), "for image in noisy: denoise(image, strength=1.0)", "black", font)
    pixels = np.array(page)
    grain = np.random.default_rng(0).normal(120, 15, (100, 120, 3))
    pixels[250:350, 320:440] = grain.clip(0, 255).astype(np.uint8)
    assert not was_clean(pixels, load_shipped().denoise(pixels))


def test_a_night_with_one_lit_quarter_is_no_drawing() -> None:
    night = np.full((256, 256), -20.0)
    night[:128, :128] = np.linspace(60, 180, 128)
    night += np.random.default_rng(0).normal(0, 15, night.shape)
    pixels = night.clip(0, 255).astype(np.uint8)
    assert not was_clean(pixels, as_grey(load_shipped()).denoise(pixels))


@pytest.mark.parametrize("shape", [(40, 50), (8, 9, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_picture_of_one_colour_is_clean(shape: tuple[int, ...], dtype: str) -> None:
    pixels = np.full(shape, 200, dtype)
    assert was_clean(pixels, pixels + 1)


def test_a_photograph_that_was_compressed_much_is_no_drawing() -> None:
    noisy, _ = _noisy("lighthouse", 5)
    data = io.BytesIO()
    Image.fromarray(noisy).save(data, "JPEG", quality=40)
    pixels = np.asarray(Image.open(data))
    assert not was_clean(pixels, load_shipped().denoise(pixels))


def test_a_model_of_the_package_by_name_takes_grey_and_colour(tmp_path: Path) -> None:
    source = _save(tmp_path / "in", colour=3)
    grey = _noisy("parrot", 3)[0][..., 1]
    write_image(source / "grey.png", ImageFile(grey))
    text = _run("denoise", source, "-o", tmp_path / "out", "--model", "camera-small")
    assert "2 pictures" in text
    wanted = as_grey(load_shipped()).denoise(grey)
    assert np.array_equal(read_image(tmp_path / "out" / "grey.png").pixels, wanted)
    write_image(source / "two.npy", ImageFile(np.stack([grey, grey], axis=2)))
    result = CliRunner().invoke(
        app, ["denoise", str(source), "-o", str(tmp_path / "more"), "--model", "camera-small"]
    )
    assert result.exit_code == 1
    assert "2 channels, the model takes 1 or 3" in " ".join(result.output.split())
    assert len(list((tmp_path / "more").iterdir())) == 2


def test_a_picture_smaller_than_a_square_is_not_taken_for_clean() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not was_clean(pixels, pixels)

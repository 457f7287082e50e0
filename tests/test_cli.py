"""The command: what users type, read and get, and the exit code that scripts go by."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

import masked_denoise
from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.cli import app
from masked_denoise.images import ImageFile, read_image, write_image
from masked_denoise.jobs import demo

Array = NDArray[Any]
SOURCE = Path(masked_denoise.__file__).parents[1]
COMMANDS = [
    "denoise", "train", "compare", "evaluate", "inspect", "backbones", "models", "convert", "demo",
    "rank",
]  # fmt: skip
FIT = ["--fit-steps", "1", "--passes", "1", "--device", "cpu"]


def picture(height: int, width: int, *colours: int, dtype: str = "uint8", seed: int = 1) -> Array:
    """Return a smooth picture with noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    clean = (0.3 + 0.4 * rows * columns).reshape(height, width, *(1 for _ in colours))
    noisy = clean + random.normal(0, 0.05, (height, width, *colours))
    top = np.iinfo(dtype).max if dtype.startswith("uint") else 1
    return (noisy.clip(0, 1) * top).astype(dtype)


def alike(pixels: Array) -> Array:
    """Return means of 2 x 2 pixels: a smaller picture in which neighbours have alike noise."""
    wide = pixels.astype(float)
    return ((wide[1:, 1:] + wide[:-1, 1:] + wide[1:, :-1] + wide[:-1, :-1]) / 4).astype(
        pixels.dtype
    )


def save(path: Path, pixels: Array | None = None, alpha: Array | None = None) -> Path:
    write_image(path, ImageFile(picture(48, 56, 3) if pixels is None else pixels, alpha))
    return path


def cut_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


def run(*arguments: object, code: int = 0) -> Result:
    """Run a command in this process and return what it printed, its exit code checked."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def words(result: Result) -> str:
    return " ".join(result.output.split())


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in tree(folder)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for colour pictures, saved."""
    folder = tmp_path_factory.mktemp("model") / "colour"
    AsymmetricMaskDenoiser("fast-unet", passes=1).save_pretrained(folder)
    return folder


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any training fail: what is wrong must be found before."""

    def fit(*arguments: object, **named: object) -> None:
        raise AssertionError("training began, though the error could be known before")

    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", fit)


# Help, version, loading


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command: str) -> None:
    text = words(run(command, "--help"))
    assert f"masked-denoise {command}" in text.split("Examples")[1]
    assert "130: stopped with Ctrl-C" in text
    assert ("--quiet" in text) == (command not in ("backbones", "models"))


def test_help_lists_all_commands() -> None:
    text = run("--help").output
    assert all(f" {command} " in text for command in COMMANDS)
    assert "Exit codes" in text


def test_no_command_shows_the_help() -> None:
    assert "Usage" in CliRunner().invoke(app, []).output


def test_version() -> None:
    assert masked_denoise.__version__ in run("--version").output


def test_help_loads_neither_torch_nor_numpy() -> None:
    script = f"""
import sys
from masked_denoise.cli import app
for command in {COMMANDS!r}:
    try:
        app([command, "--help"])
    except SystemExit as end:
        assert end.code == 0, end.code
heavy = {{"torch", "numpy", "PIL", "tifffile", "matplotlib", "timm", "accelerate"}}
print("LOADED", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr


def shell(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "masked_denoise", *map(str, arguments)]
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, **more
    )


def test_the_real_program_denoises_and_its_exit_code_tells(tmp_path: Path, model: Path) -> None:
    save(tmp_path / "in" / "a.png")
    cut_off(save(tmp_path / "in" / "b.png"))
    done = shell("denoise", "in", "-o", "out", "--model", model, cwd=tmp_path)
    assert done.returncode == 1
    assert "in/b.png" in done.stderr.replace("\\", "/")
    assert "Traceback" not in done.stderr
    assert "Denoised 1 picture" in done.stdout
    assert tree(tmp_path / "out") == ["a.png"]


# denoise


def test_denoise_fits_on_the_input_itself_a_model_for_each_kind(tmp_path: Path) -> None:
    stored = {
        "colour.jpg": picture(48, 56, 3),
        "deep/grey.tif": picture(48, 50, dtype="uint16"),
        "deep/two.npy": picture(33, 47, 2, dtype="float32"),
    }
    for name, pixels in stored.items():
        save(tmp_path / "in" / name, pixels)
    cover = picture(48, 56, seed=9)
    save(tmp_path / "in" / "alpha.png", picture(48, 56, 3), cover)
    before = snapshot(tmp_path / "in")
    result = run(
        "denoise", tmp_path / "in", "-o", tmp_path / "out", "--save-model", tmp_path / "kept",
        "--report", tmp_path / "report.html", *FIT,
    )  # fmt: skip
    text = words(result)
    assert "grey and 2-channel float and colour pictures: each kind gets a model of its own" in text
    assert "Fitting fast-unet on the 2 colour pictures" in text
    assert "Denoised 4 pictures" in text
    assert tree(tmp_path / "out") == ["alpha.png", "colour.png", "deep/grey.tif", "deep/two.npy"]
    for name, pixels in stored.items():
        target = tmp_path / "out" / name.replace(".jpg", ".png")
        denoised = read_image(target).pixels
        assert (denoised.shape, denoised.dtype) == (pixels.shape, pixels.dtype)
        assert not np.array_equal(denoised, read_image(tmp_path / "in" / name).pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "alpha.png").alpha, cover)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert all(name in page for name in ("colour.jpg", "deep/grey.tif", "alpha.png"))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "2-channel-float", "colour", "grey",
    ]  # fmt: skip
    assert snapshot(tmp_path / "in") == before
    again = run(
        "denoise", tmp_path / "in" / "colour.jpg", "-o", tmp_path / "again.png", "--passes", 1,
        "--model", tmp_path / "kept" / "colour",
    )  # fmt: skip
    assert "fitting" not in again.output
    same = (tmp_path / "again.png").read_bytes() == (tmp_path / "out" / "colour.png").read_bytes()
    assert same


def test_denoise_options_reach_the_work(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png")
    pixels = read_image(source).pixels

    def result(name: str, *more: object) -> Array:
        run("denoise", source, "-o", tmp_path / name, "--model", model, "--quiet", *more)
        return read_image(tmp_path / name).pixels

    np.testing.assert_array_equal(result("none.png", "--strength", 0), pixels)
    denoiser = AsymmetricMaskDenoiser.from_pretrained(model)
    expected = denoiser.denoise(pixels, passes=2, seed=7, strength=0.5)
    options = ("--passes", 2, "--seed", 7, "--strength", 0.5)
    np.testing.assert_array_equal(result("some.png", *options), expected)
    sizes = [
        (result(f"{quality}.jpg", "--quality", quality).size, (tmp_path / f"{quality}.jpg"))
        for quality in (20, 95)
    ]
    assert sizes[0][1].stat().st_size < sizes[1][1].stat().st_size
    run("denoise", source, "-o", tmp_path / "out", "--model", model, "--suffix", "_x", "--format",
        "tiff")  # fmt: skip
    assert tree(tmp_path / "out") == ["a_x.tif"]


def test_quality_without_a_jpeg_is_told(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png")
    for name, told in (("b.png", True), ("b.jpg", False)):
        result = run("denoise", source, "-o", tmp_path / name, "--model", model, "--quality", 50)
        assert ("--quality is that of JPEG" in words(result)) is told


def test_precision_reaches_the_network(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    source = save(tmp_path / "a.png", alike(random.integers(0, 256, (65, 65, 3), dtype=np.uint8)))
    pixels = read_image(source).pixels
    denoiser = AsymmetricMaskDenoiser.from_pretrained("camera-small")
    found = []
    for precision in ("float32", "bf16"):
        target = tmp_path / f"{precision}.png"
        run("denoise", source, "-o", target, "--device", "cpu", "--precision", precision)
        found.append(read_image(target).pixels)
        np.testing.assert_array_equal(found[-1], denoiser.denoise(pixels, precision=precision))
    assert not np.array_equal(*found)
    shown = run("denoise", source, "-o", tmp_path / "b.png", "--precision", "half", code=2)
    assert "precision is 'half'" in words(shown)


def test_quiet_prints_nothing(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png")
    assert run("denoise", source, "-o", tmp_path / "b.png", "-m", model, "-q").output == ""
    assert run("denoise", source, "-o", tmp_path / "c.png", "-q", *FIT).output == ""


def test_existing_results_are_kept_unless_told(tmp_path: Path, model: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    out = tmp_path / "out"
    old = save(out / "a.png", picture(8, 8)).read_bytes()
    base = ("denoise", tmp_path / "in", "-o", out, "--model", model)
    assert "--overwrite" in run(*base, code=2).output
    assert tree(out) == ["a.png"]
    assert "1 results exist already" in run(*base, "--skip-existing").output
    assert (out / "a.png").read_bytes() == old
    assert tree(out) == ["a.png", "b.png"]
    run(*base, "--overwrite")
    assert (out / "a.png").read_bytes() != old
    run(*base, "--skip-existing")
    assert "exclude one another" in run(*base, "--skip-existing", "--overwrite", code=2).output


def test_clean_pictures_give_numbers(tmp_path: Path, model: Path) -> None:
    clean = picture(48, 56, 3, seed=2)
    save(tmp_path / "in" / "a_noisy.png")
    save(tmp_path / "in" / "b_noisy.png")
    save(tmp_path / "clean" / "a_gt.png", clean)
    result = run(
        "denoise", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--clean",
        tmp_path / "clean", "--report", tmp_path / "r.html",
    )  # fmt: skip
    assert "PSNR" in result.output
    assert "uniform 7x7" in words(result)
    assert "b_noisy.png" in result.output
    assert "PSNR (dB)" in (tmp_path / "r.html").read_text("utf-8")


def test_without_a_model_the_one_of_the_package_is_taken(tmp_path: Path) -> None:
    save(tmp_path / "in" / "colour.png", alike(picture(41, 45, 3)))
    save(tmp_path / "in" / "grey.png", alike(picture(41, 45)))
    base = ("denoise", tmp_path / "in", "-o", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsymmetricMaskDenoiser, "fit", None)  # nothing is fitted
        text = words(run(*base))
    assert "taking camera-small" in text
    assert tree(tmp_path / "out") == ["colour.png", "grey.png"]
    assert Image.open(tmp_path / "out" / "grey.png").mode == "L"


def test_a_kind_of_picture_is_not_denoised_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture of floats takes camera-small from itself only, not from photographs beside it."""
    from masked_denoise.commands import job

    monkeypatch.setattr(job, "FIT_MINUTES", 0.01)
    photo = save(tmp_path / "in" / "photo.png", alike(picture(41, 45, 3)))
    depth = save(tmp_path / "in" / "depth.npy", 40 * alike(picture(41, 45, 3, dtype="float32")))
    dim = save(tmp_path / "in" / "dim.tif", alike(picture(41, 45, 3, dtype="uint16") // 16))
    text = words(run("denoise", tmp_path / "in", "-o", tmp_path / "out"))
    assert "dim.tif gets a model of its own: camera-small is for" in text
    assert "depth.npy gets a model of its own: camera-small is for" in text
    assert "colour count and dim colour pictures: each kind gets" in text
    assert tree(tmp_path / "out") == ["depth.npy", "dim.tif", "photo.png"]
    usual = AsymmetricMaskDenoiser.from_pretrained("camera-small")
    expected = usual.denoise(read_image(photo).pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "photo.png").pixels, expected)
    found = read_image(tmp_path / "out" / dim.name).pixels
    assert not np.array_equal(found, usual.denoise(read_image(dim).pixels))
    found = read_image(tmp_path / "out" / depth.name).pixels
    assert 0 < np.abs(found - read_image(depth).pixels).max() < 20  # on their own scale
    text = words(run("denoise", tmp_path / "in", "-o", tmp_path / "adapted", "--adapt", 1, code=2))
    assert "depth.npy and pictures like it (colour count) are none that camera-small" in text


def test_independent_noise_gets_a_network_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from masked_denoise.commands import job

    monkeypatch.setattr(job, "FIT_MINUTES", 0.01)
    save(tmp_path / "in" / "colour.png", alike(picture(41, 45, 3)))
    save(tmp_path / "in" / "cells.png", picture(64, 64))
    text = words(run("denoise", tmp_path / "in", "-o", tmp_path / "out"))
    assert "taking camera-small" in text
    assert "cells.png gets a model of its own: the noise is independent" in text
    assert "Fitting fast-unet on the 1 grey picture for" in text
    assert tree(tmp_path / "out") == ["cells.png", "colour.png"]
    text = words(run("denoise", tmp_path / "in", "-o", tmp_path / "again", "--preview"))
    assert "of training" in text


def test_what_cannot_be_fitted_does_not_hold_up_the_others(tmp_path: Path) -> None:
    photo = save(tmp_path / "in" / "photo.png", alike(picture(41, 45, 3)))
    save(tmp_path / "in" / "depth.npy", picture(2, 45, 3, dtype="float32"))  # 3 are needed
    base = ("denoise", tmp_path / "in", "-o")
    text = words(run(*base, tmp_path / "out", code=1))
    assert "depth.npy: none of the 1 colour float pictures can be trained on" in text
    assert "1 file could not be denoised" in text
    assert tree(tmp_path / "out") == ["photo.png"]
    photo.unlink()
    assert "can be trained on" in words(run(*base, tmp_path / "none", code=2))


@pytest.mark.parametrize(("soft", "stride", "looks"), [(True, 3, "smooth"), (False, 2, "sharp")])
def test_inspect_advises_what_fit_takes(
    tmp_path: Path, soft: bool, stride: int, looks: str
) -> None:
    tiles = np.random.default_rng(1).uniform(0.2, 0.8, (24, 24)).repeat(8, 0).repeat(8, 1)
    for _ in range(3 if soft else 0):
        around = np.pad(tiles, 2, mode="edge")
        tiles = np.lib.stride_tricks.sliding_window_view(around, (5, 5)).mean((2, 3))
    tiles[:, 128:] = 0.5
    white = np.random.default_rng(2).standard_normal((199, 199))
    sums = white.cumsum(0).cumsum(1)
    coarse = sums[7:, 7:] - sums[:-7, 7:] - sums[7:, :-7] + sums[:-7, :-7]  # of 7 x 7 pixels
    noisy = tiles + 0.01 * coarse / coarse.std()
    save(tmp_path / "a.png", (255 * noisy).round().clip(0, 255).astype(np.uint8))
    text = words(run("inspect", tmp_path / "a.png"))
    assert f"Advised: --train-stride {stride} --stride 1" in text
    assert f"and the images are {looks}" in text


def test_fitting_keeps_the_better_model(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", alike(picture(65, 65, 3)))
    pixels = read_image(source).pixels
    base = ("denoise", source, *FIT, "--save-model", tmp_path / "kept", "--overwrite")
    text = words(run(*base, "-o", tmp_path / "better.png"))
    assert "On simulated noise like that of the colour pictures the fitted model has" in text
    assert "the latter is taken (--backbone fast-unet takes the fitted one in any case;" in text
    usual = AsymmetricMaskDenoiser.from_pretrained("camera-small")
    expected = usual.denoise(pixels, passes=1)
    np.testing.assert_array_equal(read_image(tmp_path / "better.png").pixels, expected)
    assert "--save-model kept the fitted one" in text
    text = words(run(*base, "-o", tmp_path / "short.png", "--preview"))
    assert "simulated" not in text  # after so short a time that would tell nothing
    text = words(run(*base, "-o", tmp_path / "fitted.png", "--backbone", "fast-unet"))
    assert "simulated" not in text
    fitted = AsymmetricMaskDenoiser.from_pretrained(tmp_path / "kept")
    expected = fitted.denoise(pixels, passes=1)
    np.testing.assert_array_equal(read_image(tmp_path / "fitted.png").pixels, expected)


def test_adapting_trains_on_the_pictures_and_keeps_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "in" / "a.png")
    seen: list[float] = []

    def adapt(self: AsymmetricMaskDenoiser, paths: list[Path], **named: float) -> None:
        assert paths == [source]
        seen.append(named["minutes"])
        self.fit_record = {"stopped": "finished"}

    monkeypatch.setattr(AsymmetricMaskDenoiser, "adapt", adapt)
    kept = tmp_path / "kept"
    run("denoise", source, "-o", tmp_path / "b.png", "--adapt", 3, "--save-model", kept)
    assert seen == [3]
    run("denoise", source, "-o", tmp_path / "c.png", "--model", kept)
    text = words(run("denoise", source, "-o", tmp_path / "d.png", "--adapt", 3, "--fit", 1, code=2))
    assert "contradict" in text
    text = words(run("denoise", source, "-o", tmp_path / "d.png", "--save-model", "x", code=2))
    assert "--adapt" in text


def test_preview_writes_one_picture_and_tells_the_time(tmp_path: Path, model: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    base = ("denoise", tmp_path / "in", "-o", tmp_path / "out", "--preview")
    text = words(run(*base, "--model", model))
    assert "will take about" in text
    assert "2 pictures at" in text
    assert tree(tmp_path / "out") == ["b_preview.png"]
    assert Image.open(tmp_path / "out" / "b_preview.png").size[0] > 2 * 2 * 56
    text = words(run(*base, *FIT, "--save-model", tmp_path / "kept"))
    assert "2 min of training" in text
    assert "comes out better" in text
    assert not (tmp_path / "kept").exists()


# denoise: what is wrong is told before anything is fitted, and nothing is left half-written


@pytest.mark.usefixtures("no_fit")
def test_wrong_requests_are_refused_at_once(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "in" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    save(tmp_path / "clean" / "a.png", picture(40, 40, 3))
    save(tmp_path / "other" / "b.png")
    before = snapshot(tmp_path)
    out = tmp_path / "out"
    refused: list[tuple[list[object], str]] = [
        ([tmp_path / "empty", "-o", out], "no images in"),
        ([tmp_path / "nowhere", "-o", out], "there is no file or folder"),
        ([source, "-o", tmp_path / "in"], "would replace"),
        ([tmp_path / "in", "-o", tmp_path / "file" / "out"], "is not a folder"),
        ([source, "-o", out, "--report", tmp_path / "file" / "r.html"], "is not a folder"),
        ([source, "-o", out, "--report", tmp_path / "file"], "exists already"),
        ([source, "-o", out, "--report", tmp_path / "empty"], "is a folder"),
        ([source, "-o", out, "--report", tmp_path / "r.html", "--preview"], "give one of them"),
        ([source, "-o", out, "--save-model", tmp_path / "in"], "is not empty"),
        ([source, "-o", out, "--save-model", tmp_path / "file"], "is not a folder"),
        ([source, "-o", out, "--clean", tmp_path / "clean"], "must be alike"),
        (
            [source, "-o", out, "--clean", tmp_path / "other"],
            "none of the pictures has a clean partner",
        ),
        ([source, "-o", out, "--backbone", "fast-unett"], "did you mean 'fast-unet'"),
        ([source, "-o", out, "--preset", "amsnett"], "did you mean"),
        ([source, "-o", out, "--format", "gif"], "unknown format 'gif'"),
        ([source, "-o", out, "--device", "abacus"], "there is no device 'abacus'"),
        ([source, "-o", out, "--nan", "ignore"], "'error' or 'mask'"),
        ([source, "-o", out, "--strength", "2"], "--strength"),
        ([source, "-o", out, "--passes", "0"], "--passes"),
        ([source, "-o", out, "--model", tmp_path / "empty"], "config.json is missing"),
        ([source, "-o", out, "--model", model, "--fit", "3"], "leave out --fit"),
        ([source], "Missing option"),
    ]
    for arguments, message in refused:
        text = words(run("denoise", *arguments, code=2))
        assert message in text, (arguments, text)
        assert "Traceback" not in text
        assert snapshot(tmp_path) == before, arguments
        assert not out.exists()


@pytest.mark.usefixtures("no_fit")
def test_when_no_file_can_be_used_nothing_is_fitted(tmp_path: Path) -> None:
    hole = picture(20, 20, dtype="float32")
    hole[2, 4] = np.inf
    save(tmp_path / "in" / "hole.npy", hole)
    cut_off(save(tmp_path / "in" / "cut.jpg"))
    (tmp_path / "in" / "empty.png").touch()
    (tmp_path / "in" / "text.tif").write_text("not a picture")
    text = words(run("denoise", tmp_path / "in", "-o", tmp_path / "out", code=1))
    messages = ["hole.npy", "row 2, column 4", "--nan mask", "cut.jpg", "text.tif: not a PNG"]
    messages += ["empty.png: the file is empty", "4 files could not be denoised"]
    for message in messages:
        assert message in text
    assert not (tmp_path / "out").exists()


def test_bad_files_are_named_and_the_others_denoised(tmp_path: Path, model: Path) -> None:
    save(tmp_path / "in" / "good.png")
    save(tmp_path / "in" / "grey.png", picture(20, 20))
    cut_off(save(tmp_path / "in" / "cut.png"))
    base = ("denoise", tmp_path / "in", "-o", tmp_path / "out")
    text = words(run(*base, "--model", model, code=1))
    assert "grey.png: it has 1 channel, the model takes 3" in text
    assert "cut.png" in text
    assert tree(tmp_path / "out") == ["good.png"]
    text = words(run(*base, "--overwrite", *FIT, code=1))
    assert "cut.png" in text
    assert tree(tmp_path / "out") == ["good.png", "grey.png"]


def test_pictures_smaller_than_the_stride_are_named(tmp_path: Path) -> None:
    AsymmetricMaskDenoiser("fast-unet", stride=5, passes=1).save_pretrained(tmp_path / "model")
    save(tmp_path / "in" / "good.png")
    save(tmp_path / "in" / "small.png", picture(4, 30, 3))
    result = run(
        "denoise", tmp_path / "in", "-o", tmp_path / "out", "--model", tmp_path / "model", code=1
    )
    assert "small.png: it is 30 x 4 pixels; sides of at least 5" in words(result)
    assert tree(tmp_path / "out") == ["good.png"]


def test_nan_is_predicted_where_asked(tmp_path: Path) -> None:
    hole = picture(40, 40, dtype="float32")
    hole[5, 6] = np.nan
    save(tmp_path / "in" / "a.npy", hole)
    save(tmp_path / "in" / "b.npy", picture(40, 40, dtype="float32"))
    run("denoise", tmp_path / "in", "-o", tmp_path / "out", "--nan", "mask", *FIT)
    assert np.isfinite(np.load(tmp_path / "out" / "a.npy")).all()


def test_ctrl_c_stops_with_its_own_code(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "a.png")

    def stop(self: AsymmetricMaskDenoiser, *arguments: object, **named: object) -> None:
        self.fit_record = {"stopped": "interrupted", "steps": 3}

    with monkeypatch.context() as patch:
        patch.setattr(AsymmetricMaskDenoiser, "fit", stop)
        text = run("denoise", source, "-o", tmp_path / "b.png", "--save-model", tmp_path / "kept",
                   "--fit", 1, code=130).output  # fmt: skip
    assert "stopped" in text
    assert (tmp_path / "kept" / "config.json").exists()

    def press(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AsymmetricMaskDenoiser, "denoise", press)
    run("denoise", source, "-o", tmp_path / "b.png", "--model", model, code=130)
    assert not (tmp_path / "b.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals are sent another way there")
def test_a_real_ctrl_c_while_fitting(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(64, 64))
    command = [sys.executable, "-m", "masked_denoise", "denoise", "a.png", "-o", "b.png"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}
    errors = tmp_path / "errors"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--fit", "20"], cwd=tmp_path, env=environment, stderr=stream
        )
    try:
        deadline = time.monotonic() + 120
        while "step" not in errors.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, errors.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130, errors.read_text()
    finally:
        process.kill()
    assert "Traceback" not in errors.read_text()
    assert not (tmp_path / "b.png").exists()


# train and evaluate


def test_train_then_resume_then_evaluate(tmp_path: Path) -> None:
    for name in ("a_real.png", "b_real.png", "lonely_real.png"):
        save(tmp_path / "noisy" / name)
    cut_off(save(tmp_path / "noisy" / "cut.png"))
    for name in ("a_mean.png", "b_mean.png", "nobody_mean.png"):
        save(tmp_path / "clean" / name, picture(48, 56, 3, seed=4))
    base = (
        "train", tmp_path / "noisy", "-o", tmp_path / "model", "--train-stride", 2,
        "--train-stride", 3, "--stride", 2, "--batch-size", 2, "--crop", 32, "--device", "cpu",
    )  # fmt: skip
    check = ("--validation-noisy", tmp_path / "noisy", "--validation-clean", tmp_path / "clean")
    save(tmp_path / "noisy" / "cut.png")
    text = words(run(*base, "--steps", 4, *check))
    assert "4 steps" in text
    assert "best score" in text
    assert "--model" in text
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["train_stride"], config["stride"]) == ([2, 3], 2)
    assert "--resume" in run(*base, "--steps", 4, code=2).output
    assert "4 steps" in words(run(*base, "--steps", 4, *check, "--resume"))
    cut_off(tmp_path / "noisy" / "cut.png")
    text = words(run(*base, "--steps", 1, "--overwrite", code=1))
    assert "cut.png" in text
    assert "1 steps" in text

    scores = tmp_path / "scores.json"
    text = words(run("evaluate", tmp_path / "noisy", tmp_path / "clean", "--json", scores))
    assert "input" not in text
    assert "lonely_real.png" in text
    assert "nobody_mean.png" in text
    assert "8 bits; SSIM with the uniform 7x7" in text
    told = json.loads(scores.read_text())
    assert [row["image"] for row in told["images"]] == ["a_real.png", "b_real.png"]
    assert len(told["unpaired"]["images"]) == 2
    assert f"{told['mean']['psnr']:.2f}" in text

    assert "exists already" in words(
        run("evaluate", tmp_path / "noisy", tmp_path / "clean", "--json", scores, code=2)
    )
    more = ("--overwrite", "--model", tmp_path / "model", "--passes", 1)
    noisy, clean = tmp_path / "noisy", tmp_path / "clean"
    text = words(run("evaluate", noisy, clean, "--json", scores, *more))
    assert "of 2 worse than the input" in text
    told = json.loads(scores.read_text())
    assert {"psnr", "input_psnr", "seconds"} <= set(told["images"][0])


@pytest.mark.usefixtures("no_fit")
def test_train_refuses_what_cannot_work_at_once(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "mixed" / "a.png")
    save(tmp_path / "mixed" / "b.png", picture(48, 48))
    save(tmp_path / "small" / "a.png", picture(2, 50, 3))
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").touch()
    noisy, model = tmp_path / "in", tmp_path / "model"
    refused: list[tuple[list[object], str]] = [
        ([noisy, "-o", model, "--steps", 1, "--minutes", 1], "give one of"),
        ([noisy, "-o", tmp_path / "file"], "is not a folder"),
        ([noisy, "-o", tmp_path / "mixed"], "is not empty"),
        ([tmp_path / "mixed", "-o", model], "one kind of picture"),
        ([tmp_path / "small", "-o", model, "--train-stride", 5], "too small"),
        ([tmp_path / "broken", "-o", model], "the file is empty"),
        ([noisy, "-o", model, "--backbone", "nett"], "unknown backbone"),
        ([noisy, "-o", model, "--validation-noisy", noisy], "need each other"),
        (
            [noisy, "-o", model, "--validation-noisy", tmp_path / "mixed" / "b.png",
             "--validation-clean", tmp_path / "mixed" / "b.png"],
            "with 3 channels as in training",
        ),
    ]  # fmt: skip
    for arguments, message in refused:
        assert message in words(run("train", *arguments, code=2)), arguments
        assert not model.exists()


def test_files_of_other_formats_are_named(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    for name in ("b.HEIC", "c.CR2", "notes.txt", ".d.bmp"):
        (tmp_path / "in" / name).write_text("something")
    text = words(run("denoise", tmp_path / "in", "-o", tmp_path / "out"))
    assert "skipped, as their format is not supported:" in text
    assert "b.HEIC" in text
    assert "c.CR2" in text
    assert "notes.txt" not in text
    assert ".d.bmp" not in text
    assert "Denoised 1 picture" in text


def test_a_folder_is_not_scored_against_itself(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert "hold the same files" in words(run("evaluate", tmp_path, tmp_path, code=2))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["denoise", "", "-o", "out"], 2, "an argument is empty"),
        (["denoise", "a.png", "-o", ""], 2, "an argument is empty"),
        (["denoise", "a.png", "-o", "out", "--suffix", ""], 0, "Denoised 1 picture"),
    ],
)
def test_an_empty_argument_is_not_the_present_folder(
    tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    save(tmp_path / "a.png", picture(20, 20, 3))
    done = subprocess.run(
        [sys.executable, "-m", "masked_denoise", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, told in done.stdout + done.stderr) == (code, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "camera-smal"], "did you mean 'camera-small'"),
        (["--backbone", "fast-unett"], "did you mean 'fast-unet'"),
        (["--preset", "amsnett"], "did you mean 'amsnet'"),
    ],
)
def test_a_wrong_name_is_told_before_anything_else(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "out" / "a.png")  # exists already
    assert told in words(
        run("denoise", tmp_path / "a.png", "-o", tmp_path / "out", *arguments, code=2)
    )


def test_the_model_of_the_package_takes_grey_pictures_everywhere(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "noisy" / f"{name}.png", alike(picture(60, 64)))
        save(tmp_path / "clean" / f"{name}.png", alike(picture(60, 64, seed=2)))
    noisy, clean, model = tmp_path / "noisy", tmp_path / "clean", ("--model", "camera-small")
    run("evaluate", noisy, clean, *model, "--json", tmp_path / "scores.json")
    told = json.loads((tmp_path / "scores.json").read_text())
    assert not told["failed"]
    run("denoise", noisy, "-o", tmp_path / "out", *model)
    run("evaluate", tmp_path / "out", clean, "--json", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert told["mean"]["psnr"] == pytest.approx(again["mean"]["psnr"], abs=1e-6)
    taught = tmp_path / "taught"
    run("distill", noisy, *model, "-o", taught, "--steps", 1, "--crop", 16, "--device", "cpu")
    assert AsymmetricMaskDenoiser.from_pretrained(taught).channels == 1
    assert "camera-small" in words(run("rank", noisy, "camera-small", taught))


def test_every_kind_of_floats_is_scored_on_its_own_scale(tmp_path: Path) -> None:
    colour, grey = picture(40, 40, 3, dtype="float32"), 4000 * picture(40, 40, dtype="float32")
    for name, pixels in (("a", colour), ("b", grey)):
        save(tmp_path / "noisy" / f"{name}.tif", pixels)
        save(tmp_path / "clean" / f"{name}.tif", pixels)
    noisy, clean = tmp_path / "noisy", tmp_path / "clean"
    text = words(run("denoise", noisy, "-o", tmp_path / "out", "--clean", clean, *FIT))
    low, high = (float(part) for part in re.search(r"PSNR (\S+) -> (\S+) dB", text).groups())  # type: ignore[union-attr]
    assert low == math.inf
    assert high < 60


def test_evaluate_names_what_fails_and_refuses_without_pairs(tmp_path: Path) -> None:
    save(tmp_path / "noisy" / "a.png")
    cut_off(save(tmp_path / "noisy" / "b.png"))
    save(tmp_path / "clean" / "a.png")
    save(tmp_path / "clean" / "b.png")
    save(tmp_path / "else" / "c.png")
    text = words(run("evaluate", tmp_path / "noisy", tmp_path / "clean", code=1))
    assert "failed:" in text
    assert "inf" in text
    assert "rename" in words(run("evaluate", tmp_path / "noisy", tmp_path / "else", code=2))


def test_evaluate_takes_the_range_of_deep_integers(tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(500, 4000, (32, 32)).astype(np.uint16)
    save(tmp_path / "clean" / "a.tif", clean)
    save(tmp_path / "noisy" / "a.tif", clean + np.uint16(41))
    for place, arguments in enumerate((("--value-range", 0, 4095), ())):
        file = tmp_path / f"{place}.json"
        run("evaluate", tmp_path / "noisy", tmp_path / "clean", "--json", file, *arguments)
        found = json.loads(file.read_text())["mean"]["psnr"]
        assert abs(found - 40) < 0.6 if arguments else found > 50  # of 65535


def test_reports_are_pages(tmp_path: Path, model: Path) -> None:
    source = save(tmp_path / "a.png")
    arguments = ("denoise", source, "-o", tmp_path / "b.png", "--model", model)
    assert ".html" in words(run(*arguments, "--report", tmp_path / "r.txt", code=2))
    assert not (tmp_path / "b.png").exists()


def test_warnings_show_no_code(tmp_path: Path) -> None:
    source = save(tmp_path / "a.tif", np.full((24, 24, 3), 900, np.uint16))
    done = subprocess.run(
        [sys.executable, "-m", "masked_denoise", "denoise", source, "-o", tmp_path / "b.tif",
         "--model", "camera-small"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "warning: the values of uint16 reach 900" in done.stderr
    assert "UserWarning" not in done.stderr


# inspect, backbones, demo


def test_inspect_tells_text_json_and_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save(tmp_path / "in" / "a.png", picture(96, 96))
    save(tmp_path / "in" / "b.png", picture(96, 96, 3))
    save(tmp_path / "in" / "small.png", picture(20, 20))
    base = ("inspect", tmp_path / "in", "--json", tmp_path / "n.json", "--plot", tmp_path / "n.png")
    text = words(run(*base, code=1))
    assert "grey pictures" in text
    assert "colour pictures" in text
    assert "Advised: --preset independent" in text
    assert "small.png: it is 20 x 20 pixels" in text
    told = json.loads((tmp_path / "n.json").read_text())
    assert told["noise"]["grey"]["channels"][0]["sigma"] == pytest.approx(0.05, rel=0.2)
    assert told["noise"]["colour"]["train_stride"] == 1
    assert Image.open(tmp_path / "n_grey.png").size == Image.open(tmp_path / "n_colour.png").size
    assert "exists already" in words(run(*base, code=2))
    (tmp_path / "n.json").unlink()
    (tmp_path / "n_grey.png").write_text("mine")
    assert "n_grey.png exists already" in words(run(*base, code=2))
    assert (tmp_path / "n_grey.png").read_text() == "mine"
    assert "must end in" in words(run("inspect", tmp_path / "in", "--plot", "n.gif", code=2))


def test_backbones_are_listed() -> None:
    text = run("backbones").output
    assert "fast-unet" in text
    assert "0.4" in text
    assert "Apache-2.0" in text


def test_demo_leaves_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = save(tmp_path / "s" / "tiny_noisy.png")
    clean = save(tmp_path / "s" / "tiny_clean.png", picture(48, 56, 3, seed=2))
    monkeypatch.setattr(demo, "list_samples", lambda: ["tiny"])
    monkeypatch.setattr(demo, "sample_path", lambda name, clean_=0, **k: clean if k else noisy)
    base = ("demo", "-o", tmp_path / "out", "--fit-steps", 1, "--device", "cpu")
    text = words(run(*base))
    assert "PSNR" in text
    assert "before_after.png" in text
    run(*base)
    assert tree(tmp_path / "out") == ["before_after.png", "report.html", "tiny_denoised.png"]
    (tmp_path / "file").touch()
    assert "is not a folder" in words(run("demo", "-o", tmp_path / "file", code=2))

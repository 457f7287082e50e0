"""The scripts in examples/ run as they are, on a budget of a moment, and leave a picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
MOMENT = "0.001"  # minutes


def run(name: str, *words: str | Path) -> str:
    """Return what an example printed; fail with its messages where it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::FutureWarning"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shape(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        assert np.asarray(picture).std() > 1
        return picture.size


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two small noisy colour pictures."""
    folder, random = tmp_path / "photos", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for name, size in (("one.png", (48, 64)), ("more/two.png", (40, 56))):
        noisy = random.normal(120, 20, (*size, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / name)
    return folder


def test_one_image(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run("01_denoise_one_image.py", photos / "one.png", out, MOMENT)
    assert shape(out / "clean.png") == (64, 48)
    assert shape(out / "before_after.png")[0] > 2 * 64
    assert str(out / "before_after.png") in said


def test_folder(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run("02_train_on_a_folder.py", photos, out, MOMENT)
    assert "2 photographs" in said
    assert shape(out / "clean" / "one.png") == (64, 48)
    assert shape(out / "clean" / "more" / "two.png") == (56, 40)
    assert (out / "model" / "model.safetensors").is_file()
    assert shape(out / "before_after.png")[0] > 2 * 64


def test_own_network(tmp_path: Path) -> None:
    said = run("03_your_own_network.py", tmp_path, MOMENT)
    assert "random masks: " in said
    assert "stripes: " in said
    assert shape(tmp_path / "before_after.png")[0] > 3 * 384


def test_student(photos: Path, tmp_path: Path) -> None:
    said = run("04_fast_student.py", photos / "one.png", tmp_path, MOMENT)
    assert "student: " in said
    assert (tmp_path / "student" / "model.safetensors").is_file()
    assert shape(tmp_path / "before_after.png")[0] > 3 * 64


def test_every_example_is_tested() -> None:
    """Scripts with a number; make_sample.py has tests of its own in test_samples.py."""
    here = Path(__file__).read_text()
    numbered = sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))
    assert len(numbered) >= 3
    assert [name for name in numbered if f'"{name}"' not in here] == []


def test_micrographs(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cells = np.outer(np.linspace(0, 1, 96), np.linspace(0.2, 1, 120))
    (tmp_path / "in").mkdir()
    counts = (200 * random.poisson(10 + 20 * cells) + 1000).astype(np.uint16)
    Image.fromarray(counts).save(tmp_path / "in" / "cells.tif")
    said = run("05_micrographs.py", tmp_path / "in", tmp_path / "out", MOMENT)
    assert "recipe independent, stride 1" in said
    assert "variance of the noise: 0.03" in said  # 200 over the range of the counts, about 6000
    assert shape(tmp_path / "out" / "clean" / "cells.tif") == (120, 96)
    assert shape(tmp_path / "out" / "before_after.png")[0] > 2 * 120

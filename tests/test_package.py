"""The package as a whole: public names, version, typing marker, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

import masked_denoise

PUBLIC = [
    "AsymmetricMaskDenoiser",
    "Checkerboard",
    "Lattice",
    "MaskScheme",
    "Noise2Void",
    "NothingHidden",
    "PixelDownsample",
    "RandomPartition",
    "Refinement",
    "create_backbone",
    "from_pretrained",
    "list_backbones",
    "mask_loss",
    "register_backbone",
    "smoothness_loss",
    "total_loss",
]
HEAVY = {
    "PIL", "tifffile", "timm", "accelerate", "typer", "rich", "matplotlib", "triton",
    "huggingface_hub",
}  # fmt: skip
MEASURE = """
import json, sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
before = set(sys.modules)
from masked_denoise import *
end = time.perf_counter()
print(json.dumps([middle - start, end - middle, sorted(set(sys.modules) - before)]))
"""


def measure() -> tuple[float, float, set[str]]:
    """Return the seconds of torch, the seconds on top of it, and the packages on top of it."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    torch_seconds, more_seconds, modules = json.loads(done.stdout)
    return torch_seconds, more_seconds, {name.partition(".")[0] for name in modules}


@pytest.fixture(scope="module")
def first_import() -> tuple[float, float, set[str]]:
    return measure()


def test_public_names_are_pinned() -> None:
    assert masked_denoise.__all__ == PUBLIC
    assert all(hasattr(masked_denoise, name) for name in PUBLIC)
    assert sorted(PUBLIC) == PUBLIC


def test_import_loads_no_heavy_package(first_import: tuple[float, float, set[str]]) -> None:
    packages = first_import[2]
    assert "masked_denoise" in packages
    assert not packages & HEAVY


def test_import_costs_little_over_torch(first_import: tuple[float, float, set[str]]) -> None:
    trials = [first_import[:2]]
    while not any(more < 0.25 * base + 0.2 for base, more in trials):
        assert len(trials) < 3, f"(torch, on top of it) in seconds: {trials}"
        trials.append(measure()[:2])


def test_a_public_name_is_loaded_when_it_is_used() -> None:
    """The command's help need not wait for torch, and a wrong name fails as it does elsewhere."""
    code = (
        "import masked_denoise, sys; assert 'torch' not in sys.modules; masked_denoise.MaskScheme"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(PUBLIC) <= set(dir(masked_denoise))
    with pytest.raises(AttributeError, match="no attribute 'Maskscheme'"):
        masked_denoise.Maskscheme  # noqa: B018


def test_version_is_pep_440() -> None:
    assert str(Version(masked_denoise.__version__)) == masked_denoise.__version__


def test_typing_marker_is_shipped() -> None:
    assert (Path(masked_denoise.__file__).parent / "py.typed").is_file()

"""The scripts that compare: what they say of other programs, and of the paper, is so."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from masked_denoise.compare import Comparison, Outcome
from masked_denoise.presets import preset
from masked_denoise.recipes import Recipe
from masked_denoise.scheme import NothingHidden, RandomPartition

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules."""
    sys.path.insert(0, str(BENCHMARKS))
    names = ("quality", "peer_methods", "peers", "paper_tables", "microscopy")
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in names:
            sys.modules.pop(name, None)


# -- peers ----------------------------------------------------------------------------------------

METHOD = """
import json, sys
from pathlib import Path
import numpy as np
method, settings, source, target = sys.argv[1:]
for place, one in enumerate(json.loads(settings)):
    folder = Path(target) / str(place)
    folder.mkdir()
    for path in Path(source).glob("*.npy"):
        np.save(folder / path.name, np.load(path) + np.uint8(one["add"]))
    (folder / "times.json").write_text(json.dumps({"a_1": 2.0, "b_1": 4.0, "training": 9.0}))
"""
ARGS = argparse.Namespace(epochs=1, envs=".")


@pytest.fixture
def peers(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The script with one method that adds a constant, run in this very environment."""
    module = scripts["peers"]
    (tmp_path / "peer_methods.py").write_text(METHOD)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "environment", lambda *named: Path(sys.executable))
    monkeypatch.setattr(module, "GRIDS", {"adder": [{"add": 0}, {"add": 5}, {"add": 9}]})
    monkeypatch.setattr(module, "ENVIRONMENTS", {"adder": ("here", "none")})
    return module


def test_setting_is_chosen_on_even_scenes_and_reported_on_all(peers: ModuleType) -> None:
    clean = {name: np.full((16, 16, 3), 100, np.uint8) for name in ("a_1", "b_1")}
    noisy = {"a_1": clean["a_1"] - np.uint8(6), "b_1": clean["b_1"] - np.uint8(9)}
    measure = peers.Measure(clean, {"a_1"}, None)
    found = peers.run_peer("adder", noisy, measure, {"a_1"}, ARGS)
    assert found["settings"] == {"add": 5}  # 9 would be best for the odd scene
    assert found["even"]["psnr"] == pytest.approx(20 * np.log10(255))
    assert found["odd"]["psnr"] == pytest.approx(20 * np.log10(255 / 4))
    assert (found["all"]["seconds"], found["training_seconds"]) == (3.0, 9.0)
    before = measure({name: (one, 0.0) for name, one in noisy.items()})
    text = peers.table(
        {"methods": {"input": before, "adder": found}, "pictures": list(noisy), "convention": "c",
         "lpips": "none"}
    )  # fmt: skip
    assert "| adder | add 5 | 36.09 / " in text


def test_a_method_that_cannot_run_is_told(peers: ModuleType) -> None:
    (peers.HERE / "peer_methods.py").write_text("raise ValueError('no such thing')")
    picture = {"a_1": np.zeros((16, 16, 3), np.uint8)}
    measure = peers.Measure(picture, {"a_1"}, None)
    found = peers.run_peer("adder", picture, measure, {"a_1"}, ARGS)
    assert "no such thing" in found["failed"]


def test_every_method_has_a_function_and_an_environment(scripts: dict[str, ModuleType]) -> None:
    peers, methods = scripts["peers"], scripts["peer_methods"]
    assert set(peers.GRIDS) | set(methods.TRAINED) == set(peers.ENVIRONMENTS)
    assert set(peers.GRIDS) | {"bm3d-grey"} == set(methods.EACH)


# -- the paper's tables ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["amsnet", "default"])
@pytest.mark.parametrize("table", ["table2", "table3", "table4", "fig9", "fig10", "fig11"])
def test_rows_are_recipes_and_those_of_the_paper(
    scripts: dict[str, ModuleType], table: str, base: str
) -> None:
    module = scripts["paper_tables"]
    args = argparse.Namespace(base=base, backbone="dncnn", arguments='{"width": 8}')
    rows = module.recipes_of(table, args)
    assert list(rows) == list(module.PAPER[table])
    recipes = [Recipe(name, settings) for name, settings in rows.items()]
    keys = {recipe.training_key() for recipe in recipes}
    assert len(keys) == (2 if table == "table2" else len(rows))  # R3 needs no training of its own


def test_rows_of_table_2_are_the_presets_of_those_names(scripts: dict[str, ModuleType]) -> None:
    args = argparse.Namespace(base="amsnet", backbone="dncnn", arguments="{}")
    for name, settings in scripts["paper_tables"].recipes_of("table2", args).items():
        named = Recipe(name, {"preset": f"amsnet-{name.lower()}", "backbone": "dncnn"})
        made, meant = (one.denoiser(channels=3) for one in (Recipe(name, settings), named))
        assert made.refinement == meant.refinement
        assert (made.stride, made.passes) == (meant.stride, meant.passes)
        assert made.train_strides == meant.train_strides
        smooth = {**preset(f"amsnet-{name.lower()}")["fit"]}["smooth_steps"]
        assert settings["smooth_steps"] == smooth


@pytest.mark.filterwarnings("ignore:.*hides no pixel")
def test_table_3_hides_nothing_where_it_is_ap_bsn(scripts: dict[str, ModuleType]) -> None:
    args = argparse.Namespace(base="amsnet", backbone="x", arguments='{"width": 8, "blocks": 2}')
    for name, settings in scripts["paper_tables"].recipes_of("table3", args).items():
        made = Recipe(name, settings).denoiser(channels=3)
        kind = NothingHidden if name.startswith("AP-BSN") else RandomPartition
        assert type(made.scheme) is kind
        assert made.traits.blind == name.endswith("(D_A)")
        assert made.refinement is not None
        assert made.refinement.masked == name.startswith("AMSNet")
        assert made.train_strides == (5,)
        assert not made.residual


def test_mask_ratios_are_what_they_are_called(scripts: dict[str, ModuleType]) -> None:
    for name, settings in scripts["paper_tables"].RATIOS.items():
        scheme = RandomPartition(**settings)
        groups = 1 if scheme.hide == "own" else scheme.branches - 1
        assert groups / scheme.branches == pytest.approx(float(name.removesuffix(" %")) / 100)


def test_table_says_budget_and_the_numbers_of_the_paper(scripts: dict[str, ModuleType]) -> None:
    numbers: dict[str, Any] = dict.fromkeys(
        ("psnr", "ssim", "input_psnr", "input_ssim", "psnr_to_input", "steps", "training_seconds"),
        1.0,
    )
    found = Comparison(
        [Outcome("P", numbers), Outcome("P-E", {}, failed="broken")],
        {"trained_on": 7, "scored": 3},
        "some convention",
    )
    args = argparse.Namespace(table="table2", seed=0, base="amsnet", backbone="dncnn")
    text = scripts["paper_tables"].table(found, args, "9 steps")
    assert "| 36.71 / 0.8519 | 37.47 / 0.9580 |" in text
    assert "Budget of each: 9 steps" in text
    assert "failed: broken" in text


# -- microscopy -----------------------------------------------------------------------------------


def test_sensor_adds_the_noise_it_says(scripts: dict[str, ModuleType]) -> None:
    sensor = scripts["microscopy"].Sensor(peak=30, read=1.5)
    unit = np.full((400, 400), 0.5)
    counts = sensor.expose(unit, np.random.default_rng(0))
    assert counts.dtype == np.uint16
    photons = float(sensor.photons(unit)[0, 0])
    assert counts.var() == pytest.approx(sensor.gain**2 * (photons + 1.5**2), rel=0.02)
    assert sensor.unit(counts).mean() == pytest.approx(photons / 30, abs=0.002)


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_anscombe_makes_noise_of_one_and_its_inverse_has_no_bias(
    scripts: dict[str, ModuleType], level: float
) -> None:
    sensor = scripts["microscopy"].Sensor(peak=30, read=1.5)
    unit = np.full((400, 400), level)
    stable = sensor.anscombe(sensor.expose(unit, np.random.default_rng(1)))
    assert stable.std() == pytest.approx(1, abs=0.06)
    back = sensor.unit(sensor.inverse_anscombe(np.full((1, 1), stable.mean())))[0, 0]
    assert back == pytest.approx(float(sensor.photons(unit)[0, 0]) / 30, abs=0.005)


def test_microscopy_pictures_are_bright_on_dark(scripts: dict[str, ModuleType]) -> None:
    pictures = scripts["microscopy"].sources(256)
    assert len(pictures) == 4
    for picture in pictures.values():
        assert min(picture.shape) >= 200
        assert 0 <= picture.min() <= picture.max() == 1
        assert picture.mean() < 0.5

"""The benchmarks: what they compare is the same thing; one that fails does not end the others."""

from __future__ import annotations

import json
import mmap
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a file of benchmarks/."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("run", "ops", "gpu", "scaling", "stages", "timing", "quality", "calibration")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def imported(name: str) -> ModuleType:
        return import_module(name)

    return imported


def test_all_forms_of_every_operator_agree(load: Any) -> None:
    ops = load("ops")
    cases = ops.operators(torch.rand(2, 3, 24, 32))
    assert {"hide, mean", "distance", "distance, backward", "merge", "replace"} <= {
        case.name for case in cases
    }
    for case in cases:
        ops.check(case)
    wrong = cases[0]._replace(fused=lambda: cases[0].eager() + 1)
    with pytest.raises(AssertionError, match="hide, zero"):
        ops.check(wrong)


def test_pixels_without_a_neighbour_are_filled_by_indexing_as_defined(load: Any) -> None:
    ops = load("ops")
    image, hidden = torch.rand(2, 3, 11, 12), torch.ones(2, 1, 11, 12, dtype=torch.bool)
    hidden[0, 0, 5, 5] = False
    expected = ops.reference.fill_hidden(image, hidden, "mean")
    torch.testing.assert_close(ops.indexed_mean(image, hidden), expected)


def test_the_floor_of_the_error_is_found(load: Any) -> None:
    predicted = np.array([0.1, 1, 2, 5])
    found = load("calibration").with_floor(predicted, np.sqrt(1.5**2 + (0.8 * predicted) ** 2))
    assert found == pytest.approx((1.5, 0.8))
    assert load("calibration").with_floor(predicted, 3 * predicted) == pytest.approx((0, 3))


def test_exponents(load: Any) -> None:
    exponent = load("timing").exponent
    sizes = [128.0, 512.0, 4096.0]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert exponent(sizes, [7.0] * 3) == pytest.approx(0)
    assert exponent([5.0], [1.0]) is None


def test_memory_of_a_point_is_that_beside_its_input(load: Any) -> None:
    scaling = load("scaling")
    before = scaling.reset_peak("cpu")
    with mmap.mmap(-1, 64 << 20) as held:  # new pages, whatever earlier tests have freed
        for place in range(0, len(held), 1 << 12):
            held[place] = 1
    grown = scaling.peak_bytes("cpu") - before
    assert 60 << 20 < grown < 100 << 20


def test_a_section_that_fails_is_told_and_the_others_are_kept(
    load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load("run")
    file = tmp_path / "new" / "numbers.json"
    report = run.Report(file, run.machine("cpu"), {"gpu": False})

    def fail() -> None:
        raise ZeroDivisionError("nothing to divide")

    report.add("one", lambda: {"rows": [{"what": "hide", "milliseconds": 1.23456}]})
    report.add("two", fail)
    report.add("three", lambda: {"seconds": 2.0})
    assert report.finish() == 1
    told = capsys.readouterr().out
    assert "| hide | 1.235 |" in told
    assert "ZeroDivisionError: nothing to divide" in told
    content = json.loads(file.read_text())
    assert {"commit", "date", "torch", "python", "processor", "threads"} <= set(content["machine"])
    assert content["sections"]["two"] == {"error": "ZeroDivisionError: nothing to divide"}
    assert content["sections"]["three"] == {"seconds": 2.0}


def test_a_series_tells_its_exponents_and_what_failed(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling, run = load("scaling"), load("run")

    def linear(point: dict[str, Any]) -> dict[str, Any]:
        if point["side"] > 2000:
            raise RuntimeError("no memory left")
        return {"seconds": point["side"] ** 2 / 1e6, "peak_bytes": 12 * point["side"] ** 2}

    monkeypatch.setattr(scaling, "in_a_child", linear)
    plan = [{"device": "cpu", "side": side} for side in (128, 512, 1024, 2048)]
    found = scaling.series("masking, side", plan)
    assert found["exponent_of_time"] == pytest.approx(1)
    assert found["exponent_of_memory"] == pytest.approx(1)
    assert len(found["points"]) == 3
    assert "no memory left" in found["failed"][0]["error"]
    told = run.shown({"masking, side": found})
    assert "grows with pixels to the power 1, memory 1" in told
    assert "no memory left" in told


def test_rows_of_quality_go_below_one_header(load: Any, tmp_path: Path) -> None:
    quality, page = load("quality"), tmp_path / "results.md"
    page.write_text("# Results\n\nWords.\n")
    report = {
        "mean": {"psnr": 38.779, "ssim": 0.96521, "seconds": 0.1}, "worse": [],
        "machine": {"date": "2026-11-27T12:00:00+00:00", "commit": "abc"},
    }  # fmt: skip
    line = ["noisy", "clean", "-o", "out", "--row", str(page)]
    for given in ([], ["--model", "camera-small", "--adapt", "3"]):
        quality.append_row(quality.arguments_of([*line, *given]), report)
    head, table = page.read_text().split("\n\n| run ")
    assert head == "# Results\n\nWords."
    assert table.splitlines()[2:] == [
        "| `as it is` | 38.78 | 0.9652 | 0 | 0.10 | 2026-11-27 | abc |",
        "| `--model camera-small --adapt 3.0` | 38.78 | 0.9652 | 0 | 0.10 | 2026-11-27 | abc |",
    ]


def test_what_is_given_beside_a_recipe_wins(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = load("quality")
    monkeypatch.setattr(
        sys, "argv", ["quality.py", "a", "b", "-o", "c", "--recipe", "adapted", "--adapt", "5"]
    )
    args = quality.arguments()
    assert (args.model, args.adapt) == ("camera-small", 5)

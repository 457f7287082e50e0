"""Recipes side by side: alike training, the numbers of everybody, and what goes wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

from masked_denoise import AsymmetricMaskDenoiser, NothingHidden
from masked_denoise.cli import app
from masked_denoise.commands.compare import _table
from masked_denoise.compare import (
    Comparison,
    Outcome,
    _compare_to_first,
    compare_recipes,
    interval_over_scenes,
    masked_score,
    write_comparison,
)
from masked_denoise.errors import DataError, SettingError, TrainingError
from masked_denoise.images import ImageFile, find_images, read_image, write_image
from masked_denoise.images.pairs import find_pairs
from masked_denoise.metrics import score
from masked_denoise.recipes import Recipe

TINY = {
    "backbone": "dncnn", "backbone_args": {"width": 4, "depth": 3}, "passes": 1, "crop": 16,
    "observation": 0.0, "chroma_radius": 0, "dct_threshold": 0.0,
}  # fmt: skip


def smooth(height: int = 40, width: int = 48) -> Any:
    rows, columns = np.mgrid[:height, :width] / height
    return 0.3 + 0.3 * rows + 0.1 * np.sin(6 * columns)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two scenes of two noisy grey pictures each, and their clean ones."""
    place = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in ("a_1", "a_2", "b_1", "b_2"):
        clean = smooth()
        noisy = clean + random.normal(0, 0.1, clean.shape)
        for folder, pixels in (("noisy", noisy), ("clean", clean)):
            picture = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
            write_image(place / folder / f"{name}.png", ImageFile(picture))
    return place / "noisy", place / "clean"


def files(folder: Path) -> list[Path]:
    return [file for file, _ in find_images(folder)]


@pytest.fixture(scope="module")
def found(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three recipes, of which two differ in inference only, scored on pairs; models kept."""
    noisy, clean = folders
    recipes = [
        Recipe("one", {**TINY, "train_stride": 1}),
        Recipe("two passes", {**TINY, "train_stride": 1, "passes": 2}),
        Recipe("wide", {**TINY, "backbone_args": {"width": 6, "depth": 3}}),
    ]
    models = tmp_path_factory.mktemp("models")
    result = compare_recipes(
        recipes, files(noisy), pairs=find_pairs(noisy, clean).pairs, steps=3, progress=False,
        models=models, device="cpu",
    )  # fmt: skip
    result.settings["models"] = models
    return result


def test_the_noise_level_is_shared_with_the_training(folders: tuple[Path, Path]) -> None:
    noisy, clean = folders
    measured = {**TINY, "preset": "independent", "observation": "measured"}
    recipes = [
        Recipe("share", {**measured, "observation": 0.1}),
        Recipe("one", measured),
        Recipe("two passes", {**measured, "passes": 2}),
        Recipe("bare", {**measured, "passes": 2, "observation": 0.0}),
    ]
    pairs = find_pairs(noisy, clean).pairs
    result = compare_recipes(
        recipes, files(noisy), pairs=pairs, steps=3, progress=False, device="cpu"
    )
    share, one, two, bare = result.outcomes
    assert (share.shared, one.shared, two.shared, bare.shared) == (None, None, "one", "share")
    assert abs(two.numbers["psnr"] - bare.numbers["psnr"]) > 0.01


def test_numbers_are_those_of_the_saved_models(
    found: Comparison, folders: tuple[Path, Path]
) -> None:
    noisy, clean = folders
    for outcome, name in zip(found.outcomes, ("one", "two_passes", "wide"), strict=True):
        denoiser = AsymmetricMaskDenoiser.from_pretrained(found.settings["models"] / name)
        scores = [
            score(
                denoiser.denoise(read_image(noisy / f"{one}.png").pixels),
                read_image(clean / f"{one}.png").pixels,
            )
            for one in ("a_1", "a_2", "b_1", "b_2")
        ]
        for key in ("psnr", "ssim"):
            expected = np.mean([one[key] for one in scores])
            assert outcome.numbers[key] == pytest.approx(expected, abs=1e-6)
        assert outcome.numbers["steps"] == 3
        assert len(outcome.images) == 4


def test_recipes_that_differ_in_inference_share_training(found: Comparison) -> None:
    one, two, wide = found.outcomes
    assert (one.shared, two.shared, wide.shared) == (None, "one", None)
    assert one.numbers["parameters"] == two.numbers["parameters"] != wide.numbers["parameters"]
    assert one.numbers["psnr"] != two.numbers["psnr"]


def test_gain_is_the_difference_to_the_first(found: Comparison) -> None:
    one, two, _ = (outcome.numbers for outcome in found.outcomes)
    assert "gain" not in one
    assert two["gain"] == pytest.approx(two["psnr"] - one["psnr"])
    assert two["gain_low"] <= two["gain"] <= two["gain_high"]


def test_files_hold_the_numbers(found: Comparison, tmp_path: Path) -> None:
    found.settings.pop("models", None)
    found.outcomes[0].images[0]["psnr"] = float("inf")
    write_comparison(found, tmp_path / "new")
    told = json.loads((tmp_path / "new" / "results.json").read_text())
    assert told["recipes"][0]["images"][0]["psnr"] is None
    assert told["settings"]["recipes"]["one"]["train_stride"] == 1
    rows = list(csv.DictReader((tmp_path / "new" / "results.csv").open()))
    assert [row["recipe"] for row in rows] == ["one", "two passes", "wide"]
    assert float(rows[1]["psnr"]) == told["recipes"][1]["numbers"]["psnr"]
    crops = read_image(tmp_path / "new" / "crops.png").pixels
    assert crops.shape[1] > 5 * (48 + 12) + 12  # noisy, three recipes, clean; labels are wider
    shown = (crops[34 : 34 + 48] < 255).any(axis=(0, 2))  # columns of pixels, of the first row
    assert np.count_nonzero(np.diff(shown.astype(int)) == 1) == 5


def test_without_pairs_the_masked_score(folders: tuple[Path, Path]) -> None:
    found = compare_recipes(
        [Recipe("x", TINY)], files(folders[0]), steps=1, progress=False, device="cpu"
    )
    (outcome,) = found.outcomes
    assert "psnr" not in outcome.numbers
    assert outcome.numbers["masked"] == np.mean([one["masked"] for one in outcome.images])
    assert "withheld" in found.convention


@pytest.mark.parametrize("kind", [TrainingError, RuntimeError, MemoryError])
def test_a_recipe_that_fails_does_not_stop_the_others(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    fit = AsymmetricMaskDenoiser.fit

    def broken(self: AsymmetricMaskDenoiser, *arguments: Any, **named: Any) -> Any:
        if self.train_strides == (3,):
            raise kind("the loss is nan")
        return fit(self, *arguments, **named)

    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", broken)
    recipes = [Recipe("bad", {**TINY, "train_stride": 3}), Recipe("good", TINY)]
    seen: list[str] = []
    found = compare_recipes(
        recipes, files(folders[0]), steps=1, progress=False, device="cpu",
        on_outcome=lambda so_far: seen.append(so_far.outcomes[-1].recipe),
    )  # fmt: skip
    assert [one.failed for one in found.outcomes] == ["the loss is nan", None]
    assert seen == ["bad", "good"]
    assert found.to_csv().splitlines()[1].endswith("the loss is nan")


def test_pictures_without_any_error_have_no_gain_to_tell() -> None:
    outcomes = [
        Outcome("a", numbers={"psnr": 1.0}, images=[{"image": f"s_{k}.png", "psnr": k or None}
                for k in range(3)])
        for _ in range(2)
    ]  # fmt: skip
    _compare_to_first(outcomes[1], outcomes[:1])
    assert outcomes[1].numbers["gain"] == 0
    perfect = Outcome("b", numbers={"psnr": 1.0}, images=[{"image": "s_0.png", "psnr": None}] * 3)
    _compare_to_first(perfect, outcomes[:1])
    assert "gain" not in perfect.numbers


def test_interrupted_training_ends_the_comparison(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = AsymmetricMaskDenoiser.fit

    def stopped(self: AsymmetricMaskDenoiser, *arguments: Any, **named: Any) -> Any:
        fit(self, *arguments, **named)
        if self.train_strides == (3,):
            self.fit_record["stopped"] = "interrupted"
        return self

    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", stopped)
    recipes = [Recipe("a", TINY), Recipe("b", {**TINY, "train_stride": 3}), Recipe("c", TINY)]
    found = compare_recipes(recipes, files(folders[0]), steps=1, progress=False, device="cpu")
    assert [one.recipe for one in found.outcomes] == ["a"]
    assert found.interrupted


def test_wrong_arguments_are_found_before_training(folders: tuple[Path, Path]) -> None:
    recipe, pictures = Recipe("x", TINY), files(folders[0])
    with pytest.raises(SettingError, match="one budget"):
        compare_recipes([recipe], pictures)
    with pytest.raises(SettingError, match="one budget"):
        compare_recipes([recipe], pictures, steps=1, minutes=1)
    with pytest.raises(SettingError, match="called 'x'"):
        compare_recipes([recipe, recipe], pictures, steps=1)
    with pytest.raises(DataError, match="nothing to compare"):
        compare_recipes([], pictures, steps=1)


# -- the masked score -----------------------------------------------------------------------------


class Copy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


@pytest.mark.filterwarnings("ignore:.*hides no pixel")
def test_masked_score_sees_no_withheld_pixel() -> None:
    """A network that copies its input cannot copy what is withheld."""
    noisy = (smooth(64, 64) + np.random.default_rng(1).normal(0, 0.1, (64, 64))).astype(np.float32)
    copy = AsymmetricMaskDenoiser(
        Copy(), channels=1, scheme=NothingHidden(), stride=1, passes=1, observation=0.0,
        residual=False, dct_threshold=0.0,
    )  # fmt: skip
    assert np.array_equal(copy.denoise(noisy), noisy)
    found = masked_score(copy, noisy)
    assert 15 < found < 21  # that of the mean of neighbours: sigma 0.1 is 20 dB
    assert found == masked_score(copy, noisy)
    assert found != masked_score(copy, noisy, seed=1)


def test_masked_score_is_the_same_on_any_scale() -> None:
    denoiser = AsymmetricMaskDenoiser("dncnn", channels=1, backbone_args={"width": 4}, passes=1)
    pixels = (smooth() * 255).round().astype(np.uint8)
    unit = masked_score(denoiser, (pixels / np.float32(255)).astype(np.float32))
    assert masked_score(denoiser, pixels) == pytest.approx(unit, abs=1e-4)
    assert masked_score(denoiser, pixels.astype(np.uint16) * 257) == pytest.approx(unit, abs=1e-4)


def test_interval_is_over_scenes_not_pictures() -> None:
    one_scene = interval_over_scenes([0.0, 1.0] * 10, ["a"] * 20)
    assert one_scene == (0.5, 0.5)
    low, high = interval_over_scenes([0.0] * 10 + [1.0] * 10, ["a"] * 10 + ["b"] * 10)
    assert (low, high) == (0.0, 1.0)


# -- the command ----------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_command_writes_results_and_keeps_models(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    noisy, clean = folders
    recipes = tmp_path / "mine.json"
    recipes.write_text(json.dumps({"p1": TINY, "p2": {**TINY, "passes": 2}}))
    command = (noisy, "-o", tmp_path / "out", "--recipes", recipes, "--steps", 1, "--clean", clean,
               "--device", "cpu")  # fmt: skip
    result = run(*command, "--save-models")
    assert result.exit_code == 0, result.output
    assert "p2" in result.output
    assert "1 steps each" in result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "results.json", "results.csv", "crops.png", "models",
    }  # fmt: skip
    assert AsymmetricMaskDenoiser.from_pretrained(tmp_path / "out" / "models" / "p2").passes == 2
    again = run(*command)
    assert again.exit_code == 2
    assert "not empty" in " ".join(again.output.split())


def test_ctrl_c_before_the_first_is_done_leaves_nothing(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: AsymmetricMaskDenoiser, *arguments: Any, **named: Any) -> Any:
        self.fit_record["stopped"] = "interrupted"
        return self

    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", stopped)
    result = run(folders[0], "-o", tmp_path / "out", "--recipe", "default", "--device", "cpu")
    assert result.exit_code == 130
    assert not (tmp_path / "out").exists()


def test_a_killed_command_leaves_what_was_found(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = AsymmetricMaskDenoiser.fit

    def killed(self: AsymmetricMaskDenoiser, *arguments: Any, **named: Any) -> Any:
        if self.train_strides == (3,):
            raise KeyboardInterrupt  # as while scoring, or a kill that nothing catches
        return fit(self, *arguments, **named)

    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", killed)
    recipes = tmp_path / "mine.json"
    recipes.write_text(json.dumps({"first": TINY, "second": {**TINY, "train_stride": 3}}))
    result = run(
        folders[0], "-o", tmp_path / "out", "--recipes", recipes, "--steps", 1, "--clean",
        folders[1], "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 130
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["recipe"] for one in told["recipes"]] == ["first"]
    assert (tmp_path / "out" / "crops.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give the recipes"),
        (["--recipe", "defalt"], "did you mean 'default'"),
        (["--recipe", "default", "--minutes", 1, "--steps", 1], "one of --minutes and --steps"),
        (["--recipe", "default", "--score", "."], "needs --clean"),
    ],
)
def test_command_refuses(
    folders: tuple[Path, Path], tmp_path: Path, options: list[object], message: str
) -> None:
    result = run(folders[0], "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_the_table_fits_into_a_narrow_terminal() -> None:
    numbers = dict.fromkeys(
        ("psnr", "ssim", "gain", "worse", "psnr_to_input", "parameters", "steps",
         "training_seconds", "seconds"), 1234.5678,
    )  # fmt: skip
    rows = [
        SimpleNamespace(recipe=name, numbers=numbers, failed=None)
        for name in ("default", "train-strides-2-to-5")
    ]
    found = cast(Comparison, SimpleNamespace(outcomes=rows))
    for width, last in ((80, "worse"), (200, "s each")):
        console = Console(width=width, file=io.StringIO())
        console.print(_table(found, width))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "train-strides-2-to-5" in text  # in one piece, as are the numbers
        assert "1234.57" in text
        assert "…" not in text
        assert last in text
        assert max(map(len, text.splitlines())) <= width

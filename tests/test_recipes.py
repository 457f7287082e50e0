"""Recipes: what may stand in them, and what they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from masked_denoise import Refinement
from masked_denoise.errors import SettingError, UnknownNameError
from masked_denoise.recipes import Recipe, preset_recipe, read_recipes
from masked_denoise.scheme import Checkerboard, RandomPartition

TINY = {"backbone": "dncnn", "backbone_args": {"width": 4, "depth": 3}}

TOML = """
[coarse]
train_stride = 5
loss = "l2"

[board]
preset = "amsnet-p-e"
scheme = "checkerboard"
fill = 0.5
refine = {draws = 2, share = 0.5}
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_file_gives_recipes_in_its_order(tmp_path: Path) -> None:
    pytest.importorskip("tomllib")
    coarse, board = read_recipes(write(tmp_path, TOML))
    assert (coarse.name, board.name) == ("coarse", "board")
    assert coarse.fit_arguments == {"loss": "l2"}
    made = board.denoiser(channels=1)
    assert isinstance(made.scheme, Checkerboard)
    assert made.scheme.fill == 0.5
    assert made.refinement == Refinement(draws=2, share=0.5)
    assert (made.train_strides, made.stride) == ((5,), 2)  # of the preset
    assert coarse.denoiser(channels=1).train_strides == (5,)


def test_json_says_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": {"stride": 2}, "b": {}}', "mine.json")
    assert [one.settings for one in read_recipes(path)] == [{"stride": 2}, {}]


def test_fill_keeps_the_rest_of_the_scheme() -> None:
    scheme = {"name": "random", "branches": 4, "hide": "others"}
    made = Recipe("x", {"scheme": scheme, "fill": "zero"}).denoiser(channels=1).scheme
    assert isinstance(made, RandomPartition)
    assert (made.branches, made.hide, made.fill) == (4, "others", "zero")


def test_preset_with_another_network() -> None:
    assert preset_recipe("amsnet:dncnn").backbone == "dncnn"
    assert preset_recipe("amsnet").denoiser(channels=1).train_strides == (5,)
    with pytest.raises(UnknownNameError, match="did you mean 'amsnet'"):
        preset_recipe("amsnett:dncnn")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strid": 2}, "did you mean 'stride'"),
        ({"minutes": 2}, "unknown setting"),  # the budget is the caller's
        ({"seed": 2}, "unknown setting"),
        ({"preset": "amsnt"}, "did you mean 'amsnet'"),
        ({"scheme": "randm"}, "did you mean 'random'"),
        ({"scheme": 3}, "such as"),
        ({"scheme": {"name": "random", "branch": 4}}, "cannot be used"),
        ({"refine": {"draw": 4}}, "cannot be used"),
        ({"loss": "l3"}, "one of l1, l2"),
        ({"crop": -1}, "crop is -1"),
    ],
)
def test_what_cannot_be_used_is_found_at_once(settings: dict[str, object], message: str) -> None:
    with pytest.raises((UnknownNameError, SettingError), match=message):
        Recipe("x", settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train_stride = 2", "outside of any recipe"),
        ("", "holds no recipe"),
        ("[a", "cannot read"),
        ("[a]\nstrid = 2", "did you mean 'stride'"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, text: str, message: str) -> None:
    pytest.importorskip("tomllib")
    with pytest.raises((SettingError, UnknownNameError), match=message):
        read_recipes(write(tmp_path, text))


def test_missing_and_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot read"):
        read_recipes(tmp_path / "none.json")
    with pytest.raises(SettingError, match="ends in"):
        read_recipes(write(tmp_path, "", "mine.yaml"))


def test_training_key_ignores_inference_and_spelling_only() -> None:
    plain = Recipe("a", {"preset": "amsnet-b"})
    assert plain.training_key() == Recipe("b", {"preset": "amsnet-b-e"}).training_key()
    assert plain.training_key() == Recipe("c", {"preset": "amsnet-b", "crop": 160}).training_key()
    for other in ({"preset": "amsnet-p"}, {"preset": "amsnet-b", "crop": 80}, {},
                  {"preset": "amsnet-b", "train_stride": 2}, {"preset": "amsnet-b", "fill": "mean"},
                  {"preset": "amsnet-b", "backbone": "dncnn"}):  # fmt: skip
        assert Recipe("d", other).training_key() != plain.training_key()


def test_first_weights_are_the_seeds() -> None:
    weights = [
        next(Recipe("x", TINY).denoiser(channels=1, seed=seed).backbone.parameters()).tolist()
        for seed in (1, 1, 2)
    ]
    assert weights[0] == weights[1] != weights[2]

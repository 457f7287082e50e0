"""The model card says what config.json does, and never replaces what somebody wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch import nn

from masked_denoise import AsymmetricMaskDenoiser, from_pretrained
from masked_denoise.errors import CheckpointError, SizeError, WeightsError
from masked_denoise.pretrained.card import PICTURE, README, is_generated, model_card
from masked_denoise.scheme import RandomPartition


@pytest.fixture
def denoiser() -> AsymmetricMaskDenoiser:
    return AsymmetricMaskDenoiser("fast-unet", backbone_args={"widths": (2, 4)}, passes=1)


TOLD: dict[str, Any] = {
    "license": "CC-BY-NC-4.0",
    "training_data": "The noisy pictures of SIDD-Medium.",
    "metrics": {"SIDD validation": {"PSNR": 37.93, "SSIM": 0.8948}, "remark": "as published"},
}


def test_a_card_says_what_is_told(denoiser: AsymmetricMaskDenoiser, tmp_path: Path) -> None:
    denoiser.save_pretrained(tmp_path, **TOLD)
    card = ModelCard.load(tmp_path / README)
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.library_name == "masked-denoise"
    assert card.data.pipeline_tag == "image-to-image"
    assert {(one.metric_name, one.metric_value) for one in card.data.eval_results} == {
        ("PSNR", 37.93), ("SSIM", 0.8948),
    }  # fmt: skip
    for words in (
        "SIDD-Medium", "| SIDD validation, PSNR | 37.93 |", "| remark | as published |",
        "from_pretrained(", "| backbone | fast-unet |", "| its arguments | {'widths': [2, 4]} |",
        "RandomPartition(branches=2",
    ):  # fmt: skip
        assert words in card.text, words
    assert PICTURE not in card.text
    assert not (tmp_path / PICTURE).exists()


def test_what_is_told_survives_loading_and_saving(
    denoiser: AsymmetricMaskDenoiser, tmp_path: Path
) -> None:
    denoiser.save_pretrained(tmp_path / "a", **TOLD)
    again = from_pretrained(tmp_path / "a")
    assert again.card == TOLD
    again.save_pretrained(tmp_path / "b", license="mit")
    third = from_pretrained(tmp_path / "b")
    assert third.card == {**TOLD, "license": "mit"}
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert {key: config[key] for key in TOLD} == third.card
    assert (tmp_path / "a" / README).read_text() != (tmp_path / "b" / README).read_text()


def test_numbers_of_old_weights_end_with_the_old_weights(
    denoiser: AsymmetricMaskDenoiser, tmp_path: Path
) -> None:
    told = {"training_data": "Own micrographs.", "license": "cc-by-4.0"}
    denoiser.card = dict(told)
    noisy = np.random.default_rng(0).random((48, 48, 3), dtype=np.float32)
    denoiser.fit(noisy, steps=1, crop=32, progress=False)
    assert denoiser.card == told, "what is told before the first training is about it"
    denoiser.save_pretrained(tmp_path, metrics={"own pictures": {"PSNR": 31.2}})
    again = from_pretrained(tmp_path)
    again.fit(noisy, steps=1, crop=32, progress=False)
    again.fit(noisy, steps=1, crop=32, progress=False)
    assert "metrics" not in again.card
    assert again.card["license"] == "cc-by-4.0"
    assert again.card["training_data"].startswith("Own micrographs. ")
    assert again.card["training_data"].count("trained further") == 1


def test_a_license_of_another_name(denoiser: AsymmetricMaskDenoiser, tmp_path: Path) -> None:
    denoiser.save_pretrained(tmp_path, license="For my students only")
    data = ModelCard.load(tmp_path / README).data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "for-my-students-only")


def test_a_card_is_renewed_until_somebody_edits_it(
    denoiser: AsymmetricMaskDenoiser, tmp_path: Path
) -> None:
    denoiser.save_pretrained(tmp_path)
    first = (tmp_path / README).read_text()
    assert is_generated(first)
    assert is_generated(first.replace("\n", "\r\n"))
    assert not is_generated(first.replace("Recipe", "Receipt"))
    assert not is_generated(first + "More.\n")
    denoiser.save_pretrained(tmp_path, license="mit")
    second = (tmp_path / README).read_text()
    assert first != second
    (tmp_path / README).write_text(second + "\n## Mine\n")
    denoiser.save_pretrained(tmp_path, license="apache-2.0")
    assert (tmp_path / README).read_text() == second + "\n## Mine\n"
    assert json.loads((tmp_path / "config.json").read_text())["license"] == "apache-2.0"


def test_no_card(denoiser: AsymmetricMaskDenoiser, tmp_path: Path) -> None:
    denoiser.save_pretrained(tmp_path, card=False)
    assert not (tmp_path / README).exists()


@pytest.mark.parametrize("form", ["array", "tensor", "integers", "large"])
def test_before_and_after(denoiser: AsymmetricMaskDenoiser, form: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    picture: Any = random.random((40, 50, 3)).astype(np.float32)
    if form == "tensor":
        picture = torch.from_numpy(picture).movedim(2, 0)
    elif form == "integers":
        picture = (picture * 255).astype(np.uint8)
    elif form == "large":
        picture = random.random((30, 700, 3)).astype(np.float32)
    denoiser.save_pretrained(tmp_path, before_after=picture)
    assert f"]({PICTURE})" in (tmp_path / README).read_text()
    shown = np.asarray(Image.open(tmp_path / PICTURE))
    width = 512 if form == "large" else 50
    height = 30 if form == "large" else 40
    pair = shown[34 : 34 + height, 12 : 12 + width].astype(float)
    noisy = picture if form == "integers" else np.asarray(picture) * 255
    noisy = np.moveaxis(noisy, 0, 2) if form == "tensor" else noisy
    middle = (noisy.shape[1] - width) // 2
    assert abs(pair - noisy[:, middle : middle + width]).max() <= 1
    denoiser.save_pretrained(tmp_path)  # the picture stays
    assert f"]({PICTURE})" in (tmp_path / README).read_text()


def test_a_picture_that_does_not_fit(denoiser: AsymmetricMaskDenoiser, tmp_path: Path) -> None:
    with pytest.raises(SizeError, match="channels"):
        denoiser.save_pretrained(tmp_path, before_after=np.zeros((20, 20), np.uint8))
    assert from_pretrained(tmp_path).channels == 3


def test_own_parts_are_in_the_example_of_use(tmp_path: Path) -> None:
    class Mine(RandomPartition):
        """A scheme that is not built in."""

    denoiser = AsymmetricMaskDenoiser(nn.Conv2d(1, 1, 3, padding=1), channels=1, scheme=Mine())
    text = (denoiser.save_pretrained(tmp_path) / README).read_text()
    assert "backbone=network, scheme=Mine()" in text
    assert "grey pictures" in text


def test_what_is_told_cannot_break_the_card(
    denoiser: AsymmetricMaskDenoiser, tmp_path: Path
) -> None:
    denoiser.save_pretrained(
        tmp_path, license="x\n---\nlicense: mit", metrics={"a|b\n# c": {"<script>": 1}}
    )
    card = ModelCard.load(tmp_path / README)
    assert card.data.license == "other"
    assert r"| a\|b # c, &lt;script> | 1 |" in card.text


def test_wrong_things_to_tell(denoiser: AsymmetricMaskDenoiser, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"license": 3}, "license is 3"),
        ({"training_data": ["a"]}, "training_data is"),
        ({"metrics": 37.9}, "metrics is 37.9"),
        ({"metrics": {"PSNR": np.float32(1)}}, r"metrics\['PSNR'\] cannot be stored"),
        ({"metrics": {"PSNR": float("nan")}}, r"metrics\['PSNR'\] cannot be stored: it is nan"),
    ]
    for told, words in wrong:
        with pytest.raises(WeightsError, match=words):
            denoiser.save_pretrained(tmp_path, **told)
    denoiser.card["author"] = "me"
    with pytest.raises(WeightsError, match=r"denoiser\.card has 'author'"):
        denoiser.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_card_that_cannot_be_written(denoiser: AsymmetricMaskDenoiser, tmp_path: Path) -> None:
    (tmp_path / README).mkdir()
    with pytest.raises(CheckpointError, match="pass card=False"):
        denoiser.save_pretrained(tmp_path)


def test_the_front_matter_is_what_a_reader_of_cards_takes(
    denoiser: AsymmetricMaskDenoiser, tmp_path: Path
) -> None:
    config = json.loads((denoiser.save_pretrained(tmp_path) / "config.json").read_text())
    text = model_card(config, repository="me/my-model", picture=True)
    assert text.startswith("---\n")
    assert "# my-model\n" in text
    assert 'from_pretrained("me/my-model")' in text

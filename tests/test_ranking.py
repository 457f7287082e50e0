"""Models ranked without clean pictures: against what they are, and what `adapt` makes of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.camera_noise import CameraNoise
from masked_denoise.cli import app
from masked_denoise.errors import DataError, SettingError
from masked_denoise.images import ImageFile, write_image
from masked_denoise.pretrained.shipped import load_shipped
from masked_denoise.training.adapt import _restore_if_worse
from masked_denoise.training.ranking import MEGAPIXELS, rank_models, simulated_tests, windows_of


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (nn.functional.avg_pool2d(x, 31, 1, 15, count_include_pad=False) - x)


def unchanged() -> AsymmetricMaskDenoiser:
    return AsymmetricMaskDenoiser("fast-student", preset="student").eval()


def blurring() -> AsymmetricMaskDenoiser:
    return AsymmetricMaskDenoiser(Blur(), preset="student", residual=True).eval()


@pytest.fixture(scope="module")
def noisy() -> NDArray[np.uint8]:
    """Return a picture of edges and waves with camera noise."""
    row, col = torch.meshgrid(torch.arange(160.0), torch.arange(192.0), indexing="ij")
    waves = 0.5 + 0.3 * torch.sin(row / 30) * torch.cos(col / 40)
    stripes = ((row + 2 * col) // 80 % 2) * 0.3 + 0.3
    clean = torch.stack([waves, stripes, 0.5 * (waves + stripes)])
    camera = CameraNoise(sigma=(0.02, 0.02), uncompressed=1.0)
    made = camera.add(clean, np.random.default_rng(0))
    return made.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def test_the_order_is_that_of_what_the_models_do(noisy: NDArray[np.uint8]) -> None:
    models = {"blur": blurring(), "as it is": unchanged(), "camera-small": load_shipped()}
    ranks = rank_models(models, noisy)
    assert [rank.name for rank in ranks] == ["camera-small", "as it is", "blur"]
    assert [rank.helps for rank in ranks] == [True, False, False]
    assert ranks[0].gain > 1.5  # 2.4 without the cosine step, which the reference goes without
    assert ranks[1].gain == pytest.approx(0, abs=1e-6)
    assert rank_models(dict(reversed(models.items())), noisy) == ranks


def test_the_noise_has_the_level_of_the_pictures() -> None:
    levels = []
    for strength in (0.02, 0.04):
        clean = torch.full((3, 128, 128), 0.5)
        noise = CameraNoise(sigma=(strength, strength), uncompressed=1.0)
        made = noise.add(clean, np.random.default_rng(0)).mul(255).round().to(torch.uint8)
        pairs = simulated_tests(
            windows_of(made.permute(1, 2, 0).contiguous().numpy(), 3, MEGAPIXELS, 0),
            load_shipped(),
            0,
        )
        luma = [(one.astype(float) - two).mean(2).std() / 255 for one, two in pairs]
        levels.append(float(np.mean(luma)))
    # Of a flat picture more than of a photograph is taken off, so that the level comes out higher.
    assert levels == pytest.approx([1.3 * 0.02, 1.3 * 0.04], rel=0.4)
    assert levels[1] / levels[0] == pytest.approx(2, rel=0.1)


def test_pictures_are_half_as_large_and_seeded(noisy: NDArray[np.uint8]) -> None:
    first, again, other = (
        simulated_tests(windows_of(noisy, 3, MEGAPIXELS, seed), load_shipped(), seed)
        for seed in (0, 0, 1)
    )
    assert first[0][0].shape == first[0][1].shape == (80, 96, 3)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0][0], other[0][0])


def test_grey_pictures(noisy: NDArray[np.uint8]) -> None:
    grey = AsymmetricMaskDenoiser("fast-student", preset="student", channels=1).eval()
    (rank,) = rank_models({"grey": grey}, noisy[..., :1])
    assert rank.gain == pytest.approx(0, abs=1e-6)


def test_floats_have_their_range(noisy: NDArray[np.uint8]) -> None:
    floats, models = noisy.astype(np.float32) * 16, {"as it is": unchanged()}
    plain = rank_models(models, noisy)[0]
    models["as it is"].value_range = (0.0, 4080.0)
    assert rank_models(models, floats)[0].psnr == pytest.approx(plain.psnr, abs=0.5)


def test_what_cannot_be_ranked_is_refused(noisy: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="no models to rank"):
        rank_models({}, noisy)
    four = AsymmetricMaskDenoiser(nn.Conv2d(4, 4, 3, padding=1), channels=4)
    with pytest.raises(SettingError, match="megapixels is 0"):
        rank_models({"a": unchanged()}, noisy, megapixels=0)
    grey = AsymmetricMaskDenoiser("fast-student", preset="student", channels=1)
    with pytest.raises(SettingError, match="the reference has 1 channels"):
        rank_models({"a": unchanged()}, noisy, reference=grey)
    with pytest.raises(SettingError, match="a 3 and None, b 4 and None; all must be"):
        rank_models({"a": unchanged(), "b": four}, noisy)


def test_adapt_keeps_what_helps(noisy: NDArray[np.uint8]) -> None:
    good, poor, other = load_shipped(), blurring(), blurring()
    other.backbone.weight.data.mul_(0.9)
    assert _restore_if_worse(poor, good, noisy, 4, 0)["kept"] == "after"
    assert (
        _restore_if_worse(poor, other, noisy, 4, 0)["kept"] == "after"
    )  # neither helps: as it was trained
    assert other.backbone.weight.item() == pytest.approx(0.9)


def test_adapt_keeps_the_student_where_training_made_it_worse(noisy: NDArray[np.uint8]) -> None:
    student = load_shipped()
    before = copy.deepcopy(student.backbone.state_dict())
    student.adapt(
        noisy, steps=4, learning_rate=0.1, warmup_steps=0, ema_decay=0, progress=False,
        validation=False, batch_size=2, crop=64,
    )  # fmt: skip
    told = student.fit_record["adaptation"]
    assert told["kept"] == "before"
    assert told["simulated_gain"]["before"] > 0 > told["simulated_gain"]["after"]
    for name, value in student.backbone.state_dict().items():
        assert torch.equal(value, before[name])


def test_adapt_saves_what_it_keeps(noisy: NDArray[np.uint8], tmp_path: Path) -> None:
    student = unchanged()
    student.adapt(
        noisy, steps=4, progress=False, validation=False, crop=64, output=tmp_path / "model"
    )
    saved = AsymmetricMaskDenoiser.from_pretrained(tmp_path / "model")
    assert saved.fit_record["adaptation"] == student.fit_record["adaptation"]
    assert np.array_equal(saved.denoise(noisy), student.denoise(noisy))


def test_the_command(noisy: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    write_image(tmp_path / "noisy" / "one.png", ImageFile(noisy))
    unchanged().save_pretrained(tmp_path / "poor")
    arguments = ["rank", str(tmp_path / "noisy"), str(tmp_path / "poor"), "camera-small"]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "ranks.json")])
    assert done.exit_code == 0, done.output
    ranks = json.loads((tmp_path / "ranks.json").read_text())["ranks"]
    assert [rank["name"] for rank in ranks] == ["camera-small", str(tmp_path / "poor")]
    assert "does not improve such pictures" in " ".join(done.output.split())
    write_image(tmp_path / "noisy" / "one.tif", ImageFile(noisy.astype(np.float32)))
    (tmp_path / "noisy" / "one.png").unlink()
    floats = CliRunner().invoke(app, arguments)
    assert floats.exit_code == 2
    assert "cannot clean them for the test" in " ".join(floats.output.split())
    again = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "ranks.json")])
    assert again.exit_code == 2


def test_the_command_ranks_the_shipped_model_on_grey_pictures(
    noisy: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.png", ImageFile(noisy[..., 1]))
    done = CliRunner().invoke(app, ["rank", str(tmp_path / "in"), "camera-small"])
    assert done.exit_code == 0, done.output
    assert "camera-small" in done.output


def test_the_command_warns_of_models_that_the_test_favours(
    noisy: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.png", ImageFile(noisy))
    student = AsymmetricMaskDenoiser("fast-student", preset="student")
    student.fit_record = {"steps": 1, "learn_noise": {"rounds": 1}}
    student.save_pretrained(tmp_path / "taught")
    arguments = ["rank", str(tmp_path / "in"), str(tmp_path / "taught")]
    assert "favours" not in CliRunner().invoke(app, arguments).output
    text = " ".join(CliRunner().invoke(app, [*arguments, "camera-small"]).output.split())
    assert "the score favours such a model" in text


def test_pictures_on_another_scale_are_told() -> None:
    model = AsymmetricMaskDenoiser("fast-student", preset="student").eval()
    with pytest.raises(DataError, match=r"values from 0.* to 25.*value_range"):
        rank_models({"one": model}, 255 * np.random.default_rng(0).random((64, 64, 3)))
    for models in ([model], {"one": "camera-small"}):
        with pytest.raises(SettingError, match="denoisers by name"):
            rank_models(models, np.zeros((64, 64, 3)))  # type: ignore[arg-type]

"""Students: the training loop on pairs, distillation, the command, and the student's network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

from masked_denoise import (
    AsymmetricMaskDenoiser,
    NothingHidden,
    create_backbone,
    from_pretrained,
)
from masked_denoise.backbones.cost import cost
from masked_denoise.errors import DataError, SettingError, SizeError, UnknownNameError
from masked_denoise.training import distill as distillation
from masked_denoise.training.student import joined, train_student

TINY: dict[str, Any] = {"widths": (8, 8), "blocks": (1, 1)}
QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "validation": False}


class Halved(nn.Module):
    """A teacher that is known: its output is its input times a half."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, image: Tensor) -> Tensor:
        return image * self.weight


def halving(channels: int = 1, **settings: Any) -> AsymmetricMaskDenoiser:
    return AsymmetricMaskDenoiser(
        Halved(), channels=channels, scheme=NothingHidden(blind=False), residual=False,
        observation=0.0, chroma_radius=0, dct_threshold=0.0, turns=False, passes=2, **settings,
    )  # fmt: skip


def student(channels: int = 1, seed: int = 0) -> AsymmetricMaskDenoiser:
    torch.manual_seed(seed)
    return AsymmetricMaskDenoiser(
        "fast-student", channels=channels, preset="student", backbone_args=TINY
    )


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def weights(denoiser: AsymmetricMaskDenoiser) -> Tensor:
    return torch.cat([p.detach().flatten() for p in denoiser.backbone.parameters()])


# -- the network ----------------------------------------------------------------------------------


def test_the_network_keeps_to_what_it_may_cost() -> None:
    spent = cost("fast-student")
    assert spent.parameters <= 1_200_000
    assert spent.macs_per_pixel <= 100_000


def test_the_correction_starts_at_zero_and_the_reach_is_right() -> None:
    network = create_backbone("fast-student", **TINY).double()
    image = noise(1, 3, 96, 96).double().requires_grad_()
    assert bool((network(image) == 0).all())
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.01, 0.02)
    reach, seen = network.reach, 0
    for row, col in ((48, 48), (47, 45)):
        (gradient,) = torch.autograd.grad(network(image)[0, 0, row, col], image)
        places = gradient[0].abs().sum(0).nonzero() - torch.tensor([row, col])
        seen = max(seen, int(places.abs().max()))
    assert reach - 4 <= seen <= reach < 48


@pytest.mark.parametrize(
    "wrong", [{"widths": (8,)}, {"widths": (), "blocks": ()}, {"blocks": (0,)}]
)
def test_wrong_widths(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        create_backbone("fast-student", **wrong)


def test_large_images_have_no_seams() -> None:
    made = student()
    for parameter in made.backbone.parameters():
        nn.init.uniform_(parameter, -0.1, 0.2)
    image = noise(1, 120, 90)
    whole = made.denoise(image)
    assert torch.allclose(made.denoise(image, tile=32), whole, atol=1e-5)
    assert not torch.allclose(whole, image, atol=1e-2)


# -- training on pairs ----------------------------------------------------------------------------


def test_a_student_learns_its_targets() -> None:
    noisy = noise(2, 1, 32, 32)
    made = train_student(
        student(), [(noisy, noisy / 2)], steps=60, learning_rate=5e-3, warmup_steps=0,
        ema_decay=0.0, **QUIET,
    )  # fmt: skip
    before = float((noisy / 2).square().mean())
    after = float((made.denoise(noisy) - noisy / 2).square().mean())
    assert after < 0.2 * before


def test_the_first_loss_is_the_distance_of_the_pairs() -> None:
    noisy = noise(2, 3, 16, 16)
    for loss, distance in (("l1", 0.25), ("l2", 0.0625)):
        made = train_student(student(3), [(noisy, noisy + 0.25)], steps=1, loss=loss, **QUIET)
        assert made.history[0]["loss"] == pytest.approx(distance, rel=1e-5)


def test_pairs_from_loader_list_and_generator_train_alike() -> None:
    noisy, target = noise(4, 1, 16, 16), noise(4, 1, 16, 16, seed=1)
    batches = [(noisy[:2], target[:2]), (noisy[2:], target[2:])]

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from batches

    loader = DataLoader(TensorDataset(noisy, target), batch_size=2)
    made = [train_student(student(), pairs, steps=3, **QUIET) for pairs in (batches, loader)]
    made.append(train_student(student(), endless(), steps=3, **QUIET))
    assert torch.equal(weights(made[0]), weights(made[1]))
    assert torch.equal(weights(made[0]), weights(made[2]))
    assert not torch.equal(weights(made[0]), weights(student()))


def test_values_outside_the_range_are_left_alone() -> None:
    noisy = 4 * noise(2, 1, 16, 16) - 2
    made = train_student(student(), [(noisy, noisy)], steps=1, loss="l1", **QUIET)
    assert made.value_range is None
    assert made.history[0]["loss"] == 0


def test_without_validation_the_score_is_the_psnr_to_the_targets() -> None:
    noisy = noise(2, 1, 16, 16)
    made = train_student(
        student(), [(noisy, noisy + 0.1)], steps=1, learning_rate=1e-12, progress=False
    )
    assert made.history[-1]["score"] == pytest.approx(20, abs=0.01)


def test_a_run_on_pairs_resumes_bit_for_bit(tmp_path: Path) -> None:
    pairs = [(noise(1, 1, 16, 16, seed=k), noise(1, 1, 16, 16, seed=9)) for k in range(3)]
    whole = train_student(student(), pairs, steps=4, **QUIET)

    def stop(entry: dict[str, Any]) -> None:
        if entry["step"] == 2:
            raise KeyboardInterrupt

    settings = {**QUIET, "output": tmp_path, "save_every": 2, "steps": 4}
    train_student(student(), pairs, callback=stop, **settings)
    again = train_student(student(seed=5), pairs, resume=True, **settings)
    assert torch.equal(weights(again), weights(whole))


@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        (5, DataError),
        ([torch.zeros(2, 1, 8, 8)], DataError),
        ([(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9))], SizeError),
        ([(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))], SizeError),
        ([], DataError),
    ],
)
def test_wrong_pairs(pairs: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        train_student(student(), pairs, steps=1, **QUIET)


def test_wrong_students_and_settings() -> None:
    pairs = [(noise(1, 1, 16, 16), noise(1, 1, 16, 16))]
    with pytest.raises(UnknownNameError, match="did you mean 'steps'"):
        train_student(student(), pairs, step=1)
    with pytest.raises(SettingError, match="preset='student'"):
        train_student(AsymmetricMaskDenoiser(Halved(), channels=1), pairs, steps=1)
    with pytest.raises(SettingError, match="copy"):
        student().fit(noise(1, 32, 32), steps=1, **QUIET)


def test_joined_pairs_keep_their_length() -> None:
    pairs = [(noise(1, 1, 8, 8), noise(1, 1, 8, 8))] * 3
    assert len(joined(pairs, 1)) == 3  # type: ignore[arg-type]
    assert [batch.shape[1] for batch in joined(iter(pairs), 1)] == [2, 2, 2]


# -- distillation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_targets_are_the_teachers(dtype: str) -> None:
    picture = noise(20, 24, 3).numpy()
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    picture = (picture * top).astype(dtype)
    pair = distillation._with_target(np.moveaxis(picture, 2, 0), halving(3).denoise)
    scale = 65535 if top > 1 else 1
    assert pair.shape == (6, 20, 24)
    assert pair.dtype == ("uint16" if top > 1 else "float32")
    np.testing.assert_allclose(pair[:3] / scale, np.moveaxis(picture, 2, 0) / top, atol=1e-7)
    np.testing.assert_allclose(pair[3:] / scale, pair[:3] / scale / 2, atol=1e-5)


def test_a_student_learns_from_its_teacher_and_the_teacher_stays() -> None:
    pictures = [(noise(40, 48, seed=k).numpy() * 255).astype(np.uint8) for k in range(2)]
    teacher = halving()
    before = weights(teacher).clone()
    made = teacher.distill(
        pictures, student_args=TINY, steps=60, crop=32, learning_rate=5e-3, warmup_steps=0,
        ema_decay=0.0, **QUIET,
    )  # fmt: skip
    wanted, got = (one.denoise(pictures[0]).astype(float) for one in (teacher, made))
    assert np.abs(got - wanted).mean() < 0.4 * np.abs(pictures[0] - wanted).mean()
    assert torch.equal(weights(teacher), before)
    assert (made.passes, made.stride, made.observation, made.chroma_radius) == (1, 1, 0, 0)
    told = made.fit_record["distillation"]
    assert (told["teacher_passes"], told["rounds"], told["megapixels"]) == (2, 1, 0.004)


def test_a_new_student_has_the_cosine_threshold_of_its_teacher() -> None:
    teacher = AsymmetricMaskDenoiser(Halved(), channels=1, dct_threshold=0.04)
    plan: dict[str, Any] = {"steps": 1, "crop": 16, **QUIET}
    assert teacher.distill(noise(1, 32, 32), student_args=TINY, **plan).dct_threshold == 0.04
    own = student()
    assert teacher.distill(noise(1, 32, 32), student=own, **plan).dct_threshold == 0


def test_rounds_move_the_targets_half_way() -> None:
    noisy = np.full((1, 8, 8), 40_000, np.uint16)
    pairs = [np.concatenate([noisy, noisy])]
    distillation._mix_in(pairs, halving(), 0.5, 2)
    assert pairs[0].dtype == np.uint16
    assert np.all(pairs[0][0] == 40_000)
    assert np.all(pairs[0][1] == 30_000)


def test_rounds_share_the_budget() -> None:
    made = halving().distill(
        noise(1, 32, 32), student_args=TINY, steps=5, rounds=2, crop=16, **QUIET
    )
    assert made.fit_record["steps"] == 3
    assert made.fit_record["distillation"]["rounds"] == 2


def test_a_loader_is_read_as_far_as_needed() -> None:
    count = 0

    def batches() -> Iterator[Tensor]:
        nonlocal count
        while True:
            count += 1
            yield noise(2, 1, 32, 32, seed=count)

    halving().distill(
        batches(), student_args=TINY, steps=1, crop=16, megapixels=6 * 1024 / 1e6, **QUIET
    )
    assert count == 3


def test_a_student_is_saved_and_loaded_like_any_model(tmp_path: Path) -> None:
    image = noise(1, 33, 41)
    made = halving().distill(image, student_args=TINY, steps=2, output=tmp_path, **QUIET)
    again = from_pretrained(tmp_path)
    assert torch.equal(again.denoise(image), made.denoise(image))
    assert again.fit_record["distillation"]["teacher_passes"] == 2
    assert again.scheme.settings() == {"blind": False}
    folder = made.save_pretrained(tmp_path / "again")
    assert torch.equal(from_pretrained(folder).denoise(image), made.denoise(image))
    further = halving().distill(image, student=again, steps=1, **QUIET)
    assert further is again


def test_a_student_predicts_bad_pixels_without_seeing_them() -> None:
    made = student()
    image = noise(1, 32, 32)
    image[0, 5, 6] = float("nan")
    result = made.denoise(image, nan="mask")
    assert bool(result.isfinite().all())
    around = image[0, 4:7, 5:8].flatten()
    assert float(result[0, 5, 6]) == pytest.approx(float(around[around.isfinite()].mean()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0}, {"megapixels": 0}, {"student": "fast-studen"}, {"stepz": 3},
        {"rounds": 2, "resume": "x"}, {"student": "fast-unet", "student_args": {"width": 3}},
    ],
)  # fmt: skip
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises((SettingError, UnknownNameError)):
        halving().distill(noise(1, 32, 32), **{"steps": 1, **QUIET, **wrong})


def test_a_student_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingError, match="alike"):
        halving().distill(noise(1, 32, 32), student=student(3), steps=1, **QUIET)
    with pytest.raises(DataError):
        halving().distill(7, steps=1, **QUIET)


def test_the_command(tmp_path: Path) -> None:
    from masked_denoise.cli import app
    from masked_denoise.images import ImageFile, read_image, write_image

    (tmp_path / "noisy").mkdir()
    for k in range(2):
        pixels = (noise(40, 40, 3, seed=k).numpy() * 255).astype(np.uint8)
        write_image(tmp_path / "noisy" / f"{k}.png", ImageFile(pixels))
    teacher = AsymmetricMaskDenoiser("fast-unet", passes=2, backbone_args={"widths": (4, 8)})
    teacher.save_pretrained(tmp_path / "teacher")
    base = ["distill", str(tmp_path / "noisy"), "-m", str(tmp_path / "teacher"), "--device", "cpu"]
    out = str(tmp_path / "fast")
    said = CliRunner().invoke(app, [*base, "-o", out, "--steps", "2", "--crop", "32", "-q"])
    assert said.exit_code == 0, said.output
    made = from_pretrained(out)
    assert made.passes == 1
    assert made.backbone_name == "fast-student"
    target = tmp_path / "clean.png"
    said = CliRunner().invoke(
        app, ["denoise", str(tmp_path / "noisy" / "0.png"), "-o", str(target), "-m", out]
    )
    assert said.exit_code == 0, said.output
    assert read_image(target).pixels.shape == (40, 40, 3)
    said = CliRunner().invoke(app, [*base, "-o", out, "--steps", "2"])
    assert said.exit_code == 2
    assert "--resume, or --overwrite" in said.output

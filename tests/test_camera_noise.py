"""Simulated camera noise has the level, the correlation and the colours that it was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from masked_denoise.camera_noise import CameraNoise, _field
from masked_denoise.colour import YCBCR
from masked_denoise.errors import SettingError, SizeError

GREY = torch.full((3, 512, 512), 0.5)


def _planes(noise: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ij,jhw->ihw", torch.tensor(YCBCR), noise)


def _correlation(plane: torch.Tensor, distance: int) -> float:
    plane = plane - plane.mean()
    return float((plane[:, distance:] * plane[:, :-distance]).mean() / plane.square().mean())


@pytest.mark.parametrize("size", [(512, 512), (301, 256), (256, 301)])
@pytest.mark.parametrize("blur", [0.0, 0.8, 2.0])
def test_field_has_unit_variance_and_gaussian_correlation(
    size: tuple[int, int], blur: float
) -> None:
    field = _field([(1.0, blur)], size, np.random.default_rng(0))
    assert field.shape == size
    assert float(field.square().mean()) == pytest.approx(1, abs=0.06)
    for distance in (1, 3):
        wanted = np.exp(-(distance**2) / (4 * blur**2)) if blur else 0.0
        assert _correlation(field, distance) == pytest.approx(wanted, abs=0.06)


def test_level_and_share_of_chroma_are_as_told() -> None:
    noise = CameraNoise(sigma=(0.03, 0.03), chroma=(0.4, 0.4))
    random = np.random.default_rng(1)
    planes = torch.stack([_planes(noise.draw(GREY, random)) for _ in range(12)])
    luma, first, second = planes.square().mean((0, 2, 3)).sqrt().tolist()
    assert luma == pytest.approx(0.03, rel=0.5)  # the level at one brightness, 1 on average
    assert np.sqrt(first * second) / luma == pytest.approx(0.4, rel=0.5)


def test_chroma_is_wider_than_luma() -> None:
    noise = CameraNoise(grain=(0.5, 0.5), blotches=(3, 3), coarse=(0, 0))
    random = np.random.default_rng(2)
    fields = [_planes(noise.draw(GREY, random)) for _ in range(8)]
    luma, chroma = (np.median([_correlation(one[k], 3) for one in fields]) for k in (0, 1))
    assert luma < 0.1 < 0.5 < chroma


def test_noise_depends_on_brightness() -> None:
    ramp = torch.linspace(0, 1, 512).expand(3, 512, 512)
    random = np.random.default_rng(3)
    noise = CameraNoise(uncompressed=1.0)
    ratios = []
    for _ in range(6):
        level = noise.draw(ramp, random).square().mean((0, 1)).sqrt().reshape(8, 64).mean(1)
        ratios.append(float(level.max() / level.min()))
    assert min(ratios) > 1.2


def test_same_state_same_picture_and_other_state_another() -> None:
    noise = CameraNoise()
    clean = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    first, again, other = (noise.add(clean, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == clean.shape
    assert bool(((first >= 0) & (first <= 1)).all())
    assert torch.allclose(first * 255, (first * 255).round(), atol=1e-4)


def test_jpeg_smooths_what_uncompressed_keeps() -> None:
    flat = torch.full((1, 256, 256), 0.5)
    rough = {"sigma": (0.008, 0.008), "grain": (0.0, 0.0), "coarse": (0.0, 0.0)}
    kept = CameraNoise(**rough, uncompressed=1.0).add(flat, np.random.default_rng(0))
    smoothed = CameraNoise(**rough, uncompressed=0.0, quality=(30, 30)).add(
        flat, np.random.default_rng(0)
    )
    assert float(smoothed.std()) < 0.8 * float(kept.std())


@pytest.mark.parametrize("shape", [(2, 8, 8), (8, 8), (3, 1, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SizeError, match="is needed"):
        CameraNoise().add(torch.zeros(shape), np.random.default_rng(0))


@pytest.mark.parametrize(
    "wrong", [{"sigma": (0.0, 0.1)}, {"chroma": (0.5, 0.2)}, {"uncompressed": 1.5},
              {"quality": (50, 101)}, {"coarse": (0.1, 1.1)}]
)  # fmt: skip
def test_wrong_ranges_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        CameraNoise(**wrong)  # type: ignore[arg-type]


def test_flat_areas_have_less_noise() -> None:
    image = torch.full((3, 256, 256), 0.5)
    stripes = torch.arange(256).div(4, rounding_mode="floor").remainder(2)
    image[:, :, 128:] += 0.4 * (stripes[128:] - 0.5)
    ratios = []
    for flat in ((0.3, 0.3), (1.0, 1.0)):
        noise = CameraNoise(flat=flat, contrast=(0.02, 0.02)).draw(image, np.random.default_rng(4))
        left, right = (float(noise[..., part].std()) for part in (slice(112), slice(144, None)))
        ratios.append(left / right)
    assert ratios[0] < 0.5 * ratios[1]
    even = CameraNoise(flat=(0.3, 0.3)).draw(GREY, np.random.default_rng(5))
    full = CameraNoise(flat=(1.0, 1.0)).draw(GREY, np.random.default_rng(5))
    assert torch.allclose(even, 0.3 * full)


def test_white_noise_is_independent_and_equally_strong() -> None:
    noise = CameraNoise(white=1.0, sigma=(0.1, 0.1)).draw(GREY, np.random.default_rng(6))
    assert noise.std((1, 2)).tolist() == pytest.approx([0.1] * 3, rel=0.02)
    assert abs(_correlation(noise[0], 1)) < 0.01
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.01
    grey = CameraNoise(white=1.0).draw(GREY[:1], np.random.default_rng(6))
    assert grey.shape == (1, 512, 512)


def test_second_compression_smooths_once_more() -> None:
    rough = {"sigma": (0.008, 0.008), "grain": (0.0, 0.0), "coarse": (0.0, 0.0)}
    once, twice = (
        CameraNoise(**rough, quality=(96, 96), uncompressed=0.0, twice=share)
        for share in (0.0, 1.0)
    )
    clean = GREY[:, :200, :184].clone()
    clean[:, 50:, 60:] = 0.8
    first, second = (each.add(clean, np.random.default_rng(7)) for each in (once, twice))
    assert first.shape == second.shape
    fine = [float((one[:, 1:50] - one[:, :49]).square().mean()) for one in (first, second)]
    assert fine[1] < 0.9 * fine[0]
    moved = (second - first).abs().mean((0, 1)).topk(8).values
    assert float(moved.max()) < 0.1  # the edge lies where it was


@pytest.mark.parametrize(
    "wrong", [{"flat": (0.5, 1.2)}, {"contrast": (0.0, 0.1)}, {"white": 1.5}, {"twice": -0.1}]
)
def test_new_ranges_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        CameraNoise(**wrong)  # type: ignore[arg-type]

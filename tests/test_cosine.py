"""Small coefficients of cosine transforms: what goes, what stays, seams, sizes, where it is set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from masked_denoise import AsymmetricMaskDenoiser, cosine, from_pretrained, inference
from masked_denoise.cosine import (
    AMPLE,
    BLIND,
    CALM,
    LOUD,
    LUMA_WINDOWS,
    PHOTOGRAPHS,
    SEEING,
    SHARE,
    Limit,
    threshold_cosines,
)
from masked_denoise.errors import SettingError, WeightsError
from masked_denoise.sharpness import sharpness


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def waves(side: int) -> np.ndarray:
    """The orthonormal cosine transform (DCT-II), a row a frequency."""
    place = np.arange(side)
    rows = np.cos(np.pi * (2 * place + 1) * place[:, None] / (2 * side))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def by_windows(image: np.ndarray, threshold: float, side: int, step: int) -> np.ndarray:
    """The definition, window by window, of one channel."""
    edge = side - step
    ends = [edge + -length % step for length in image.shape]
    padded = np.pad(image, [(edge, ends[0]), (edge, ends[1])], mode="reflect")
    total, weights = np.zeros_like(padded), np.zeros_like(padded)
    for row in range(0, padded.shape[0] - side + 1, step):
        for col in range(0, padded.shape[1] - side + 1, step):
            at = (slice(row, row + side), slice(col, col + side))
            found = waves(side) @ padded[at] @ waves(side).T
            kept = np.where(np.abs(found) > threshold, found, 0)
            kept[0, 0] = found[0, 0]
            weight = 1 / max(np.count_nonzero(kept), 1)
            total[at] += weight * (waves(side).T @ kept @ waves(side))
            weights[at] += weight
    height, width = image.shape
    return (total / weights)[edge : edge + height, edge : edge + width]


@pytest.mark.parametrize("size", [(40, 33), (32, 57)])
@pytest.mark.parametrize("level", [0.02, 0.2])
def test_against_its_definition_in_loops(size: tuple[int, int], level: float) -> None:
    image = 0.5 + 0.1 * noise(1, 1, *size).double()
    rest = level * noise(1, 1, *size, seed=1).double()
    result = threshold_cosines(image, image + rest, threshold=0.15, limit=None)
    offset = np.sort((rest - rest.mean()).abs().numpy().ravel())
    removed = np.sqrt(3) * 1.4826 * offset[(offset.size - 1) // 2]
    share = min(SHARE, 0.15 / (AMPLE * removed))
    assert (share < SHARE) == (level == 0.2)  # both cases are tried
    mixed = (image + share * rest)[0, 0].numpy()
    least = 0.15 * max(1, removed / LOUD) / np.sqrt(3)
    kinds = [by_windows(mixed, least, side, step) for side, step in LUMA_WINDOWS]
    np.testing.assert_allclose(result[0, 0].numpy(), np.mean(kinds, axis=0), atol=1e-9)


def test_texture_that_was_taken_for_noise_comes_back() -> None:
    stripes = 0.02 * torch.sin(torch.arange(96) * 1.3).expand(1, 3, 96, 96)
    clean = 0.5 + stripes
    noisy = clean + 0.006 * noise(1, 3, 96, 96)
    result = threshold_cosines(0.5 + 0.5 * stripes, noisy, threshold=PHOTOGRAPHS)
    share = float(((result - 0.5) * stripes).sum() / stripes.square().sum())
    assert 0.6 < share < 0.5 + 0.5 * SHARE
    assert float((result - 0.5 - share * stripes).std()) < 0.2 * 0.006  # and little of the noise


def colour(amount: Tensor) -> Tensor:
    """Red against blue, of constant brightness: (B, 3, H, W)."""
    return 0.5 + amount * torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)


def test_blotches_of_colour_go_and_a_coloured_speck_stays() -> None:
    fine = 0.02 * noise(1, 3, 128, 128)
    coarse = F.interpolate(noise(1, 1, 16, 16, seed=1), scale_factor=8.0, mode="bicubic")
    speck = torch.zeros(1, 1, 128, 128)
    speck[..., 60:64, 60:64] = 0.3
    image = colour(0.005 * coarse + speck)
    result = threshold_cosines(image, image + fine, threshold=PHOTOGRAPHS)
    red = (result - result.mean((2, 3), keepdim=True))[:, 0]
    away = (speck == 0)[:, 0]
    assert float(red[away].std()) < 0.4 * 0.005 * float(coarse.std())
    assert float(red[~away].mean()) > 0.25


@pytest.mark.parametrize("size", [(63, 40), (64, 41), (37, 35)])
def test_colour_keeps_its_place_where_sides_are_odd(size: tuple[int, int]) -> None:
    rows, cols = torch.meshgrid(*(torch.arange(side) / side for side in size), indexing="ij")
    image = colour((0.2 * rows - 0.1 * cols)[None, None])
    noisy = image + 0.02 * noise(1, 3, *size)
    result = threshold_cosines(image, noisy, threshold=PHOTOGRAPHS)
    assert float((result - image).abs().max()) < 0.02


def test_faint_noise_goes_and_edges_stay() -> None:
    clean = torch.zeros(1, 3, 96, 96)
    clean[..., 40:] = torch.tensor([0.9, 0.4, 0.2]).view(1, 3, 1, 1)
    rest = 0.01 * noise(1, 3, 96, 96)
    noisy = clean + 0.08 * noise(1, 3, 96, 96, seed=1)
    result = threshold_cosines(clean + rest, noisy, threshold=PHOTOGRAPHS, limit=None)
    left = (result - clean)[..., [*range(36), *range(44, 96)]]  # the edge is at 40
    assert float(left.square().mean()) < 0.1 * float(rest.square().mean())
    assert float((result - clean).abs().max()) < 0.07


def test_a_picture_that_was_clean_stays() -> None:
    texture = 0.5 + 0.01 * noise(1, 3, 64, 64)
    untouched = threshold_cosines(texture, texture, threshold=PHOTOGRAPHS)
    torch.testing.assert_close(untouched, texture, atol=1e-5, rtol=0)
    little = texture + 0.004 * noise(1, 3, 64, 64, seed=1)
    kept = threshold_cosines(texture, little, threshold=PHOTOGRAPHS)
    assert float((kept - texture).std()) < 1.1 * SHARE * 0.004  # what was put back of the noise
    much = texture + 0.04 * noise(1, 3, 64, 64, seed=1)
    gone = threshold_cosines(texture, much, threshold=PHOTOGRAPHS)
    assert float((gone - texture).std()) > 0.5 * float(texture.std())


def test_grey_is_what_equal_colours_give() -> None:
    image = torch.rand(2, 1, 40, 52)
    noisy = image + 0.05 * noise(2, 1, 40, 52)
    colours = [one.expand(-1, 3, -1, -1) for one in (image, noisy)]
    expected = threshold_cosines(*colours, threshold=0.1).mean(1, keepdim=True)
    torch.testing.assert_close(threshold_cosines(image, noisy, threshold=0.1), expected)


def test_no_threshold_changes_nothing() -> None:
    image = torch.rand(2, 4, 21, 30)
    torch.testing.assert_close(threshold_cosines(image, image + noise(1), threshold=0), image)


def test_every_image_and_channel_of_a_batch_stands_alone() -> None:
    image = torch.rand(2, 2, 40, 40)
    noisy = image + torch.tensor([0.01, 0.1]).view(2, 1, 1, 1) * noise(2, 2, 40, 40)
    both = threshold_cosines(image, noisy, threshold=0.2)
    for k in range(2):
        one = threshold_cosines(image[k : k + 1], noisy[k : k + 1], threshold=0.2)
        torch.testing.assert_close(both[k : k + 1], one)
        grey = threshold_cosines(image[:, k : k + 1], noisy[:, k : k + 1], threshold=0.2)
        torch.testing.assert_close(both[:, k : k + 1], grey)


def test_pieces_give_the_same_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 3, 100, 75)
    noisy = image + 0.2 * noise(1, 3, 100, 75)
    whole = threshold_cosines(image, noisy, threshold=0.1)
    monkeypatch.setattr(cosine, "TILE", 24)
    torch.testing.assert_close(threshold_cosines(image, noisy, threshold=0.1), whole)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 2, 40), (0, 3, 20, 20), (1, 2, 3, 5)])
def test_small_images(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    result = threshold_cosines(image, image + 0.1, threshold=0.05)
    assert result.shape == shape
    assert bool(result.isfinite().all())


def test_thresholds_that_cannot_be() -> None:
    image = torch.rand(1, 1, 20, 20)
    with pytest.raises(SettingError, match=r"threshold is -0\.1"):
        threshold_cosines(image, image, threshold=-0.1)
    for value in (-0.1, 2, float("nan"), "0.1"):
        with pytest.raises(SettingError, match=r"dct_threshold is .* from 0 to 1"):
            AsymmetricMaskDenoiser(dct_threshold=value)  # type: ignore[arg-type]


# -- in a denoiser ----------------------------------------------------------------------------


def make(**settings: Any) -> AsymmetricMaskDenoiser:
    torch.manual_seed(0)
    small: dict[str, Any] = {"backbone_args": {"widths": (4, 8)}, "passes": 1}
    return AsymmetricMaskDenoiser(**{**small, **settings}).eval()


def test_denoise_thresholds_its_result() -> None:
    image = torch.rand(3, 48, 40)
    bare = make(dct_threshold=0.0).denoise(image)
    expected = threshold_cosines(bare[None], image[None], threshold=0.1)[0]
    torch.testing.assert_close(make(dct_threshold=0.1).denoise(image), expected)
    half = make(dct_threshold=0.1).denoise(image, strength=0.5)
    torch.testing.assert_close(half, (expected + image) / 2)


def test_who_thresholds() -> None:
    assert make().dct_threshold == PHOTOGRAPHS
    assert from_pretrained("camera-small").dct_threshold == 0.055
    for preset in ("independent", "student", "amsnet"):
        assert make(preset=preset).dct_threshold == 0


@pytest.mark.parametrize(("given", "expected"), [(None, PHOTOGRAPHS), (0.0, 0.0), (0.1, 0.1)])
def test_students_of_photographs_threshold(given: float | None, expected: float) -> None:
    student = AsymmetricMaskDenoiser(
        "fast-student", preset="student", dct_threshold=given,
        backbone_args={"widths": (8, 12), "blocks": (1, 1)},
    )  # fmt: skip
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    student.learn_noise(picture, steps=1, crop=32, progress=False)
    assert student.dct_threshold == expected


def test_it_is_stored_and_older_models_have_none(tmp_path: Path) -> None:
    make(dct_threshold=0.02).save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).dct_threshold == 0.02
    place = tmp_path / "config.json"
    config = json.loads(place.read_text())
    place.write_text(json.dumps({**config, "dct_threshold": 3}))
    with pytest.raises(WeightsError, match="dct_threshold"):
        from_pretrained(tmp_path)
    del config["dct_threshold"]
    place.write_text(json.dumps(config))
    assert from_pretrained(tmp_path).dct_threshold == 0


def _framed(image: Tensor, shade: float) -> Tensor:
    """The picture with a frame below it that fills two thirds of the whole."""
    return torch.cat([image, torch.full_like(image.repeat(1, 1, 2, 1), shade)], dim=2)


@pytest.mark.parametrize("shade", [0.0, 1.0])
@pytest.mark.parametrize("size", [96, 600])  # of larger ones, some rows and columns are looked at
def test_a_frame_without_noise_changes_nothing_inside(shade: float, size: int) -> None:
    rest = 0.03 * noise(1, 3, size, 96)
    clean = 0.5 + 0.1 * rest
    inside = threshold_cosines(clean, 0.5 + rest, threshold=PHOTOGRAPHS)
    whole = threshold_cosines(
        _framed(clean, shade), _framed(0.5 + rest, shade), threshold=PHOTOGRAPHS
    )
    far = slice(0, size - 32)  # from windows that see the frame
    assert float((whole[:, :, far][..., :96] - inside[:, :, far]).abs().max()) < 0.002
    assert float(inside.std()) < 0.2 * float(clean.std())  # and the step does something


def test_no_more_is_removed_than_noise() -> None:
    texture = 0.05 * noise(1, 3, 96, 96, seed=3)
    texture[:, :, :, :64] = 0  # a third of the picture has some
    noisy = 0.5 + texture + 0.005 * noise(1, 3, 96, 96)
    flat = torch.full_like(noisy, 0.5)  # a network that takes all of it for noise
    kept, lost = (
        threshold_cosines(flat, noisy, threshold=PHOTOGRAPHS, limit=limit)
        for limit in (SEEING, None)
    )
    there = (slice(None), slice(None), slice(16, 80), slice(72, 88))
    share = [float(((one - 0.5) * texture)[there].sum() / texture[there].square().sum())
             for one in (kept, lost)]  # fmt: skip
    assert share[0] > 0.7
    assert share[0] > share[1] + 0.2
    assert float((kept - 0.5)[..., :48].std()) < 0.002  # and the noise is gone elsewhere


def _picture(*, smooth: bool) -> Tensor:
    """Squares of many shades, as they are or as through a lens: (1, 3, 128, 160)."""
    shades = 0.5 + 0.2 * noise(1, 1, 16, 20, seed=5).clamp(-1, 1)
    large = shades.repeat_interleave(8, 2).repeat_interleave(8, 3)
    if smooth:
        large = F.avg_pool2d(F.avg_pool2d(F.pad(large, [4] * 4, mode="reflect"), 5, 1), 5, 1)
    return large.expand(1, 3, -1, -1)


def _sharpness(image: Tensor) -> float:
    luma = image.mean(1, keepdim=True)
    return float(sharpness(luma, luma + 0.01 * noise(*luma.shape)))


def test_sharp_pictures_are_told_from_smooth_ones() -> None:
    sharp, smooth = (_picture(smooth=one) for one in (False, True))
    assert _sharpness(sharp) > max(SEEING.last, BLIND.last)
    assert _sharpness(smooth) < min(SEEING.first, BLIND.first)
    assert abs(_sharpness(0.5 + 0.5 * (sharp - 0.5)) - _sharpness(sharp)) < 0.05  # of any contrast
    assert abs(_sharpness(sharp.repeat(1, 1, 5, 4)) - _sharpness(sharp)) < 0.1  # of any size
    assert _sharpness(sharp[..., :23]) == 0  # too small to tell
    both = torch.cat([sharp, smooth]).mean(1, keepdim=True)
    noisy = both + 0.01 * noise(*both.shape)
    alone = [sharpness(both[k : k + 1], noisy[k : k + 1]) for k in range(2)]
    torch.testing.assert_close(sharpness(both, noisy), torch.cat(alone))


def test_a_frame_makes_no_picture_sharp() -> None:
    luma = F.pad(_picture(smooth=True)[:, :1], (0, 0, 0, 64))
    everywhere = luma + 0.01 * noise(*luma.shape)
    framed = everywhere.clone()
    framed[:, :, 128:] = 0
    assert float(sharpness(luma, framed)) < SEEING.first
    assert float(sharpness(luma, everywhere)) > SEEING.first  # were it part of the picture


@pytest.mark.parametrize("limit", [SEEING, BLIND])
def test_less_is_removed_from_sharp_pictures(limit: Limit) -> None:
    left = []
    for smooth in (True, False):
        clean = _picture(smooth=smooth)
        texture = 0.03 * noise(1, 3, 128, 160, seed=7)
        texture[..., :80] = 0
        noisy = clean + texture + 0.01 * noise(1, 3, 128, 160)
        result = threshold_cosines(clean, noisy, threshold=PHOTOGRAPHS, limit=limit)
        left.append(float(((result - clean) * texture).sum() / texture.square().sum()))
        assert float((result - clean)[..., :64].std()) < 0.6 * 0.01  # noise goes from both
    assert left[1] > left[0] + 0.1


def test_texture_nearly_all_over_a_sharp_picture_is_not_noise() -> None:
    """A sixth of the picture is calm: too little for the calmest quarter to tell the noise."""
    sharp, texture = _picture(smooth=False), 0.03 * noise(1, 3, 128, 160, seed=7)
    texture[..., :26] = 0
    clean = sharp + texture
    noisy = clean + 0.01 * noise(1, 3, 128, 160)

    def error(limit: Limit) -> float:
        result = threshold_cosines(sharp, noisy, threshold=PHOTOGRAPHS, limit=limit)
        return float((result - clean).std())

    assert error(SEEING) < 0.75 * error(SEEING._replace(calm=CALM))


def test_a_masked_network_does_not_blur_sharp_pictures_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An untrained one gives each pixel the mean of its neighbours."""
    clean = _picture(smooth=False)[0].clone()
    clean[:, :, :64] = 0.5  # a calm place, which tells how much noise there is
    noisy = clean + 0.01 * noise(3, 128, 160)
    denoiser = AsymmetricMaskDenoiser("fast-unet", dct_threshold=PHOTOGRAPHS).eval()

    def error() -> float:
        return float((denoiser.denoise(noisy) - clean).std())

    limited = error()
    monkeypatch.setattr(inference, "BLIND", None)
    assert limited < 0.5 * error()


def test_pictures_without_any_noise_are_left_alone() -> None:
    shade = torch.full((1, 3, 64, 64), 0.5)
    assert torch.allclose(threshold_cosines(shade, shade, threshold=0.1), shade, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_is_that_of_the_network_only(dtype: torch.dtype) -> None:
    denoiser = AsymmetricMaskDenoiser("fast-student", preset="student", dct_threshold=0.05).eval()
    picture = (0.5 + 0.05 * noise(3, 40, 48)).clamp(0, 1)
    wanted = denoiser.denoise(picture)
    with torch.autocast("cpu", dtype):
        for strength in (1.0, 0.5):
            assert denoiser.denoise(picture, strength=strength).dtype == torch.float32
        assert torch.allclose(denoiser.denoise(picture), wanted, atol=1e-6)  # its network gives 0
    batch = picture[None].to(dtype)
    result = denoiser.to(dtype)(torch.full_like(batch, 0.5))
    assert result.dtype == dtype
    assert torch.allclose(result.float(), torch.full_like(picture[None], 0.5), atol=1e-6)

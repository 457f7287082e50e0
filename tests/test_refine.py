"""R3: which pixels are put back, and what is done with the replaced images."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from masked_denoise import PixelDownsample, Refinement
from masked_denoise.errors import SettingError
from masked_denoise.hashing import Key, Purpose
from masked_denoise.ops.reference import refine, replacement
from masked_denoise.scheme import RandomPartition


def test_refine_is_the_mean_over_draws_of_the_replaced_images() -> None:
    generator = torch.Generator().manual_seed(0)
    image, denoised = torch.rand(2, 2, 3, 5, 4, generator=generator)
    replace = torch.rand(3, 2, 1, 5, 4, generator=generator) < 0.3
    seen = []

    def run(replaced: Tensor, draw: int) -> Tensor:
        seen.append((replaced.clone(), draw))
        return replaced * 2 + draw

    result = refine(image, denoised, run, replace)
    expected = torch.zeros_like(image)
    for draw in range(3):
        for n in range(2):
            for c in range(3):
                for i in range(5):
                    for j in range(4):
                        source = image if replace[draw, n, 0, i, j] else denoised
                        value = source[n, c, i, j]
                        assert seen[draw][0][n, c, i, j] == value
                        expected[n, c, i, j] += (value * 2 + draw) / 3
    torch.testing.assert_close(result, expected)
    assert [draw for _, draw in seen] == [0, 1, 2]


def test_one_mask_serves_a_whole_batch() -> None:
    image, denoised = torch.ones(4, 3, 6, 6), torch.zeros(4, 3, 6, 6)
    replace = torch.rand(1, 1, 1, 6, 6) < 0.5
    result = refine(image, denoised, lambda replaced, draw: replaced, replace)
    assert torch.equal(result, replace[0].float().expand(4, 3, 6, 6))


def test_inputs_are_left_alone_and_nan_is_selected_away() -> None:
    image, denoised = torch.full((1, 1, 4, 4), math.nan), torch.ones(1, 1, 4, 4)
    kept = denoised.clone()
    replace = torch.zeros(2, 1, 1, 4, 4).bool()
    assert torch.equal(refine(image, denoised, lambda x, draw: x, replace), kept)
    assert torch.equal(denoised, kept)


@pytest.mark.parametrize("share", [0.0, 0.16, 0.5, 0.99])
def test_share_of_replaced_pixels(share: float) -> None:
    for draw in range(3):
        replace = replacement((300, 300), 1, share, key=Key(5, 0, draw))
        assert replace.shape == (1, 1, 300, 300)
        found = float(replace.double().mean())
        assert abs(found - share) <= 4.5 * math.sqrt(share * (1 - share)) / 300


@pytest.mark.parametrize(
    ("draws", "share", "often"), [(4, 0.25, {1}), (4, 0.5, {2}), (8, 0.16, {1, 2})]
)
def test_balanced_draws_put_every_pixel_back_equally_often(
    draws: int, share: float, often: set[int]
) -> None:
    size = (120, 130)
    masks = [replacement(size, 1, share, key=Key(5, 0, t), draws=draws) for t in range(draws)]
    count = torch.stack(masks).sum(0)
    assert set(count.unique().tolist()) == often
    assert all(abs(float(m.float().mean()) - share) < 0.02 for m in masks)
    near = torch.stack(masks)[..., 1:] & torch.stack(masks)[..., :-1]
    assert abs(float(near.float().mean()) - share**2) < 0.01  # neighbours are independent


def test_replacement_depends_on_seed_draw_and_place() -> None:
    def draw(
        key: Key, origin: tuple[int, int] = (0, 0), size: tuple[int, int] = (64, 64)
    ) -> Tensor:
        return replacement(size, 1, 0.5, key=key, origin=origin)

    base = draw(Key(1, 0, 2))
    assert torch.equal(base, draw(Key(1, 0, 2)))
    assert not torch.equal(base, draw(Key(2, 0, 2)))
    assert not torch.equal(base, draw(Key(1, 0, 3)))
    assert torch.equal(base[:, :, 10:, 20:], draw(Key(1, 0, 2), (10, 20), (54, 44)))


@pytest.mark.parametrize("branches", [2, 3, 5])
def test_replacement_is_independent_of_the_masks(branches: int) -> None:
    """The pixels put back must not be those that one branch hides."""
    grid = PixelDownsample(1).grid(1, (400, 400))
    replace = replacement((400, 400), 1, 0.16, key=Key(3, Purpose.REFINE, 1))
    for purpose in (Purpose.INFER, Purpose.REFINE):
        label = RandomPartition(branches).label(grid, Key(3, purpose, 1))
        pair = torch.stack([replace.flatten().double(), (label == 0).flatten().double()])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / 400


def test_settings_out_of_range_are_refused() -> None:
    assert Refinement() == Refinement(draws=8, share=0.16, masked=True)
    for settings in ({"draws": 0}, {"share": 1.0}, {"share": -0.1}):
        with pytest.raises(SettingError, match="refinement with draws"):
            Refinement(**settings)  # type: ignore[arg-type]
    odd: tuple[dict[str, Any], ...]
    odd = {"share": math.nan}, {"share": "a"}, {"draws": 2.5}, {"masked": "no"}, {"balanced": 1}
    for settings in odd:
        with pytest.raises(SettingError, match=f"{next(iter(settings))} is"):
            Refinement(**settings)
    nothing = torch.zeros(0, 1, 1, 4, 4).bool()
    with pytest.raises(SettingError, match="at least one draw"):
        refine(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), lambda x, draw: x, nothing)

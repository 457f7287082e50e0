"""Chroma smoothing: what it changes, what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from masked_denoise.chroma import from_opponent, guided_filter, smooth_chroma, to_opponent
from masked_denoise.errors import SettingError, SizeError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_opponent_and_back() -> None:
    image = noise(2, 3, 5, 7)
    torch.testing.assert_close(from_opponent(to_opponent(image)), image)
    torch.testing.assert_close(to_opponent(image)[:, 0], image.mean(1))
    grey = image[:, :1].expand(-1, 3, -1, -1)
    assert to_opponent(grey)[:, 1:].abs().max() < 1e-6


def test_guided_filter_against_its_definition_in_loops() -> None:
    guide, image, radius, epsilon = noise(1, 1, 7, 6), noise(1, 2, 7, 6, seed=1), 2, 0.3
    slope, offset = torch.zeros(2, 7, 6), torch.zeros(2, 7, 6)

    def window(y: int, x: int) -> tuple[slice, slice]:
        return slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1)

    for y in range(7):
        for x in range(6):
            g = guide[0, 0][window(y, x)].flatten()
            for c in range(2):
                p = image[0, c][window(y, x)].flatten()
                covariance = (g * p).mean() - g.mean() * p.mean()
                slope[c, y, x] = covariance / (g.var(correction=0) + epsilon)
                offset[c, y, x] = p.mean() - slope[c, y, x] * g.mean()
    expected = torch.zeros(1, 2, 7, 6)
    for y in range(7):
        for x in range(6):
            for c in range(2):
                at = window(y, x)
                expected[0, c, y, x] = (
                    slope[c][at].mean() * guide[0, 0, y, x] + offset[c][at].mean()
                )
    actual = guided_filter(guide, image, radius=radius, epsilon=epsilon)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_blotches_go_and_luma_and_colour_edges_stay() -> None:
    luma = torch.full((1, 1, 64, 64), 0.5)
    luma[..., 32:] = 0.8
    clean_chroma = torch.zeros(1, 2, 64, 64)
    clean_chroma[..., 32:] = 0.2
    blotch = torch.nn.functional.avg_pool2d(noise(1, 2, 66, 66) * 0.06, 3, 1)
    clean = from_opponent(torch.cat([luma, clean_chroma], 1))
    noisy = from_opponent(torch.cat([luma, clean_chroma + blotch], 1))
    result = smooth_chroma(noisy, radius=8)
    torch.testing.assert_close(to_opponent(result)[:, :1], luma)
    assert (result - clean).square().mean() < 0.25 * (noisy - clean).square().mean()


def test_colour_detail_that_stands_out_of_the_noise_stays() -> None:
    noisy = from_opponent(
        torch.cat([torch.full((1, 1, 64, 64), 0.5), noise(1, 2, 64, 64) * 0.005], 1)
    )
    noisy[:, 0, 30:33, 30:33] += 0.3  # a red dot on grey of the same luma
    noisy[:, 2, 30:33, 30:33] -= 0.3
    result = smooth_chroma(noisy, radius=8)
    before, after = to_opponent(noisy)[0, 1, 31, 31], to_opponent(result)[0, 1, 31, 31]
    assert abs(before - after) < 0.03


def test_small_images_and_bad_ones() -> None:
    assert smooth_chroma(noise(2, 3, 1, 2), radius=8).shape == (2, 3, 1, 2)
    with pytest.raises(SizeError, match=r"\(B, 3, H, W\)"):
        smooth_chroma(noise(1, 4, 8, 8), radius=8)
    with pytest.raises(SettingError, match="radius 0"):
        guided_filter(noise(1, 1, 4, 4), noise(1, 1, 4, 4), radius=0, epsilon=1.0)


def test_images_of_a_batch_do_not_mix() -> None:
    batch = torch.cat([noise(1, 3, 16, 16) * 0.1, noise(1, 3, 16, 16, seed=3)])
    torch.testing.assert_close(
        smooth_chroma(batch, radius=4)[1:], smooth_chroma(batch[1:], radius=4)
    )


def test_large_images_in_pieces_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(2, 3, 150, 131, generator=torch.Generator().manual_seed(0))
    whole = smooth_chroma(image, radius=5)
    monkeypatch.setattr("masked_denoise.chroma.TILE", 32)
    assert torch.equal(smooth_chroma(image, radius=5), whole)


def test_a_frame_without_noise_does_not_switch_it_off() -> None:
    noisy = 0.5 + 0.05 * noise(1, 3, 64, 64)
    frame = torch.zeros(1, 3, 192, 64)
    whole = torch.cat([noisy, frame], dim=2)
    wanted = smooth_chroma(noisy, radius=4)[:, :, :48]
    result = smooth_chroma(whole, radius=4, noisy=whole)[:, :, :48]
    assert float((result - wanted).abs().max()) < 0.01
    assert not torch.allclose(smooth_chroma(whole, radius=4)[:, :, :48], wanted, atol=0.01)

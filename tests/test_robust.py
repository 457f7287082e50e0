"""Medians and quantiles of what carries noise, alike wherever they are computed."""

from __future__ import annotations

import pytest
import torch

from masked_denoise.robust import carries_noise, lower_median, lower_quantile


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("counts", ["all", "some", "one"])
def test_sorting_finds_what_partitioning_finds(share: float, counts: str) -> None:
    """As on a GPU, which a tensor that requires its gradient stands for."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 101, generator=generator)
    counted = None
    if counts == "some":
        counted = torch.rand(2, 1, 101, generator=generator) < 0.4
    elif counts == "one":
        counted = torch.arange(101).expand(2, 1, -1) == 17
    expected = lower_quantile(x, share, counted)
    assert torch.equal(lower_quantile(x.requires_grad_(), share, counted).detach(), expected)
    if counts == "one":
        assert torch.equal(expected, x[..., 17].detach())


def test_the_lower_of_two_middle_values() -> None:
    x = torch.tensor([[3.0, 1.0, 2.0, 4.0]])
    assert lower_median(x).tolist() == [2.0]
    assert lower_median(x.bfloat16()).tolist() == [2.0]


def test_frames_carry_no_noise() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:] = torch.rand(4, generator=torch.Generator().manual_seed(0))
    found = carries_noise(image)
    assert not found[..., :3].any()
    assert found[..., 4:].all()
    assert carries_noise(torch.zeros(1, 1, 8, 8)).all()

"""The spread of the passes that `denoise` returns beside the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from masked_denoise import AsymmetricMaskDenoiser, Checkerboard, RandomPartition, Refinement
from masked_denoise.errors import SettingError
from masked_denoise.uncertainty import Spread


class Blur(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.channels = channels

    def forward(self, image: Tensor) -> Tensor:
        return image * self.weight + nn.functional.avg_pool2d(image, 3, 1, 1) * (1 - self.weight)


def make(channels: int = 1, **settings: Any) -> AsymmetricMaskDenoiser:
    plain = {
        "observation": 0.0, "chroma_radius": 0, "dct_threshold": 0.0, "turns": False,
        "residual": False, "scheme": RandomPartition(2), "stride": 1,
    }  # fmt: skip
    return AsymmetricMaskDenoiser(Blur(channels), channels=channels, **{**plain, **settings})


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_two_numbers_and_many() -> None:
    draws = noise(5, 1, 1, 3, 4)
    spread = Spread(draws[0])
    for draw in draws:
        spread.add(draw)
    assert torch.allclose(spread.deviation(), draws.std(0), atol=1e-6)


@pytest.mark.parametrize("observation", [0.0, 0.3])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_it_is_the_deviation_of_the_passes(observation: float, strength: float) -> None:
    """Every pass is asked for on its own: a scheme that draws from the pass alone."""

    class Rows(RandomPartition):
        def label_of_pass(self, grid: Any, key: Any) -> Tensor:
            return self.label(grid, key._replace(draw=key.draw + self.first))

    image = noise(3, 12, 14)
    denoiser = make(3, scheme=Rows(2), observation=observation)
    passes = []
    for first in range(3):
        denoiser.scheme.first = first  # type: ignore[attr-defined]
        passes.append(denoiser.denoise(image, passes=1, strength=strength))
    denoiser.scheme.first = 0  # type: ignore[attr-defined]
    picture, std = denoiser.denoise(image, passes=3, strength=strength, return_std=True)
    wanted = torch.stack(passes)
    assert torch.allclose(std, wanted.std(0), atol=1e-6)
    assert torch.allclose(picture, wanted.mean(0), atol=1e-6)
    assert float(std.mean()) > 0.01


@pytest.mark.parametrize(
    "settings",
    [{}, {"refine": Refinement(draws=2)}, {"chroma_radius": 2, "observation": 0.15}, {"stride": 2}],
    ids=str,
)
def test_the_picture_stays_what_it_is(settings: dict[str, Any]) -> None:
    denoiser, image = make(3, turns=True, **settings), noise(2, 3, 20, 24)
    alone = denoiser.denoise(image, passes=4)
    picture, std = denoiser.denoise(image, passes=4, return_std=True)
    assert torch.equal(picture, alone)
    assert std.shape == image.shape
    assert bool((std > 0).any())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float32", "float64"])
@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1)])
def test_it_has_the_form_and_the_unit_of_the_picture(dtype: str, shape: tuple[int, ...]) -> None:
    top = {"uint8": 255, "uint16": 65535, ">u2": 65535}.get(dtype, 1)
    values = np.round(noise(*shape).numpy() * top) if top > 1 else noise(*shape).numpy()
    picture, std = make().denoise(values.astype(dtype), passes=2, return_std=True)
    _, wanted = make().denoise((values / top).astype(np.float32), passes=2, return_std=True)
    assert picture.dtype == np.dtype(dtype)
    assert (std.dtype, std.shape) == (np.dtype(np.float32), shape)
    np.testing.assert_allclose(std / top, wanted, atol=2e-6)


def test_a_range_of_values_scales_and_does_not_shift() -> None:
    image = noise(1, 20, 24)
    _, std = make().denoise(image, passes=2, return_std=True)
    _, far = make(value_range=(100.0, 300.0)).denoise(image * 200 + 100, passes=2, return_std=True)
    assert torch.allclose(far, 200 * std, atol=1e-3)


def test_tiles_and_batches() -> None:
    denoiser, image = make(), noise(2, 1, 300, 200)
    _, whole = denoiser.denoise(image, passes=2, return_std=True)
    _, pieces = denoiser.denoise(image, passes=2, return_std=True, tile=64)
    assert torch.allclose(whole, pieces, atol=1e-5)
    _, single = denoiser.denoise(image[1], passes=2, return_std=True)
    assert torch.allclose(whole[1], single, atol=1e-6)


def test_bad_pixels_keep_their_own_spread() -> None:
    denoiser, image = make(observation=0.5), noise(1, 16, 16)
    image[0, 5, 6] = float("nan")
    picture, std = denoiser.denoise(image, passes=4, nan="mask", strength=0.5, return_std=True)
    assert bool(picture.isfinite().all())
    assert bool(std.isfinite().all())
    _, zero = denoiser.denoise(image, passes=4, nan="mask", strength=0.0, return_std=True)
    assert float(zero[0, 5, 6]) == pytest.approx(float(std[0, 5, 6]))
    zero[0, 5, 6] = 0
    assert float(zero.abs().max()) == 0


def test_passes_that_cannot_differ_are_an_error() -> None:
    with pytest.raises(SettingError, match="passes=8"):
        make().denoise(noise(1, 16, 16), passes=1, return_std=True)
    with pytest.raises(SettingError, match="turns"):
        make(scheme=Checkerboard()).denoise(noise(1, 16, 16), passes=4, return_std=True)


def test_passes_of_a_student_are_orientations() -> None:
    class Right(nn.Module):
        """Moves the image to the right: each orientation moves it another way."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, image: Tensor) -> Tensor:
            return self.weight * image.roll(1, 3)

    student = AsymmetricMaskDenoiser(Right(), channels=1, preset="student", residual=False)
    image = noise(1, 16, 20)
    one, two = image.roll(1, 2), image.roll(-1, 2)
    assert torch.equal(student.denoise(image), one), "one pass sees the image as it is"
    picture, std = student.denoise(image, passes=2, return_std=True)
    assert torch.allclose(picture, (one + two) / 2, atol=1e-6)
    assert torch.allclose(std, torch.stack([one, two]).std(0), atol=1e-6)

"""A pixel's own noisy value: how much of it belongs into the result.

The prediction never saw the pixel. If it is off by a variance e² and the noise of the pixel has a
variance n², and the two are independent, the best mixture takes the share e² / (e² + n²) of the
pixel (the posterior mean of Laine et al. 2019, for two Gaussians). What the picture shows is their
sum: the mean of (pixel - prediction)² around. So e² is told from n² by the level of the
noise, which is the same in the whole picture where the brightness is; and that is found where the
sum is smallest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import SettingError
from .noise import fit_line
from .tiling import tiled
from .windows import window_mean

RADIUS = 6  # of the windows over which (pixel - prediction)² is averaged
_PIXELS = (2 * RADIUS + 1) ** 2  # of a window
SMALLEST = 2 * RADIUS + 1  # side of an image that tells of its noise
TILE = 1024  # side of the pieces of large images that are mixed one by one
CAUTION = 0.5  # standard errors of such a mean that count as chance, not as detail

_CALMEST = 0.05  # of the windows of one brightness: they tell the level of the noise
_NORMAL_QUANTILE = -1.6449  # of _CALMEST
_GROUPS = 16  # of brightness
_FEWEST = 12  # windows a group
_LOOKS = 4
_DARKEST = 1e-3  # of the largest level: no noise is weaker

Floats = NDArray[np.float64]


class NoiseLevel(NamedTuple):
    """Poisson-Gaussian noise of one channel, where white is 1: variance = slope · value + offset.

    A sensor of `gain` (of white, a photo-electron), read noise `r` in electrons and black at
    `b` has the slope `gain` and the offset `gain² · r² - gain · b`.
    """

    slope: float
    offset: float


def check_levels(levels: Sequence[Sequence[float]], channels: int) -> tuple[NoiseLevel, ...]:
    """Return one level a channel.

    Args:
        levels: pairs (slope, offset), one a channel, or one for all of them.
        channels: C.

    Raises:
        SettingError: they are of another number, or not finite, or the slope is negative.

    >>> check_levels([(0.01, 1e-4)], 2)[1].slope
    0.01
    """
    try:
        found = tuple(NoiseLevel(*map(float, level)) for level in levels)
    except (TypeError, ValueError):
        found = ()
    finite = all(math.isfinite(value) for level in found for value in level)
    if len(found) not in (1, channels) or not finite or any(one.slope < 0 for one in found):
        raise SettingError(
            f"noise_level is {levels!r}; a pair (slope, offset) is needed for each of {channels} "
            f"channels, or one for all: variance = slope · value + offset, with a slope of 0 or "
            "more, for example [(0.01, 1e-4)]"
        )
    return found * (channels // len(found))


def weighed(image: Tensor, clean: Tensor, levels: Sequence[NoiseLevel]) -> Tensor:
    """Return the prediction with the share of each pixel's own value that its variances ask for.

    Args:
        image: (B, C, H, W) float on the 0..1 scale, noisy.
        clean: the same, predicted; no pixel of it from its own noisy value.
        levels: of the noise, one a channel; the noise independent from pixel to pixel.
    """
    slope, offset = (
        torch.tensor(column, dtype=clean.dtype, device=clean.device).view(1, -1, 1, 1)
        for column in zip(*levels, strict=True)
    )
    chance = 1 + CAUTION * math.sqrt(2 / _PIXELS)

    def mix(piece: Tensor, _: tuple[int, int]) -> Tensor:
        noisy, predicted = piece.chunk(2, dim=1)
        rest = noisy - predicted
        power = window_mean(rest.square(), RADIUS)
        noise = (slope * window_mean(predicted, RADIUS) + offset).clamp_min(0) * chance
        share = torch.where(power > noise, 1 - noise / power, 0.0)
        return predicted + window_mean(share, RADIUS) * rest

    return tiled(mix, torch.cat([image, clean], dim=1), tile=TILE, halo=2 * RADIUS)


def estimate_noise_levels(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[NoiseLevel, ...] | None:
    """Return the level of independent noise, one a channel; None where there is too little.

    Where windows are of one brightness, the calmest are those whose pixels could be predicted, and
    what is left there is noise. A line through these over brightness is the level. Texture that
    fills all pictures is taken for noise: then more is smoothed than need be.

    Args:
        pairs: noisy images and their predictions, float (B, C, H, W) on the 0..1 scale.
    """
    values: list[Floats] = []
    powers: list[Floats] = []
    for image, clean in pairs:
        if min(image.shape[2:]) < SMALLEST:
            continue
        whole = slice(RADIUS, -RADIUS, RADIUS)  # windows that overlap by half, inside the image
        for source, kept in ((clean, values), ((image - clean).square(), powers)):
            mean = window_mean(source, RADIUS)[:, :, whole, whole]
            kept.append(mean.transpose(0, 1).flatten(1).cpu().double().numpy())
    if not values:
        return None
    value, power = np.concatenate(values, axis=1), np.concatenate(powers, axis=1)
    return tuple(_level(*channel) for channel in zip(value, power, strict=True))


def _level(value: Floats, power: Floats) -> NoiseLevel:
    """Return the line under the means (N,) of squared residuals over the means of brightness."""
    order = np.argsort(value)
    groups = np.array_split(order, max(1, min(_GROUPS, len(order) // _FEWEST)))
    points = np.array([value[group].mean() for group in groups])
    slope, offset = 0.0, 1.0
    for _ in range(_LOOKS):  # the calmest for their brightness, not the darkest, of every group
        floor = max(_DARKEST * (slope * points.max() + offset), 1e-30)
        ratio = power / np.maximum(slope * value + offset, floor)
        calm = np.array([np.quantile(ratio[group], _CALMEST) for group in groups]) / _expected()
        least = calm * np.maximum(slope * points + offset, floor)
        slope, offset, _error = fit_line(points, least, np.ones(len(points)), pedestal=True)
    return NoiseLevel(slope, offset)


def _expected() -> float:
    """Return the quantile of a window's mean of squared noise, over its expectation.

    It is a chi-squared variable over its degrees of freedom (Wilson and Hilferty 1931).
    """
    spread = 2 / 9 / _PIXELS
    return float((1 - spread + _NORMAL_QUANTILE * math.sqrt(spread)) ** 3)

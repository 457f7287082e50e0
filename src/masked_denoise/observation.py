"""The share of a pixel's own noisy value in the result.

The prediction never saw the pixel. If its error has variance e², the noise of the pixel has
variance n², and the two are independent, then the best mixture has the share e² / (e² + n²) of the
noisy value (the posterior mean of Laine et al. 2019, for two Gaussians). The local mean of
(pixel - prediction)² estimates the sum e² + n². The variance n² depends on brightness alone, and
is estimated where that mean is smallest.
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
SMALLEST = 2 * RADIUS + 1  # shortest side of an image whose noise can be estimated
TILE = 1024  # side of the tiles of large images
CAUTION = 0.5  # an excess of this many standard errors of such a mean counts as chance

_CALMEST = 0.05  # quantile over the windows of a brightness group that gives the noise level
_NORMAL_QUANTILE = -1.6449  # standard normal quantile of _CALMEST
_GROUPS = 16  # largest number of brightness groups
_FEWEST = 12  # windows per group
_LOOKS = 4  # iterations of the fit
_DARKEST = 1e-3  # lower bound of the level, relative to its largest value

Floats = NDArray[np.float64]


class NoiseLevel(NamedTuple):
    """Poisson-Gaussian noise of one channel, where white is 1: variance = slope · value + offset.

    A sensor with gain g (value per photo-electron), read noise r (in electrons) and black level b
    has the slope g and the offset g² · r² - g · b.
    """

    slope: float
    offset: float


def check_levels(levels: Sequence[Sequence[float]], channels: int) -> tuple[NoiseLevel, ...]:
    """Return one level per channel.

    Args:
        levels: pairs (slope, offset), one per channel, or one for all channels.
        channels: C.

    Raises:
        SettingError: the number of pairs is wrong, a value is not finite, or a slope is negative.

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
    """Return the prediction mixed with each pixel's own value, by the best share per pixel.

    Args:
        image: (B, C, H, W) float on the 0..1 scale, noisy.
        clean: the prediction for it, where no pixel depends on its own noisy value.
        levels: of the noise, one per channel; noise must be independent from pixel to pixel.
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
    """Return the level of independent noise per channel; None if all images are too small.

    Among windows of similar brightness, those with the smallest squared residuals are the ones that
    could be predicted, and their residual is noise. The level is a line fitted to these over
    brightness. Texture that fills all images counts as noise: then more is smoothed than necessary.

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
    """Return the line below the means of squared residuals (N,) over those of brightness (N,)."""
    order = np.argsort(value)
    groups = np.array_split(order, max(1, min(_GROUPS, len(order) // _FEWEST)))
    points = np.array([value[group].mean() for group in groups])
    slope, offset = 0.0, 1.0
    for _ in range(_LOOKS):  # within a group, compare windows relative to the level so far
        floor = max(_DARKEST * (slope * points.max() + offset), 1e-30)
        ratio = power / np.maximum(slope * value + offset, floor)
        calm = np.array([np.quantile(ratio[group], _CALMEST) for group in groups]) / _expected()
        least = calm * np.maximum(slope * points + offset, floor)
        slope, offset, _error = fit_line(points, least, np.ones(len(points)), pedestal=True)
    return NoiseLevel(slope, offset)


def _expected() -> float:
    """Return the `_CALMEST` quantile of a window's mean squared noise, over its expectation.

    This ratio is a chi-squared variable over its degrees of freedom (Wilson and Hilferty 1931).
    """
    spread = 2 / 9 / _PIXELS
    return float((1 - spread + _NORMAL_QUANTILE * math.sqrt(spread)) ** 3)

"""Residual colour noise of a result, smoothed along the edges of the denoised luma."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import SettingError, SizeError
from .robust import carries_noise, lower_median
from .tiling import tiled
from .windows import window_mean

EPSILON = 4e-4  # variance of luma, on the 0..1 scale, above which an edge is kept
TILE = 1024  # side of the tiles of large images
LIMIT = 2.0  # limit for the change of a pixel's chroma, in robust standard deviations of the change


def to_opponent(image: Tensor) -> Tensor:
    """Return luma and two chroma channels: the mean, (R - B) / 2 and (R - 2G + B) / 4.

    Args:
        image: (B, 3, H, W) float, red, green, blue.
    """
    red, green, blue = image.unbind(1)
    luma = (red + green + blue) / 3
    return torch.stack([luma, (red - blue) / 2, (red - 2 * green + blue) / 4], dim=1)


def from_opponent(opponent: Tensor) -> Tensor:
    """Return red, green and blue (B, 3, H, W); the inverse of `to_opponent`."""
    luma, first, second = opponent.unbind(1)
    green = luma - 4 / 3 * second
    return torch.stack([luma + first + 2 / 3 * second, green, luma - first + 2 / 3 * second], dim=1)


def guided_filter(guide: Tensor, image: Tensor, *, radius: int, epsilon: float) -> Tensor:
    """Return the image smoothed by a guided filter, as a locally linear function of the guide.

    In every window the image is fitted as a·guide + b by ridge regression, and the fits of all
    windows around a pixel are averaged (He, Sun and Tang, "Guided Image Filtering", 2010,
    Eq. 5-8).

    Args:
        guide: (B, 1, H, W) float.
        image: (B, C, H, W) float.
        radius: windows have sides of 2·radius + 1 pixels, and are cut off at the border.
        epsilon: ridge penalty on a, in squared units of the guide: edges of less variance are
            smoothed.

    Raises:
        SettingError: radius or epsilon is not positive.
    """
    if radius < 1 or not epsilon > 0:
        raise SettingError(f"radius {radius}, epsilon {epsilon}: positive numbers are needed")
    joined = torch.cat([guide, image, guide * guide, guide * image], dim=1)
    mean = window_mean(joined, radius)
    channels = image.shape[1]
    mean_guide, mean_image, square, product = torch.split(mean, [1, channels, 1, channels], dim=1)
    slope = (product - mean_guide * mean_image) / (square - mean_guide.square() + epsilon)
    offset = mean_image - slope * mean_guide
    slope, offset = window_mean(torch.cat([slope, offset], dim=1), radius).chunk(2, dim=1)
    return slope * guide + offset


def smooth_chroma(
    image: Tensor, *, radius: int, limit: float = LIMIT, noisy: Tensor | None = None
) -> Tensor:
    """Return a colour image with its chroma smoothed along luma edges; luma is not changed.

    Chroma noise of cameras is correlated over ten pixels and more, so that a network that predicts
    pixels from their neighbours takes part of it for image content. Here chroma is filtered with
    luma as the guide. The change is limited, per image and chroma channel, to `limit` robust
    standard deviations of the change itself, so that colour detail above the noise is kept.

    Args:
        image: (B, 3, H, W) float, red, green, blue on the 0..1 scale.
        radius: of the filter, in pixels.
        limit: in robust standard deviations (1.4826 times the median absolute change).
        noisy: the image before denoising. Where it is constant, as in a black frame, pixels do not
            count for the deviation. Without it, all pixels count.

    Raises:
        SizeError: the image does not have three channels.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise SizeError(f"image has shape {tuple(image.shape)}; (B, 3, H, W) is needed")

    def change_in(piece: Tensor, _: tuple[int, int]) -> Tensor:
        luma, chroma = piece[:, :1], piece[:, 1:]
        return guided_filter(luma, chroma, radius=radius, epsilon=EPSILON) - chroma

    opponent = to_opponent(image)
    change = tiled(change_in, opponent, tile=TILE, halo=2 * radius)  # exactly its reach
    counted = None if noisy is None else carries_noise(noisy).flatten(2)
    most = limit * 1.4826 * lower_median(change.abs().flatten(2), counted)[..., None, None]
    change = change.clamp(-most, most)
    return from_opponent(torch.cat([opponent[:, :1], opponent[:, 1:] + change], dim=1))

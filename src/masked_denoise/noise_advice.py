"""Advice on preset and strides, from the noise of images and from their sharpness.

The correlation of the noise decides. Texture is measured as correlated noise, too, but is nearly
all luma: in images with texture everywhere, the colour noise decides instead. On sharp images
training avoids strides that would cost detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .noise_report import NEGLIGIBLE_SIGMA, Advice, ChannelNoise, main_channel

CORRELATION_LIMIT = 0.4
"""Correlation below which noise counts as independent enough to train at that stride."""

INDEPENDENT = 0.25
"""Correlation of neighbours, in every channel, below which the preset "independent" is used. In
each of 112 photographs it was 0.28 or more; white noise among detail measures up to 0.2."""

INDEPENDENT_COLOUR = 0.4
"""The same for colour differences. In 112 photographs it was 0.62 or more; for white noise of 8 of
255 on the Kodak pictures, many of which have texture everywhere, 0.36 at most."""

FARTHEST = 5  # largest distance in pixels that is considered
SMOOTH = 0.5  # sharpness below which noisy images count as smooth, as photographs are
SMOOTH_STRIDE, SHARP_STRIDE = 3, 2  # training strides for smooth and for sharp images
TELLING_SIGMA = 1 / 255  # colour noise above this is more than the effect of rounding
LUMA_OVER_COLOUR = 2.5  # limit for that ratio of variances; it is 1.1 for white noise


def advise(
    channels: Sequence[ChannelNoise],
    *,
    sharpness: float,
    luma_over_colour: float,
    white: float = 1.0,
    limit: float = CORRELATION_LIMIT,
) -> Advice:
    """Return the advice for images with such noise.

    Args:
        channels: the noise of each channel and mixture.
        sharpness: of the noisy images.
        luma_over_colour: variance of luma over that of colour differences, where this is lowest;
            ignored without colour.
        white: the brightest possible value, on the scale of the noise.
        limit: correlation below which noise counts as independent enough.
    """
    least = NEGLIGIBLE_SIGMA * white
    named = {channel.name: channel for channel in channels}
    luma = named[main_channel(list(named))]
    colour = [named[name] for name in ("Cb", "Cr") if name in named]
    smooth = sharpness < SMOOTH
    larger = SMOOTH_STRIDE if smooth else SHARP_STRIDE
    if max(channel.sigma for channel in channels) < least:
        level = f"sigma is {luma.sigma:.4f} ({255 * luma.sigma / white:.2f} of 255)"
        return Advice(
            negligible=True,
            independent=False,
            train_stride=larger,
            advice=f"There is nearly nothing to remove: {level}, less than half a step of 8 bits. "
            f"If there is more than flat areas show, train at stride {larger}.",
        )
    white_noise = _colour_tells(named, luma_over_colour, TELLING_SIGMA * white)
    independent = white_noise
    if independent is None:
        independent = all(channel.correlation[0] < INDEPENDENT for channel in channels)
    independent = independent and luma.sigma >= least
    near = luma.correlation[0]
    if white_noise and near >= limit:
        most = max(named[name].correlation[0] for name in ("Cb", "Cr"))
        return Advice(
            independent=independent,
            advice=f"Train at stride 1: colour noise is independent from pixel to pixel "
            f"({most:.2f}), so that what luma shares ({near:.2f}) counts as texture. Denoise at "
            "stride 1.",
        )
    telling, what = luma, "luma noise" if colour else "noise"
    if luma.sigma < least:
        telling = max(colour or channels, key=lambda channel: channel.sigma)
        what = "colour noise" if colour else "noise"
    reach = _reach(telling, limit)
    if reach == 1:
        return Advice(
            independent=independent,
            advice=f"Train at stride 1: neighbouring pixels have nearly independent {what} "
            f"(correlation {telling.correlation[0]:.2f}, below {limit:.2f}). Denoise at stride 1.",
        )
    reason = _why(what, telling, reach, limit, smooth=smooth)
    reason = f"Train at stride {larger}: {reason} Denoise at stride 1, which keeps more detail."
    there = [one.correlation[larger - 1] for one in colour if one.sigma >= least]
    blotch = max(there, default=0.0)
    if telling is luma and blotch > max(2 * limit, luma.correlation[larger - 1]):
        reason += f" Colour noise is coarser ({blotch:.2f} there): some blotches may stay."
    return Advice(independent=independent, reach=reach, train_stride=larger, advice=reason)


def _colour_tells(
    named: Mapping[str, ChannelNoise], luma_over_colour: float, least: float
) -> bool | None:
    """Return whether the noise is independent, judged by colour; None if colour cannot decide.

    It cannot if a colour difference has hardly any noise (a sigma below `least`), or if luma has
    much more variance even in the calmest places: that is grain in luma alone, or texture.
    """
    if "Cb" not in named:
        return None
    colour = (named["Cb"], named["Cr"])
    if min(one.sigma for one in colour) < least:
        return None
    if max(one.correlation[0] for one in colour) >= INDEPENDENT_COLOUR:
        return False
    return True if luma_over_colour < LUMA_OVER_COLOUR else None


def _reach(channel: ChannelNoise, limit: float) -> int:
    """Return the smallest distance at which correlation is below the limit, else `FARTHEST`."""
    near = channel.correlation[:FARTHEST]
    return next((d for d, value in enumerate(near, start=1) if value < limit), FARTHEST)


def _why(what: str, channel: ChannelNoise, reach: int, limit: float, *, smooth: bool) -> str:
    """Return the reason in words: how far the noise is correlated, and how sharp images are."""
    there = channel.correlation[reach - 1]
    if there < limit:
        told = (
            f"{what} is correlated less than {limit:.2f} from {reach} pixels on ({there:.2f} "
            f"there, {channel.correlation[0]:.2f} between neighbours)"
        )
    else:
        told = f"{what} is still correlated at {reach} pixels ({there:.2f}): some will be left"
    looks = "smooth" if smooth else "sharp, and would lose detail at a larger one"
    return f"{told}, and the images are {looks}."

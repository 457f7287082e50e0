"""What the noise of images, and how sharp they are, asks of training: independent or not, strides.

Noise is told by its correlation. What it cannot tell is texture, which looks correlated, too: of
images that are texture all over, colour tells more, as texture is nearly all luma; and sharp images
are not trained on at a stride that would cost them detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .noise_report import NEGLIGIBLE_SIGMA, Advice, ChannelNoise, main_channel

CORRELATION_LIMIT = 0.4
"""Noise counts as independent enough to train on below this."""

INDEPENDENT = 0.25
"""Correlation of neighbours below which noise counts as independent, so that the preset for such
noise is taken. In each of 112 photographs it was 0.28 or more; white noise with detail around it
measures up to 0.2."""

INDEPENDENT_COLOUR = 0.4
"""The same for colour differences. In 112 photographs their noise was correlated 0.62 or more,
white noise of 8 of 255 on the Kodak pictures, many of which are texture all over, 0.36 at most."""

FARTHEST = 5  # distance in pixels that is looked at
SMOOTH = 0.5  # sharpness below which images, noisy as they are, are smooth, as photographs are
SMOOTH_STRIDE, SHARP_STRIDE = 3, 2  # of training on them, and on others
TELLING_SIGMA = 1 / 255  # noise of colour differences that is more than what rounding leaves
LUMA_OVER_COLOUR = 2.5  # variance where it is calmest; of white noise it is 1.1


def advise(
    channels: Sequence[ChannelNoise],
    *,
    sharpness: float,
    luma_over_colour: float,
    white: float = 1.0,
    limit: float = CORRELATION_LIMIT,
) -> Advice:
    """Return what the noise asks for.

    Args:
        channels: the noise of each channel and mixture.
        sharpness: of the images, noisy as they are.
        luma_over_colour: variance of luma over that of colour differences where it is least; any
            number where there is no colour.
        white: the brightest that pixels can be, on the scale of the noise.
        limit: correlation below which noise is independent enough to train on.
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
    """Return whether colour differences say that noise is independent; None where they cannot.

    They cannot where they have hardly any noise (less than `least`), nor where luma has more than
    theirs even in the calmest places: that is grain of luma alone, or texture everywhere.
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
    """Return the distance from which on noise is independent enough; `FARTHEST` if none is."""
    near = channel.correlation[:FARTHEST]
    return next((d for d, value in enumerate(near, start=1) if value < limit), FARTHEST)


def _why(what: str, channel: ChannelNoise, reach: int, limit: float, *, smooth: bool) -> str:
    """Return how far the noise reaches, and how the images look."""
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

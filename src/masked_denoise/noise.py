"""The noise of images, measured from the noisy images alone: level, correlation, advised strides.

A plane is fitted to each patch of 32 x 32 pixels and subtracted; in flat patches the residual is
noise. Two biases are kept small. Selecting the patches of least variance would select quiet noise,
so a patch is selected by one half and measured in the other. The fit also removes coarse noise; its
power is estimated from the quadratic terms, where image content is rare, and added back.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .colour import YCBCR
from .errors import DataError, PixelError, SettingError
from .noise_advice import CORRELATION_LIMIT, advise
from .noise_report import LAGS, ChannelNoise, NoiseReport, main_channel, plot_noise
from .sharpness import sharpness
from .values import DIM, ValueRange, off_unit_scale, to_batch

Floats = NDArray[np.float32]
AnyFloats = NDArray[np.floating[Any]]
ImageLike = Tensor | NDArray[Any]

__all__ = ["ChannelNoise", "NoiseReport", "measure_noise", "plot_noise"]

PATCH = 32
COLOURS = 3  # number of channels for which luma and colour differences are measured, too

_FLAT_COUNT = 16  # patches of least variance measured in each brightness group ...
_FLAT_SHARE = (0.05, 0.2)  # ... within these limits of their share
_GROUPS = 8  # of brightness, within which patches are compared
_CALMEST = 0.01  # quantile of the half patches by their variance of luma over that of colour
_JUDGED_BY = (1, 0, 3, 2)  # halves are top, bottom, left, right; each is selected by its opposite


def measure_noise(
    images: Iterable[ImageLike] | ImageLike,
    *,
    max_pixels: int = 1 << 24,
    value_range: ValueRange | None = None,
    correlation_limit: float = CORRELATION_LIMIT,
    seed: int = 0,
) -> NoiseReport:
    """Return the level, the correlation and the advised strides of the noise of noisy images.

    No clean images are needed, but at least a few flat patches of 32 x 32 pixels are. The advised
    training stride is 1 if the luma noise of neighbouring pixels is correlated less than
    `correlation_limit`, or if the colour noise shows that the correlation of luma is texture;
    otherwise 3 for images that are smooth at the pixel level, and 2 for sharp ones. The stride at
    inference is 1, which measured best with any training stride. The noise is measured in flat
    areas: if JPEG smooths these, textured areas have stronger noise than reported; and if texture
    is everywhere, it counts as noise.

    Args:
        images: one image, or an iterable of images (read once, one at a time): arrays (H, W) or
            (H, W, C), tensors (C, H, W) or (B, C, H, W). Integers are divided by the largest
            value of their dtype. Images with a side below 32 pixels are skipped.
        max_pixels: approximate number of pixels to measure in all images together.
        value_range: (black, white) of float images. Default (0, 1), or the lowest and highest value
            if the means of patches are far outside of that.
        correlation_limit: noise counts as independent below this correlation.
        seed: of the choice of patches, if not all are measured.

    Raises:
        DataError: no image is large enough, or images differ in the number of channels.
        SizeError, PixelError: an image has an unusable shape, dtype or value (NaN, infinite).
        SettingError: `max_pixels` or `correlation_limit` is out of range.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> noisy = 0.5 + 0.1 * random.standard_normal((256, 256))
    >>> report = measure_noise(noisy)
    >>> round(report.luma.sigma, 2), report.train_stride
    (0.1, 1)
    """
    if max_pixels < PATCH * PATCH or not 0 < correlation_limit < 1:
        raise SettingError(
            f"max_pixels is {max_pixels} and correlation_limit {correlation_limit}; needed are at "
            f"least {PATCH * PATCH} pixels and a limit between 0 and 1"
        )
    pictures: Iterable[ImageLike] = [images] if isinstance(images, np.ndarray | Tensor) else images
    share = max_pixels // (PATCH * PATCH * max(1, operator.length_hint(pictures, 64)))
    random = np.random.default_rng(seed)
    measured, sharpnesses = [], []
    for planes, white in _planes(pictures, value_range):
        measured.append(_measure_image(planes, white, min(max(share, 64), 8192), random))
        luma = torch.from_numpy(planes.mean(axis=0, keepdims=True)[None] / np.float32(white))
        sharpnesses.append(float(sharpness(luma, luma)))
    counts = sorted({one.channels for one in measured})
    if len(counts) != 1:
        raise DataError(
            f"images have {' and '.join(map(str, counts))} channels; measure them separately"
            if counts
            else f"no image with both sides of at least {PATCH} pixels; give larger ones"
        )
    low, high = (0.0, 1.0) if value_range else _span(measured)
    white = max(one.white for one in measured) if (low, high) == (0.0, 1.0) else 1.0
    names = _channel_names(counts[0])
    channels = tuple(_join(name, k, measured, low, high - low) for k, name in enumerate(names))
    sharp = float(np.median(sharpnesses))
    advice = advise(
        channels, sharpness=sharp, luma_over_colour=_luma_over_colour(counts[0], measured),
        white=white, limit=correlation_limit,
    )  # fmt: skip
    patches = sum(int(np.count_nonzero(one.flat)) for one in measured)
    span = (low, high) if value_range is None else (float(value_range[0]), float(value_range[1]))
    return NoiseReport(
        **vars(advice), channels=channels, images=len(measured), patches=patches,
        value_range=span, sharpness=sharp,
    )  # fmt: skip


@dataclass(frozen=True)
class _Measured:
    """Statistics of one image: N patches, K channels and mixtures, 4 halves, lags 0 to 16.

    `product[n, k, h, d]` is the mean product of pixels at distance d, `coarse[n, k]` the noise
    power per removed term, `flat[n, h]` the weight of a half, see `_flat_halves`. `white` is white
    minus black, as far as the image shows it.
    """

    channels: int
    low: float
    high: float
    white: float
    mean: Floats
    product: Floats
    coarse: Floats
    flat: Floats


def _planes(
    images: Iterable[ImageLike], value_range: ValueRange | None
) -> Iterator[tuple[Floats, float]]:
    """Yield each image as float32 (C, H, W), scaled, and its white; skip images that are small."""
    for number, image in enumerate(images):
        tensor, form = to_batch(image, value_range=value_range)
        batch = tensor.cpu().numpy()
        if not np.isfinite(batch).all():
            raise PixelError(
                f"image {number} has NaN or infinite pixels; replace or crop them before measuring"
            )
        if min(batch.shape[-2:]) >= PATCH:
            yield from ((planes, _white(planes, deep=form.is_deep)) for planes in batch)


def _white(planes: Floats, *, deep: bool) -> float:
    """Return white minus black: 1, unless values lie far outside [0, 1] or use little of it.

    Args:
        planes: (C, H, W), of one image.
        deep: whether they were integers of more than 8 bits.
    """
    low, high, mean = float(planes.min()), float(planes.max()), float(planes.mean())
    if off_unit_scale(mean, mean) and high > low:
        return high - low
    return high if deep and 0 < high <= DIM else 1.0


def _span(measured: list[_Measured]) -> ValueRange:
    """Return (0, 1), or the range of all values if means of patches are far outside [0, 1]."""
    means = np.concatenate([one.mean[:, : one.channels].ravel() for one in measured])
    low, high = min(one.low for one in measured), max(one.high for one in measured)
    outside = off_unit_scale(float(means.min()), float(means.max()))
    return (low, high) if outside and high > low else (0.0, 1.0)


def _measure_image(
    planes: Floats, white: float, count: int, random: np.random.Generator
) -> _Measured:
    """Return the statistics of at most `count` patches of one image, which overlap by half."""
    windows = np.lib.stride_tricks.sliding_window_view(planes, (PATCH, PATCH), axis=(1, 2))
    windows = windows[:, :: PATCH // 2, :: PATCH // 2]
    places = windows.shape[1] * windows.shape[2]
    chosen = np.sort(random.permutation(places)[:count])
    low, high = float(planes.min()), float(planes.max())
    parts, usable = [], []
    for start in range(0, len(chosen), 256):
        rows, cols = np.unravel_index(chosen[start : start + 256], windows.shape[1:3])
        patches = np.ascontiguousarray(windows[:, rows, cols].swapaxes(0, 1))
        usable.append(_usable(patches, low, high))
        parts.append(_statistics(patches))
    mean, product, coarse = (np.concatenate(part) for part in zip(*parts, strict=True))
    keep = np.concatenate(usable)
    if keep.sum() < max(4, 0.05 * len(keep)):
        keep = np.ones_like(keep)
    mean, product, coarse = mean[keep], product[keep], coarse[keep]
    channels = len(planes)
    main = _main_index(channels)
    brightness = (mean[:, main] - low) / max(high - low, 1e-12)
    flat = _flat_halves(brightness, product[:, :channels, :, 0].mean(axis=1))
    return _Measured(channels, low, high, white, mean, product, coarse, flat)


def _usable(patches: Floats, low: float, high: float) -> NDArray[np.bool_]:
    """Return bool (N,): patches (N, C, 32, 32) that are neither constant nor clipped."""
    clipped = ((patches <= low) | (patches >= high)).mean(axis=(2, 3)).max(axis=1) > 0.01
    constant = (patches == patches[..., :1, :1]).all(axis=(1, 2, 3))
    return np.asarray(~clipped & ~constant)


def _statistics(patches: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the mean (N, K), product (N, K, 4, lags) and coarse power (N, K) of patches."""
    mixed = np.einsum("kc,ncyx->nkyx", _mixtures(patches.shape[1]), patches)
    basis = _polynomials()
    pixels = mixed.reshape(*mixed.shape[:2], -1)
    mean = pixels.mean(axis=2)
    pixels = pixels - mean[..., None]
    terms = pixels @ basis.T
    rest = (pixels - terms[..., :3] @ basis[:3]).reshape(mixed.shape)
    coarse = np.square(terms[..., 3:]).mean(axis=2) / (PATCH * PATCH)
    product = np.empty((*mean.shape, 4, LAGS + 1), np.float32)
    half = PATCH // 2
    for d in range(LAGS + 1):
        end = PATCH - d
        rows = np.einsum("nkyx,nkyx->nky", rest[..., :end], rest[..., d:]) / end
        cols = np.einsum("nkyx,nkyx->nkx", rest[..., :end, :], rest[..., d:, :]) / end
        for h, line in enumerate((rows[..., :half], rows[..., half:])):
            product[:, :, h, d] = line.mean(axis=2)
        for h, line in enumerate((cols[..., :half], cols[..., half:])):
            product[:, :, 2 + h, d] = line.mean(axis=2)
    return mean, product, coarse


def _flat_halves(brightness: AnyFloats, power: Floats) -> Floats:
    """Return weights (N, 4): how many halves each half stands for; 0 if it is not measured.

    In each brightness group, halves are selected whose opposite half is among the 5 to 20 % of
    least variance, and within `_allowed_power`; then halves with an edge in them are dropped.

    Args:
        brightness: (N,) of each patch, 0..1.
        power: (N, 4), the variance in each half, noise plus content.
    """
    group = np.minimum((brightness * _GROUPS).astype(int), _GROUPS - 1)
    allowed = _allowed_power(brightness, power, group)
    flat = np.zeros(power.shape, np.float32)
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        share = np.clip(_FLAT_COUNT / len(members), *_FLAT_SHARE)
        for half, judge in enumerate(_JUDGED_BY):
            seen = power[members, judge]
            calm = seen <= min(np.quantile(seen, share), allowed[g])
            flat[members, half] = calm / share
        chosen = power[members][flat[members] > 0]
        if len(chosen):
            tenth, middle = np.quantile(chosen, (0.1, 0.5))
            flat[members] *= power[members] <= middle + 3 * (middle - tenth)
    return flat


def _allowed_power(
    brightness: AnyFloats, power: Floats, group: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Return for each brightness group the largest variance that can still be noise.

    The sigma of camera noise does not change faster than brightness, in either direction; if even
    the patches of least variance exceed that, all of them are texture. Groups near black and white,
    where tone curves compress the noise, and groups of few patches set no limit to others.
    """
    level, centre = np.full(_GROUPS, np.inf), np.ones(_GROUPS)
    tells = np.zeros(_GROUPS, bool)
    for g in np.unique(group):
        inside = group == g
        level[g] = np.quantile(power[inside], 0.1)
        centre[g] = brightness[inside].mean() + 0.02
        tells[g] = 0.06 < centre[g] < 0.9 and inside.mean() > 0.03
    ratio = np.maximum(centre[:, None] / centre, centre / centre[:, None])
    limit = np.where(tells, 1.5 * level * np.square(ratio), np.inf)
    return np.asarray(np.minimum(limit.min(axis=1), 1.5 * level))


def _join(name: str, k: int, measured: list[_Measured], low: float, scale: float) -> ChannelNoise:
    """Return the noise of channel `k` over all images."""
    main = _main_index(measured[0].channels)
    own = k if k < measured[0].channels else main
    intensity, variance, everywhere = [], [], []
    products = np.zeros(LAGS + 1)
    for one in measured:
        patch, half = np.nonzero(one.flat)
        product = one.product[patch, k, half].astype(np.float64)
        power = one.product[patch, : one.channels, half, 0].mean(axis=1)
        weight = one.flat[patch, half] / np.maximum(power, 0.01 * np.median(power) + 1e-20)
        total = weight @ product
        restored = total + weight @ one.coarse[patch, k] * _removed_share()
        intensity.append(one.mean[patch, own])
        variance.append(product[:, 0] * (restored[0] / total[0] if total[0] > 0 else 1.0))
        products += len(patch) * restored / (restored[0] if restored[0] > 0 else np.inf)
        everywhere.append(one.mean[:, own])
    seen = (np.concatenate(intensity) - low) / scale
    points, point_variance, counts = _bin(seen, np.concatenate(variance) / scale**2)
    slope, offset, fit_error = fit_line(points, point_variance, counts)
    over_image = np.interp((np.concatenate(everywhere) - low) / scale, points, point_variance)
    correlation = products[1:] / products[0] if products[0] > 0 else np.zeros(LAGS)
    return ChannelNoise(
        name=name,
        sigma=float(np.sqrt(over_image.mean())),
        intensity=tuple(points.tolist()),
        intensity_sigma=tuple(np.sqrt(point_variance).tolist()),
        slope=slope,
        offset=offset,
        fit_error=fit_error,
        correlation=tuple(np.clip(correlation, -1, 1).tolist()),
    )


def _luma_over_colour(channels: int, measured: Sequence[_Measured]) -> float:
    """Return the variance of luma over that of colour, a low quantile over the half patches."""
    if channels != COLOURS:
        return 0.0
    power = [one.product[..., 0] for one in measured]  # (N, 6, 4): R, G, B, Y, Cb, Cr
    over = [one[:, 3] / np.maximum(one[:, 4:].mean(axis=1), 1e-20) for one in power]
    return float(np.quantile(np.concatenate(over), _CALMEST))


def _bin(
    intensity: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean intensity, mean variance and count of measurements, in up to 16 bins."""
    low, high = np.quantile(intensity, (0.005, 0.995))
    group = ((intensity - low) / max(high - low, 1e-12) * 16).clip(0, 15).astype(int)
    counts = np.bincount(group, minlength=16)
    enough = np.flatnonzero(counts >= min(12, counts.max()))
    inside = [group == g for g in enough]
    points = np.array([intensity[g].mean() for g in inside])
    return points, np.array([variance[g].mean() for g in inside]), counts[enough].astype(float)


def fit_line(
    intensity: NDArray[np.float64],
    variance: NDArray[np.float64],
    counts: NDArray[np.float64],
    *,
    pedestal: bool = False,
) -> tuple[float, float, float]:
    """Return a, b >= 0 of the robust fit variance = a · intensity + b, and the error of its sigma.

    The fit minimises relative errors by reweighted least squares; points above the line (texture)
    lose weight sooner than points below. The error is the root mean square of relative errors.

    Args:
        intensity, variance: (N,), the measurements.
        counts: (N,), weights of the measurements.
        pedestal: b may be negative, as for sensors whose values start at a black level.
    """
    floor = max(1e-4 * float(variance.max()), 1e-30)
    terms = np.stack([intensity, np.ones_like(intensity)])
    trust = np.ones_like(variance)
    best = np.array([0.0, float(np.median(variance))])
    for _ in range(20):
        weight = np.sqrt(counts * trust) / np.maximum(best @ terms, floor)
        x, y = weight * terms, weight * variance
        only_slope, only_offset = x @ y / np.maximum(np.square(x).sum(axis=1), 1e-30)
        free = np.linalg.lstsq(x.T, y, rcond=None)[0]
        lowest = [0.0, -np.inf if pedestal else 0.0]
        tries = np.array(
            [[max(only_slope, 0.0), 0.0], [0.0, only_offset], np.maximum(free, lowest)]
        )
        best = tries[np.square(tries @ x - y).sum(axis=1).argmin()]
        error = variance / np.maximum(best @ terms, floor) - 1
        trust = 1 / (1 + np.square(error / np.where(error > 0, 0.2, 0.4)))
    off = np.sqrt(variance) / np.sqrt(np.maximum(best @ terms, floor)) - 1
    return float(best[0]), float(best[1]), float(np.sqrt(np.average(off**2, weights=counts)))


def _polynomials() -> Floats:
    """Return the polynomials x, y, xy, x² and y², orthonormal on a patch: (5, 1024)."""
    x = np.linspace(-1, 1, PATCH)
    one, square = np.ones(PATCH), x * x - np.mean(x * x)
    pairs = ((one, x), (x, one), (x, x), (one, square), (square, one))
    terms = np.stack([np.outer(a, b).ravel() for a, b in pairs])
    return np.asarray(terms / np.linalg.norm(terms, axis=1, keepdims=True), np.float32)


def _removed_share() -> NDArray[np.float64]:
    """Return how much removing mean and slope lowers each product, in units of `coarse`."""
    d = np.arange(LAGS + 1) / PATCH
    return 2 + (1 - d) ** 2 - 3 * d**2


def _mixtures(channels: int) -> Floats:
    """Return the matrix (K, C) from channels to channels and mixtures."""
    if channels == 1:
        return np.ones((1, 1), np.float32)
    mixed = YCBCR if channels == COLOURS else [[1 / channels] * channels]
    return np.concatenate([np.eye(channels), mixed]).astype(np.float32)


def _channel_names(channels: int) -> list[str]:
    """Return the names of the rows of `_mixtures`."""
    if channels == 1:
        return ["grey"]
    if channels == COLOURS:
        return ["R", "G", "B", "Y", "Cb", "Cr"]
    return [*(str(c + 1) for c in range(channels)), "mean"]


def _main_index(channels: int) -> int:
    """Return the index of the row of `_mixtures` that is brightness."""
    names = _channel_names(channels)
    return names.index(main_channel(names))

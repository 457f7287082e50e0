"""Residual noise of a result, removed by thresholding overlapping discrete cosine transforms.

The noise that a network leaves in a photograph is faint and spread over all coefficients of a
cosine transform; the image, as a camera leaves it, is strong in a few (sliding-window thresholding:
Yu and Sapiro, "DCT image denoising", 2011). So small coefficients are set to zero, and windows in
which few remain get more weight.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError
from .pixels import reflect_pad
from .robust import carries_noise, lower_median, lower_quantile
from .sharpness import sharpness
from .tiling import tiled

Windows = tuple[tuple[int, int], ...]

LUMA_WINDOWS = ((16, 4), (32, 8))  # (side, distance) in pixels; the results are averaged
CHROMA_WINDOWS = ((16, 4),)  # of colour differences, whose noise is coarser, at half the resolution
TILE = 512  # side of the tiles of large images
PHOTOGRAPHS = 0.07  # threshold for photographs: 18 of 255
AT_A_TIME = 1 << 18  # coefficients processed at a time on a CPU, to stay in its cache
FEW = 256  # approximate number of rows and columns from which statistics are computed
TINY = 1e-9  # stands for a threshold of zero
QUIET = 0.012  # standard deviation of the removed luma, below which the threshold is lowered
LOUD = 0.04  # the same, above which the threshold rises in proportion
SHARE = 0.4  # largest share of the noisy image mixed in before the transform
AMPLE = 8.0  # least ratio of the threshold to the standard deviation of the noise mixed in
BLOCK, AROUND = 4, 3  # removed luma is measured in squares of 12 pixels (4 times 3), 4 apart
CALM = 0.25  # quantile of the removed luma over the squares that is the noise level
MOST_CHANGE = 4.0  # limit for the change of a colour difference, in its robust deviations


class Limit(NamedTuple):
    """The most that may be removed from a square, in multiples of the estimated noise level.

    Attributes:
        smooth: multiple for images that are smooth at the pixel level.
        sharp: multiple for images that are sharp at the pixel level.
        first, last: sharpness at which the transition from smooth to sharp begins and ends.
        calm: quantile for the noise level of sharp images, in place of `CALM`: even their calmer
            squares may be texture.
    """

    smooth: float
    sharp: float
    first: float
    last: float
    calm: float


SEEING = Limit(2.0, 1.0, 0.5, 0.7, 0.1)  # after networks that see the pixels they predict
BLIND = Limit(3.0, 1.0, 0.35, 0.5, CALM)  # after others, whose errors and blur add to the removed


def threshold_cosines(
    image: Tensor, noisy: Tensor, *, threshold: float, limit: Limit | None = SEEING
) -> Tensor:
    """Return a denoised image without the small coefficients of its cosine transforms.

    First a share of the noisy image is mixed in: this restores texture that was mistaken for noise,
    and adds noise well below the threshold. Finally, where more was removed than can be noise, part
    of it is put back. Noise is everywhere, so its level is estimated in calm areas; no square loses
    more than that in sharp images, or two or three times as much in smooth ones (`Limit`).

    The transforms are orthonormal, and so are the opponent channels: white noise of standard
    deviation s has coefficients of standard deviation s. The means of windows are kept. Colour
    differences are transformed at half the resolution, and their change is limited by
    `MOST_CHANGE`. Without three channels, each channel is treated as three equal ones would be.

    Args:
        image: (B, C, H, W) float on the 0..1 scale, denoised.
        noisy: the same image before denoising. With r the standard deviation of the removed luma,
            the threshold is multiplied by (r / `QUIET`)³ below `QUIET`, so that a clean photograph
            keeps its texture, and by r / `LOUD` above `LOUD`; a large r lowers the share mixed in.
        threshold: coefficients below this are set to zero, on the 0..1 scale.
        limit: how much may be removed: `SEEING` or `BLIND`, depending on the network; None for no
            limit.

    Raises:
        SettingError: the threshold is negative.

    >>> flat = 0.5 + 0.01 * torch.randn(1, 1, 64, 64)
    >>> clean = threshold_cosines(flat, flat + 0.1 * torch.randn(1, 1, 64, 64), threshold=0.1)
    >>> bool(clean.std() < 0.3 * flat.std())
    True
    """
    if not threshold >= 0:
        raise SettingError(f"threshold is {threshold}; 0 or more is needed")
    if not image.numel():
        return image
    colours = image.shape[1] == 3
    clean, before = (_opponent(x) if colours else x * math.sqrt(3) for x in (image, noisy))
    first = slice(0, 1) if colours else slice(None)
    rest = before[:, first] - clean[:, first]
    every = (1 + image.shape[2] // FEW, 1 + image.shape[3] // FEW)
    counted = carries_noise(noisy, every=every)
    removed = _deviation(rest, counted, every)  # (B, C or 1, 1, 1)
    fall = (removed / QUIET).clamp_max(1) ** 3
    least = threshold * fall * (removed / LOUD).clamp_min(1)
    share = (threshold / (AMPLE * removed).clamp_min(TINY)).clamp_max(SHARE)
    luma = _without_small(torch.lerp(clean[:, first], before[:, first], share), least, LUMA_WINDOWS)
    if not colours:
        return (_limit_removed(luma, before, noisy, limit) if limit else luma) / math.sqrt(3)
    chroma = clean[:, 1:]
    mixed = _half(torch.lerp(chroma, before[:, 1:], share))
    small = _without_small(mixed, least.expand(-1, 2, -1, -1), CHROMA_WINDOWS)
    change = _enlarged(small, 2, image) - chroma
    most = MOST_CHANGE * _deviation(change, counted, every) * fall
    change = change.clamp(-most, most)
    chroma = chroma + change
    del clean, mixed, small, change  # large pictures need the memory
    result = torch.cat([luma, chroma], dim=1)
    del luma, chroma
    result = _limit_removed(result, before, noisy, limit) if limit else result
    return _opponent(result, back=True).contiguous()


def _limit_removed(clean: Tensor, before: Tensor, noisy: Tensor, limit: Limit) -> Tensor:
    """Return the denoised image, moved towards the noisy one where more was removed than allowed.

    Args:
        clean, before: (B, C, H, W), denoised and noisy; of three channels the first is luma, and
            decides for all.
        noisy: the noisy image as it came: areas where it is constant are not measured.
        limit: how much may be removed.
    """
    first = slice(0, 1) if clean.shape[1] == 3 else slice(None)
    rest = before[:, first] - clean[:, first]
    power = F.avg_pool2d(rest.square(), BLOCK, ceil_mode=True, count_include_pad=False)
    power = F.avg_pool2d(power, AROUND, 1, AROUND // 2, count_include_pad=False)
    removed = power.sqrt()
    rows, columns = (1 + side // FEW for side in removed.shape[2:])
    counted = carries_noise(noisy, every=(BLOCK * rows, BLOCK * columns))
    some, counted = removed[..., ::rows, ::columns].flatten(2), counted.flatten(2)
    calm, calmest = (lower_quantile(some, part, counted) for part in (CALM, limit.calm))
    sharp = _how_sharp(clean[:, first], before[:, first], limit)
    most = torch.lerp(limit.smooth * calm, limit.sharp * calmest, sharp)[..., None, None]
    share = (most / removed.clamp_min(TINY)).clamp_max(1)
    return torch.lerp(before, clean, _enlarged(share, BLOCK, clean))


def _how_sharp(clean: Tensor, before: Tensor, limit: Limit) -> Tensor:
    """Return (B, C) from 0 for smooth to 1 for sharp images."""
    planes = (x.flatten(0, 1)[:, None] / math.sqrt(3) for x in (clean, before))
    share = (sharpness(*planes) - limit.first) / (limit.last - limit.first)
    return share.clamp(0, 1).view(*clean.shape[:2])


def _deviation(x: Tensor, counted: Tensor, every: tuple[int, int]) -> Tensor:
    """Return a robust standard deviation (B, C, 1, 1): 1.4826 times the median |x - mean|.

    Args:
        x: (B, C, H, W).
        counted: bool (B, 1, h, w): which of the sampled pixels count.
        every: (m, n): every m-th row and every n-th column is sampled.
    """
    thin, which = x[..., :: every[0], :: every[1]].flatten(2), counted.flatten(2)
    middle = (thin * which).sum(2, keepdim=True) / which.sum(2, keepdim=True)
    return 1.4826 * lower_median((thin - middle).abs(), which)[..., None, None]


def _half(image: Tensor) -> Tensor:
    """Return the image at half the resolution: means of 2 x 2 pixels (fewer at the border)."""
    return F.avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False)


def _enlarged(image: Tensor, times: int, like: Tensor) -> Tensor:
    """Return the image enlarged `times` times, cropped to the size of `like`."""
    large = F.interpolate(image, scale_factor=float(times), mode="bilinear", align_corners=False)
    return large[..., : like.shape[2], : like.shape[3]]


def _without_small(image: Tensor, least: Tensor, windows: Windows) -> Tensor:
    """Return (B, C, H, W) without coefficients below `least`; averaged over window sizes."""
    waves = {side: _dct_matrix(side, image) for side, _ in windows}

    def run(piece: Tensor, _: tuple[int, int]) -> Tensor:
        kinds = [_thresholded(piece, least, waves[side], step) for side, step in windows]
        return torch.stack(kinds).mean(0) if len(kinds) > 1 else kinds[0]

    halo, step = max(windows)
    return tiled(run, image, tile=TILE, halo=halo, step=step)


def _thresholded(image: Tensor, least: Tensor, waves: Tensor, step: int) -> Tensor:
    """Return (B, C, H, W) without coefficients below `least`, for windows `step` apart.

    Windows one above another share the transforms of their pixel rows, which are computed once;
    then a few rows of windows are processed at a time, to stay in a CPU's cache.
    """
    batch, channels, height, width = image.shape
    side = len(waves)
    edge, parts = side - step, side // step
    bottom, right = edge + -height % step, edge + -width % step
    padded = reflect_pad(image, bottom, right, top=edge, left=edge)
    unit = least.reshape(-1, 1, 1).clamp_min(TINY)  # hardshrink takes one threshold: 1
    planes = padded.reshape(batch * channels, *padded.shape[2:]) / unit
    count, high, wide = planes.shape
    rows, columns = (high - edge) // step, (wide - edge) // step
    across = planes.unfold(2, side, step).reshape(-1, side) @ waves.mT
    across = across.view(count, high, columns * side)  # for each pixel row, window by window
    total, weights = torch.zeros_like(across), planes.new_empty(count, rows, columns)
    few = AT_A_TIME // (count * columns * side * side) if image.device.type == "cpu" else rows
    few = max(few // parts, 1) * parts
    for first in range(0, rows, few):
        end = min(first + few, rows)
        windows = across[:, first * step : end * step + edge].unfold(1, side, step).mT
        found = torch.matmul(waves, windows)  # (count, rows of windows, side, columns * side)
        found = found.view(count, -1, side, columns, side)
        kept = F.hardshrink(found, 1.0)
        kept[:, :, 0, :, 0] = found[:, :, 0, :, 0]
        torch.ne(kept, 0, out=found)
        weight = 1 / found.sum(2).sum(-1).clamp_min(1)
        weights[:, first:end] = weight
        kept *= weight[:, :, None, :, None]
        _add_windows(total[:, first * step :], torch.matmul(waves.mT, kept.flatten(3)), step)
    pieces = (total.view(-1, side) @ waves).view(count * high, columns, side, 1)
    mean = planes.new_zeros(count * high, wide, 1)
    _add_windows(mean, pieces, step)
    weights = F.avg_pool2d(F.pad(weights, [parts - 1] * 4), parts, 1, divisor_override=1)
    weights = weights.repeat_interleave(step, 1).repeat_interleave(step, 2)
    mean = mean.view(count, high, wide) / weights * unit
    return mean[:, edge : edge + height, edge : edge + width].reshape(image.shape)


def _add_windows(total: Tensor, windows: Tensor, step: int) -> None:
    """Add windows (N, n, side, M), each `step` rows below the last, to `total` (N, H, M)."""
    apart = windows.shape[2] // step  # each window begins where the one `apart` before it ends
    for start in range(min(apart, windows.shape[1])):
        stripe = windows[:, start::apart].flatten(1, 2)
        total[:, start * step : start * step + stripe.shape[1]] += stripe


def _dct_matrix(side: int, image: Tensor) -> Tensor:
    """Return the matrix (side, side) of the cosine transform, one row per frequency."""
    place = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(math.pi / side * (place + 0.5) * place[:, None]) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    return waves.to(image)


def _opponent(image: Tensor, *, back: bool = False) -> Tensor:
    """Return luma and two colour differences of RGB, orthonormal; or the inverse (`back`)."""
    rows = [[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]]
    matrix = torch.tensor(rows, dtype=image.dtype, device=image.device)
    matrix = matrix / matrix.norm(dim=1, keepdim=True)
    return torch.einsum("kc,bchw->bkhw", matrix.mT if back else matrix, image)

"""Simulated noise like that in the JPEG files of cameras, drawn anew for every picture.

Between sensor and file a camera demosaics, smooths, applies a tone curve and compresses. Noise
that was independent from pixel to pixel becomes grain and blotches, coarser in colour than in
brightness. These properties vary from camera to camera, so each is drawn from a range: a network
that has seen the whole range needs no information about the camera.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .colour import LUMA, YCBCR
from .errors import SettingError, SizeError

AGAIN = (70, 90)  # quality of a second compression, upper end excluded
RANGES = ("sigma", "chroma", "grain", "blotches", "coarse", "quality", "flat", "contrast")
KNOTS = 9  # of the curve of noise level over brightness

Range = tuple[float, float]
Bands = list[tuple[float, float]]  # (share of the variance, sigma of a Gaussian blur in pixels)


@dataclass(frozen=True)
class CameraNoise:
    """Simulator of camera noise; ranges are (lowest, highest), uniform unless stated otherwise.

    Args:
        sigma: root mean square of the luma noise, where white is 1; log-uniform.
        chroma: noise of each colour difference relative to luma; log-uniform.
        grain: blur of the fine part of luma noise: sigma of a Gaussian, in pixels.
        blotches: the same for the middle part of colour noise.
        coarse: share of the variance of luma noise that is spread over several pixels.
        quality: of the JPEG compression that follows, whole numbers from 1 to 100.
        uncompressed: share of the pictures that are not compressed.
        flat: noise in flat areas relative to that in areas of strong contrast. Cameras smooth flat
            areas, and compression drops faint detail, so in real photographs it is about 0.4.
        contrast: local standard deviation of luma at which the noise is half-way between the two;
            log-uniform.
        white: share of the pictures with white noise, independent from pixel to pixel and between
            colours, and equally strong everywhere: unlike cameras, but close to raw converters
            without noise reduction, and common in simulations.
        twice: share of the pictures that are compressed a second time, as edited ones are.

    Raises:
        SettingError: a range is empty or exceeds its limits.

    >>> noise = CameraNoise(sigma=(0.02, 0.02), uncompressed=1.0)
    >>> clean = torch.full((3, 256, 256), 0.5)
    >>> noisy = noise.add(clean, np.random.default_rng(0))
    >>> noisy.shape, bool((noisy - clean).std() > 0.01)
    (torch.Size([3, 256, 256]), True)
    """

    sigma: Range = (1 / 255, 9 / 255)
    chroma: Range = (0.2, 0.75)
    grain: Range = (0.35, 0.95)
    blotches: Range = (0.8, 3.0)
    coarse: Range = (0.0, 0.25)
    quality: Range = (70, 96)
    uncompressed: float = 0.25
    flat: Range = (1.0, 1.0)
    contrast: Range = (2 / 255, 16 / 255)
    white: float = 0.0
    twice: float = 0.0

    def __post_init__(self) -> None:
        highest = {"coarse": 1.0, "quality": 100.0, "sigma": 1.0, "flat": 1.0}
        lowest = {"sigma": 1e-9, "chroma": 1e-9, "contrast": 1e-9, "quality": 1}
        for name in RANGES:
            low, high = getattr(self, name)
            floor = lowest.get(name, 0)
            if not floor <= low <= high <= highest.get(name, math.inf):
                raise SettingError(
                    f"{name} is {(low, high)}; (lowest, highest) with {floor} <= lowest <= highest "
                    f"<= {highest.get(name, math.inf)} is needed"
                )
        for name in ("uncompressed", "white", "twice"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(
                    f"{name} is {getattr(self, name)}; a share from 0 to 1 is needed"
                )

    def add(self, clean: Tensor, random: np.random.Generator) -> Tensor:
        """Return the picture with noise, mostly JPEG-compressed, in 8-bit steps within 0..1.

        Args:
            clean: float (C, H, W) on the 0..1 scale, C of 1 or 3, sides of at least 2.
            random: generator for all draws; the same state gives the same noise.

        Raises:
            SizeError: the shape is not one of these.
        """
        if clean.ndim != 3 or clean.shape[0] not in (1, 3) or min(clean.shape[1:]) < 2:
            raise SizeError(
                f"a picture of shape {tuple(clean.shape)} came; (1, H, W) or (3, H, W) with sides "
                "of 2 or more is needed"
            )
        return self._compressed(clean + self.draw(clean, random), random)

    def draw(self, clean: Tensor, random: np.random.Generator) -> Tensor:
        """Return noise for the picture, before clipping and compression, float (C, H, W)."""
        if self.white and random.random() < self.white:
            sigma = _log_uniform(self.sigma, random)
            white = random.standard_normal(tuple(clean.shape), dtype=np.float32)
            return torch.from_numpy(white) * sigma
        noise = self._correlated(clean, random)
        return noise if self.flat == (1.0, 1.0) else noise * self._smoothed(_luma(clean), random)

    def _correlated(self, clean: Tensor, random: np.random.Generator) -> Tensor:
        """Return noise with grain and blotches, equally strong in flat areas and elsewhere."""
        size = (clean.shape[1], clean.shape[2])
        sigma = _log_uniform(self.sigma, random)
        if len(clean) == 1:
            return (_field(self._luma_bands(random), size, random) * _level(clean[0], random))[
                None
            ] * sigma
        transform, luma = torch.tensor(YCBCR), _luma(clean)
        planes = [_field(self._luma_bands(random), size, random) * _level(luma, random) * sigma]
        level = _level(luma, random) * sigma * _log_uniform(self.chroma, random)
        balance = math.exp(0.25 * random.standard_normal())  # of Cr and Cb
        bands = self._chroma_bands(random), self._chroma_bands(random)
        first, second = (_field(each, size, random) for each in bands)
        shared = random.uniform(-0.3, 0.3)
        second = shared * first + math.sqrt(1 - shared**2) * second
        planes += [first * level / balance, second * level * balance]
        return torch.einsum("ij,jhw->ihw", torch.linalg.inv(transform), torch.stack(planes))

    def _smoothed(self, luma: Tensor, random: np.random.Generator) -> Tensor:
        """Return the share of the noise (H, W) that smoothing leaves, near 1 at strong contrast."""
        least, half_way = random.uniform(*self.flat), _log_uniform(self.contrast, random)
        contrast = _contrast(luma, int(random.choice([5, 7, 9])))
        return least + (1 - least) * contrast / (contrast + half_way)

    def _luma_bands(self, random: np.random.Generator) -> Bands:
        fine, coarse = random.uniform(*self.grain), random.uniform(*self.coarse)
        wide, wider = random.uniform(1, 2.5), random.uniform(2.5, 8)
        if random.random() < 0.15:  # a camera that neither interpolates nor smooths
            return [(1.0, 0.0)]
        return [(1 - coarse, fine), (0.6 * coarse, wide), (0.4 * coarse, wider)]

    def _chroma_bands(self, random: np.random.Generator) -> Bands:
        coarse = random.uniform(0, 0.4)
        fine, middle, wide = (
            random.uniform(0.6, 1.5),
            random.uniform(*self.blotches),
            random.uniform(4, 10),
        )
        if random.random() < 0.1:
            return [(1.0, 0.6)]
        return [(0.35 * (1 - coarse), fine), (0.65 * (1 - coarse), middle), (coarse, wide)]

    def _compressed(self, noisy: Tensor, random: np.random.Generator) -> Tensor:
        """Return the picture as read back from an 8-bit file, mostly a JPEG."""
        stored = noisy.clamp(0, 1).mul(255).round().to(torch.uint8)
        quality = int(random.integers(round(self.quality[0]), round(self.quality[1]) + 1))
        halved_colour = random.random() < 0.8  # 4:2:0, else 4:4:4
        if random.random() >= self.uncompressed:
            stored = _as_jpeg(stored, quality, halved_colour=halved_colour)
        if self.twice and random.random() < self.twice:
            down, right = (int(number) for number in random.integers(0, 8, 2))  # cropped between
            moved = stored.roll((down, right), (1, 2))
            moved = _as_jpeg(moved, int(random.integers(*AGAIN)), halved_colour=True)
            stored = moved.roll((-down, -right), (1, 2))
        return stored.float() / 255


def _as_jpeg(stored: Tensor, quality: int, *, halved_colour: bool) -> Tensor:
    """Return uint8 (C, H, W) after JPEG compression."""
    from PIL import Image

    pixels = stored.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    options = {"subsampling": 2 if halved_colour else 0} if len(stored) == 3 else {}
    picture = Image.fromarray(pixels if len(stored) == 3 else pixels[..., 0])
    picture.save(file, "JPEG", quality=quality, **options)
    read = np.array(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(read).permute(2, 0, 1)


def _luma(clean: Tensor) -> Tensor:
    """Return the luma (H, W) of a picture (1, H, W) or (3, H, W)."""
    if len(clean) == 1:
        return clean[0]
    return (torch.tensor(LUMA)[:, None, None] * clean).sum(0)


def _contrast(luma: Tensor, side: int) -> Tensor:
    """Return the local standard deviation (H, W) in windows of `side` pixels, smoothed."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)

    image = luma[None, None]
    variance = mean(image.square()) - mean(image).square()
    return mean(variance.clamp_min(0)).sqrt()[0, 0]


def _log_uniform(limits: Range, random: np.random.Generator) -> float:
    return math.exp(random.uniform(math.log(limits[0]), math.log(limits[1])))


def _field(bands: Bands, size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """Return Gaussian noise (H, W) of variance 1, whose power spectrum is the sum of the bands."""
    height, width = size
    rows = torch.fft.fftfreq(height)[:, None]
    columns = torch.fft.rfftfreq(width)[None]
    squared = rows**2 + columns**2
    weight = torch.full((columns.shape[1],), 2.0)  # how often a column occurs in the full spectrum
    weight[0] = 1
    if width % 2 == 0:
        weight[-1] = 1
    spectrum = torch.zeros_like(squared)
    for share, blur in bands:
        band = torch.exp(-((2 * math.pi * blur) ** 2) * squared)
        spectrum += share * band * (height * width / (band * weight).sum())
    white = torch.from_numpy(random.standard_normal(size, dtype=np.float32))
    shaped: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * spectrum.sqrt(), s=size)
    return shaped


def _level(luma: Tensor, random: np.random.Generator) -> Tensor:
    """Return the noise level at each pixel; its mean over all levels of brightness is 1."""
    curve = torch.from_numpy(_level_curve(random))
    place = luma.clamp(0, 1) * (KNOTS - 1)
    left = place.long().clamp(max=KNOTS - 2)
    return torch.lerp(curve[left], curve[left + 1], place - left)


def _level_curve(random: np.random.Generator) -> NDArray[np.float32]:
    """Return the noise level at evenly spaced brightness: shot and read noise after a tone curve.

    In linear light the variance is a linear function of intensity. The tone curve multiplies the
    noise by its slope; cameras flatten it towards black and white.
    """
    value = np.linspace(0, 1, KNOTS)
    in_light = np.sqrt(value**2.2 + random.uniform(0.0005, 0.05))
    slope = np.maximum(value, 0.05 + 0.25 * random.random()) ** -1.2
    level = in_light * slope
    level = level * (1 - random.uniform(0, 0.6) * np.clip(2 * value - 1, 0, 1))
    level = level * (1 - random.uniform(0, 0.6) * np.clip(1 - value / 0.3, 0, 1))
    curve: NDArray[np.float32] = (level / level.mean()).astype(np.float32)
    return curve

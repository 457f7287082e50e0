"""Pairs made from clean pictures: crops at a random scale, and noise simulated on them."""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera_noise import CameraNoise, Range
from ..errors import DataError, SettingError
from ..hashing import Key, Purpose, hash_key
from ..values import ValueRange, to_batch
from .crops import HELD_OUT, Unit
from .pictures import Array
from .settings import FitSettings

MOST_THREADS = 8  # that make batches for a GPU


class SimulatedPairs:
    """Batches (B, 2C, H, W) of noisy and clean crops, each a pure function of seed and number.

    Args:
        pictures: clean, uint8 or float32 (C, H, W) of any sizes; floats on the 0..1 scale.
        settings: batch_size, crop and seed are used.
        noise: to simulate.
        scale: (smallest, largest) factor by which a crop is scaled before noise is added; uniform
            in its logarithm. Factors above 1 make crops smooth at the pixel level, as photographs
            are.
        process: (rank, number of processes).

    Raises:
        DataError: there is no picture.
        SettingError: the scale is not a range of positive numbers.
    """

    length: int | None = None
    value_range: ValueRange | None = None

    def __init__(
        self,
        pictures: Sequence[Array],
        settings: FitSettings,
        *,
        noise: CameraNoise,
        scale: Range,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        if not pictures:
            raise DataError("there are no pictures to simulate noise on; one is needed")
        if not 0 < scale[0] <= scale[1]:
            raise SettingError(f"scale is {scale}; (smallest, largest) above 0 is needed")
        self.pictures, self.settings, self.noise, self.scale = pictures, settings, noise, scale
        self.rank, self.processes = process
        self.device = torch.device("cpu")  # of training; noise is always made on the CPU
        areas = np.array([picture[0].size for picture in pictures], np.float64)
        self.chance = areas / areas.sum()

    def start(self, first: int, unit: Unit) -> Iterator[Tensor]:
        """Yield the batches of this process from number `first` on.

        For a GPU, threads prepare several batches ahead: simulating noise takes longer than a step.
        """

        def make(number: int) -> Tensor:
            batch = number * self.processes + self.rank
            return self._batch(Key(self.settings.seed, Purpose.CROP, batch), unit(number))

        if self.device.type == "cpu":
            yield from map(make, itertools.count(first))
            return
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        with ThreadPoolExecutor(threads) as pool:
            ahead = deque(pool.submit(make, first + place) for place in range(2 * threads))
            try:
                for number in itertools.count(first + 2 * threads):
                    yield ahead.popleft().result()
                    ahead.append(pool.submit(make, number))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def held_out(self, unit: int) -> list[Tensor]:
        """Return at least 8 crops for validation, drawn separately from those for training."""
        count = math.ceil(HELD_OUT / self.settings.batch_size)
        keys = [Key(self.settings.seed, Purpose.VALIDATE, place) for place in range(count)]
        return [self._batch(key, unit) for key in keys]

    def measure(self) -> ValueRange | None:
        """Return None: the pictures are on the 0..1 scale."""
        return None

    def windows(self, megapixels: float, side: int) -> Iterator[Array]:
        """Yield nothing: the pictures are clean."""
        return iter(())

    def _batch(self, key: Key, unit: int) -> Tensor:
        random = np.random.default_rng([hash_key(key), key.seed & 0xFFFFFFFF])
        side = max(self.settings.crop // unit, 1) * unit
        pairs = []
        for _ in range(self.settings.batch_size):
            clean = self._crop(side, random)
            pairs.append(torch.cat([self.noise.add(clean, random), clean]))
        return torch.stack(pairs)

    def _crop(self, side: int, random: np.random.Generator) -> Tensor:
        """Return a clean crop (C, side, side): scaled, turned, and in another light."""
        picture = self.pictures[random.choice(len(self.pictures), p=self.chance)]
        factor = math.exp(random.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        taken = min(math.ceil(side / factor) + 2, *picture.shape[1:])
        row, col = (int(random.integers(0, length - taken + 1)) for length in picture.shape[1:])
        cut = np.ascontiguousarray(picture[:, row : row + taken, col : col + taken])
        crop = torch.from_numpy(cut).float() / (255 if cut.dtype == np.uint8 else 1)
        crop = F.interpolate(crop[None], (side, side), mode="bicubic", antialias=True)[0]
        crop = crop.flip(1) if random.random() < 0.5 else crop
        crop = crop.flip(2) if random.random() < 0.5 else crop
        crop = crop.transpose(1, 2) if random.random() < 0.5 else crop
        return _lit(crop.clamp(0, 1), random).contiguous()


def _lit(crop: Tensor, random: np.random.Generator) -> Tensor:
    """Return the crop with random exposure, contrast, colour of light and saturation."""
    exposure, gamma = math.exp(random.uniform(-0.5, 0.25)), math.exp(random.uniform(-0.25, 0.35))
    lit = crop**gamma * exposure
    if len(crop) > 1 and random.random() < 0.3:
        tint = np.exp(0.1 * random.standard_normal((len(crop), 1, 1)))
        lit = lit * torch.from_numpy(tint.astype(np.float32))
    if len(crop) > 1 and random.random() < 0.2:
        lit = torch.lerp(lit, lit.mean(0, keepdim=True), 0.7)
    return lit.clamp(0, 1)


def smaller(picture: Array, factor: float, value_range: ValueRange | None = None) -> Array:
    """Return a picture reduced in size, uint8 (C, h, w), which reduces its noise, too.

    Args:
        picture: (C, H, W); integers on the scale of their dtype, floats and counts on that of
            `value_range`.
        factor: that each side is divided by, 1 or more.
        value_range: (low, high) of floats; default (0, 1).
    """
    image = to_batch(np.ascontiguousarray(np.moveaxis(picture, 0, 2)), value_range=value_range)[0]
    size = [max(2, round(side / factor)) for side in picture.shape[1:]]
    small = F.interpolate(image, size, mode="bicubic", antialias=True) if factor > 1 else image
    made: Array = small[0].clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return made

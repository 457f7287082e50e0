"""Random crops of pictures, each a pure function of the seed and the number of the crop."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import SizeError
from ..hashing import WORD, Key, Purpose, hash_key, mix
from ..values import ValueRange
from .pictures import Array, Pictures, measured_range, pictures_held, windows
from .settings import FitSettings
from .store import CropPlace, PixelStore, can_hold, crop_of, unit_scale

Unit = Callable[[int], int]  # number of a batch -> what its crops' sides should be a multiple of

HELD_OUT = 8  # crops that unsupervised validation scores; at most as many pictures are held out
PICTURES_PER_HELD_OUT = 25  # one picture in so many is held out for validation
STAY = 64  # crops drawn from a slot before its picture is exchanged, where not all fit in memory


class CropBatches:
    """Random crops, each a pure function of the seed and the number of the crop.

    No random number generator is read or advanced, so a resumed run continues exactly as it would
    have. The crops of a batch are squares. Their side is `settings.crop`, or the shortest side of
    the batch's pictures if that is less, rounded down to a multiple of the unit unless the unit is
    larger.

    If the device is a GPU with room for the pictures, they are held there in their own dtype, and
    the crops of a batch are cut and turned in one operation. Otherwise the CPU cuts them and copies
    them asynchronously. The values are the same.

    Args:
        pictures: to cut from.
        settings: batch_size, crop, augment and seed are used.
        smallest: the shortest side that pictures may have.
        hold_out: keep one picture in 25, at most 8, for validation only.
        process: (rank, number of processes).

    Attributes:
        length: batches per epoch and process; the crops of an epoch have the area of the pictures.
        value_range: (low, high) of values that are not on the usual scale, else None.
        device: where the batches go if it is a GPU; to be set before the first is taken.
    """

    def __init__(
        self,
        pictures: Pictures,
        settings: FitSettings,
        *,
        smallest: int = 1,
        hold_out: bool = True,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self.pictures, self.settings, self.smallest = pictures, settings, smallest
        self.rank, self.processes = process
        self.value_range: ValueRange | None = None
        self.device = torch.device("cpu")
        self._check_side(pictures.shortest)
        count = len(pictures)
        held = min(HELD_OUT, count // PICTURES_PER_HELD_OUT) if hold_out else 0
        self.held = [(2 * place + 1) * count // (2 * held) for place in range(held)]
        self.used = [index for index in range(count) if index not in self.held]
        self.ends = list(itertools.accumulate(pictures.areas[index] for index in self.used))
        crops = math.ceil(self.ends[-1] / settings.crop**2)
        self.length: int | None = math.ceil(crops / (settings.batch_size * self.processes))

    def start(self, first: int, unit: Unit) -> Iterator[Tensor]:
        """Yield this process's batches from number `first` on: float (B, C, H, W), 0..1 scale."""
        size = self.settings.batch_size
        for number in itertools.count(first):
            begin = (number * self.processes + self.rank) * size
            words = [self._words(Purpose.CROP, begin + place) for place in range(size)]
            chosen = [self._choose(word[0], begin + k) for k, word in enumerate(words)]
            yield self._cut(chosen, words, unit(number), augment=self.settings.augment)

    def held_out(self, unit: int) -> list[Tensor]:
        """Return 8 crops of the held-out pictures, or of those trained on if there are none."""
        words = [self._words(Purpose.VALIDATE, place) for place in range(HELD_OUT)]
        chosen = [
            self.held[k % len(self.held)] if self.held else self._choose(word[0], 0)
            for k, word in enumerate(words)
        ]
        size = min(self.settings.batch_size, HELD_OUT)
        return [
            self._cut(chosen[k : k + size], words[k : k + size], unit, augment=False)
            for k in range(0, HELD_OUT, size)
        ]

    def measure(self) -> ValueRange | None:
        """Return the range of the values if they are not on the 0..1 scale, else None."""
        return measured_range(self.pictures)

    def windows(self, megapixels: float, side: int) -> Iterator[Array]:
        """Yield the pictures (C, H, W), or windows spread evenly over them, as they are stored.

        Of pictures that are not in memory, only `Pictures.looks` or fewer are read.
        """
        if self.pictures.arrays is not None:
            return windows(self.pictures, megapixels, self.settings.seed, side=side)
        count = len(self.pictures)
        looks = range(0, count, math.ceil(count / self.pictures.looks))
        some = [self.pictures.read(index) for index in looks]
        return windows(pictures_held(some), megapixels, self.settings.seed, side=side)

    def _words(self, purpose: int, number: int) -> list[int]:
        """Return four 32-bit words for a crop: its picture, row, column and orientation."""
        state = hash_key(Key(self.settings.seed, purpose, number))
        return [int(mix((state + 0x9E3779B9 * place) & WORD)) for place in range(4)]

    def _choose(self, word: int, number: int) -> int:
        """Return the picture for a crop: drawn by its area, or one of those now held."""
        slots = self.pictures.slots
        if not slots:
            return self.used[bisect_right(self.ends, word * self.ends[-1] >> 32)]
        slot = word % slots
        stay = (number + slot * STAY) // (STAY * slots)  # slots exchange their pictures in turn
        word = hash_key(Key(self.settings.seed, Purpose.SLOT, stay * slots + slot))
        return self.used[word % len(self.used)]

    def _cut(
        self, chosen: list[int], words: list[list[int]], unit: int, *, augment: bool
    ) -> Tensor:
        """Return one crop of each chosen picture, float (B, C, side, side) on the 0..1 scale."""
        if self._store is not None:
            shapes = [self._store.shapes[index] for index in chosen]
        else:
            arrays = [self.pictures.read(index) for index in chosen]
            shapes = [array.shape for array in arrays]
        shortest = min(min(shape[1:]) for shape in shapes)
        self._check_side(shortest)
        side = min(self.settings.crop, shortest)
        side = side // unit * unit or side
        places = [
            _place(shape, side, word, augment) for shape, word in zip(shapes, words, strict=True)
        ]
        if self._store is not None:
            return self._scaled(self._store.cut(chosen, places, side))
        crops = [crop_of(array, place, side) for array, place in zip(arrays, places, strict=True)]
        if len({crop.dtype for crop in crops}) == 1:
            return self._scaled(torch.from_numpy(np.stack(crops)))
        return torch.cat([self._scaled(torch.from_numpy(np.stack([crop]))) for crop in crops])

    @cached_property
    def _store(self) -> PixelStore | None:
        """The pictures on the device; None where they are not held there."""
        if self.pictures.arrays is None or not can_hold(self.pictures, self.device):
            return None
        return PixelStore(self.pictures.arrays, self.device)

    def _check_side(self, shortest: int) -> None:
        if shortest < self.smallest:
            raise SizeError(
                f"a picture has a side of {shortest} pixels; {self.smallest} or more are needed "
                "at this train_stride; leave it out"
            )

    def _scaled(self, crops: Tensor) -> Tensor:
        return unit_scale(crops, self.device, self.value_range)


def _place(shape: tuple[int, ...], side: int, words: list[int], augment: bool) -> CropPlace:
    """Return a random place for a square in (C, H, W); the last word's bits are the turn."""
    row = words[1] * (shape[1] - side + 1) >> 32
    col = words[2] * (shape[2] - side + 1) >> 32
    return CropPlace(row, col, words[3] & 7 if augment else 0)

"""Batches of float crops out of anything a user has: loaders, data sets, arrays, files, folders."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .errors import DataError, PixelError, SizeError
from .pictures import (
    Array,
    Pictures,
    image_of,
    measured_range,
    pictures_in_files,
    pictures_in_memory,
    pictures_of_items,
    range_of,
    split,
)
from .scheme import WORD, Key, Purpose, hash_key, mix
from .settings import FitSettings
from .values import ValueRange, to_batch

Unit = Callable[[int], int]  # number of a batch -> sides of its crops are multiples of this

HELD_OUT = 8  # crops that unsupervised validation looks at, and at most as many pictures
PICTURES_PER_HELD_OUT = 25  # one picture in so many is kept for validation only
STAY = 64  # crops drawn for each slot before its picture is changed, where not all are held
_SLOT, _EPOCH, _FETCH = 32, 33, 34  # purposes of random streams of this module


class Batches(Protocol):
    """Where the training loop gets its batches from."""

    length: int | None

    def start(self, first: int, unit: Unit) -> Iterator[Tensor]:
        """Yield the batches of this process from number `first` on, float (B, C, H, W) on 0..1."""

    def held_out(self, unit: int) -> list[Tensor]:
        """Return the batches for validation, float (B, C, H, W) on the 0..1 scale."""

    def measure(self) -> ValueRange | None:
        """Return the range of the values where they are floats that leave [0, 1]."""

    value_range: ValueRange | None


def as_batches(
    data: object,
    settings: FitSettings,
    *,
    channels: int,
    smallest: int = 1,
    hold_out: bool = True,
    process: tuple[int, int] = (0, 1),
) -> Batches:
    """Return the batches of whatever `fit` was given.

    * a folder (searched through), a file, or a list of paths: crops of the images;
    * an array or tensor, or a list of them with (H, W), (H, W, C) or (C, H, W) each: crops;
    * a map-style data set (`__len__` and `__getitem__`): crops of its items, read anew for each;
    * a DataLoader or any other iterable: its batches, as they come.

    Args:
        data: see above.
        settings: batch_size, crop, augment and seed are read.
        channels: C of the denoiser.
        smallest: the shortest side that pictures may have.
        hold_out: keep some pictures for validation only.
        process: (rank, number of processes); each gets batches of its own.

    Raises:
        DataError: there is nothing in it, or nothing that can be used.
        SizeError, PixelError, ImageReadError: a picture cannot be used, a path does not exist.
    """
    pictures = _pictures(data, channels)
    if pictures is not None:
        return CropBatches(
            pictures, settings, smallest=smallest, hold_out=hold_out, process=process
        )
    if isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=settings.batch_size)
    if isinstance(data, Iterable) and not isinstance(data, bytes | dict):
        return LoaderBatches(data, channels, seed=settings.seed, hold_out=hold_out, process=process)
    raise DataError(
        f"a {type(data).__name__} came as data; a folder, paths, arrays, tensors, a data set, a "
        "DataLoader or another iterable of batches is needed"
    )


def _pictures(data: Any, channels: int) -> Pictures | None:
    """Return what crops are to be cut from, None where the data are ready-made batches."""
    if isinstance(data, str | Path):
        return pictures_in_files(data, channels)
    if isinstance(data, Tensor | np.ndarray):
        return pictures_in_memory([data], channels)
    if isinstance(data, list | tuple):
        if not data:
            raise DataError("an empty list came as data; pictures, paths or batches are needed")
        if all(isinstance(item, str | Path) for item in data):
            return pictures_in_files(data, channels)
        if all(isinstance(item, Tensor | np.ndarray) and item.ndim < 4 for item in data):
            return pictures_in_memory(data, channels)
        return None
    map_style = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset) and not map_style:
        raise DataError("the data set has no length; write its __len__, or pass a DataLoader of it")
    is_loader = isinstance(data, DataLoader | IterableDataset | dict)
    return pictures_of_items(data, channels) if map_style and not is_loader else None


class CropBatches:
    """Random crops, each a pure function of the seed and the number of the crop.

    No random number generator is read or moved, so a run goes on anywhere exactly as it would
    have. The crops of a batch are squares of the longest side up to `settings.crop` that its
    pictures have room for, rounded down to a multiple of the unit where they are that large.

    Args:
        pictures: to cut from.
        settings: batch_size, crop, augment and seed are read.
        smallest: the shortest side that pictures may have.
        hold_out: keep one picture in 25, at most 8, for validation only.
        process: (rank, number of processes).

    Attributes:
        length: batches a process takes from an epoch, which has as many crops as cover the area of
            the pictures.
        value_range: of float pictures.
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
        self._check_side(pictures.shortest)
        count = len(pictures)
        held = min(HELD_OUT, count // PICTURES_PER_HELD_OUT) if hold_out else 0
        self.held = [(2 * place + 1) * count // (2 * held) for place in range(held)]
        self.used = [index for index in range(count) if index not in self.held]
        self.ends = list(itertools.accumulate(pictures.areas[index] for index in self.used))
        crops = math.ceil(self.ends[-1] / settings.crop**2)
        self.length: int | None = math.ceil(crops / (settings.batch_size * self.processes))

    def start(self, first: int, unit: Unit) -> Iterator[Tensor]:
        """Yield the batches of this process from number `first` on, float (B, C, H, W) on 0..1."""
        size = self.settings.batch_size
        for number in itertools.count(first):
            begin = (number * self.processes + self.rank) * size
            words = [self._words(Purpose.CROP, begin + place) for place in range(size)]
            chosen = [self._choose(word[0], begin + k) for k, word in enumerate(words)]
            yield self._cut(chosen, words, unit(number), augment=self.settings.augment)

    def held_out(self, unit: int) -> list[Tensor]:
        """Return 8 crops of the pictures held out, or of those trained on where none are."""
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
        """Return the range of the values where they are floats that leave [0, 1]."""
        return measured_range(self.pictures)

    def _words(self, purpose: int, number: int) -> list[int]:
        """Return four words of 32 bits for a crop: which picture, row, column, orientation."""
        state = hash_key(Key(self.settings.seed, purpose, number))
        return [int(mix((state + 0x9E3779B9 * place) & WORD)) for place in range(4)]

    def _choose(self, word: int, number: int) -> int:
        """Return the picture for a crop, in proportion to its area, or one of those now held."""
        slots = self.pictures.slots
        if not slots:
            return self.used[bisect_right(self.ends, word * self.ends[-1] >> 32)]
        slot = word % slots
        stay = (number + slot * STAY) // (STAY * slots)  # slots change their picture in turn
        word = hash_key(Key(self.settings.seed, _SLOT, stay * slots + slot))
        return self.used[word % len(self.used)]

    def _cut(
        self, chosen: list[int], words: list[list[int]], unit: int, *, augment: bool
    ) -> Tensor:
        """Return one crop of each chosen picture, float (B, C, side, side) on the 0..1 scale."""
        arrays = [self.pictures.read(index) for index in chosen]
        shortest = min(min(array.shape[1:]) for array in arrays)
        self._check_side(shortest)
        side = min(self.settings.crop, shortest)
        side = side // unit * unit or side
        crops = [
            _crop(array, side, word, augment) for array, word in zip(arrays, words, strict=True)
        ]
        if len({crop.dtype for crop in crops}) == 1:
            return self._scaled(np.stack(crops))
        return torch.cat([self._scaled(crop[None]) for crop in crops])

    def _check_side(self, shortest: int) -> None:
        if shortest < self.smallest:
            raise SizeError(
                f"a picture has a side of {shortest} pixels; {self.smallest} or more are needed "
                "at this train_stride; leave it out"
            )

    def _scaled(self, crops: Array) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(crops))
        return to_batch(tensor, value_range=self.value_range)[0]


class LoaderBatches:
    """The batches of a loader or another iterable, as they come, epoch after epoch.

    torch's generator is seeded before every epoch and every batch, so that a shuffled DataLoader
    gives the same batches again. To start at a later batch, those before it in the same epoch are
    read and dropped.

    Args:
        source: an iterable of tensors, arrays, tuples or dicts, (B, C, H, W) each. Of an iterator,
            which can be read once only, the first batch is kept for validation.
        channels: C.
        seed: of the run.
        hold_out: False trains on the first batch of an iterator, too.
        process: (rank, number of processes); a process takes every so manyth batch.

    Attributes:
        length: batches a process takes from an epoch, None where the iterable has no length.
        value_range: of float batches.

    Raises:
        DataError: there is no batch, or none that can be used.
    """

    def __init__(
        self,
        source: Iterable[object],
        channels: int,
        *,
        seed: int,
        hold_out: bool = True,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self.source, self.channels, self.seed = source, channels, seed
        self.rank, self.processes = process
        self.value_range: ValueRange | None = None
        self.once = isinstance(source, Iterator)
        _seed(Key(seed, _EPOCH))
        self.sample = list(itertools.islice(source, 1 if self.once else 2))
        if not self.sample:
            raise DataError("the iterable gave no batch; it needs at least one")
        if self.once and not hold_out:
            self.source = itertools.chain(self.sample, source)
        try:
            batches: int | None = len(source)  # type: ignore[arg-type]
        except TypeError:
            batches = None
        self.length = None if batches is None else batches // self.processes
        if self.length == 0:
            raise DataError(
                f"there are {batches} batches for {self.processes} processes; each needs one"
            )

    def start(self, first: int, unit: Unit) -> Iterator[Tensor]:
        """Yield the batches of this process from number `first` on, float (B, C, H, W) on 0..1."""
        begin = 0 if self.length is None else first // self.length
        number = begin * (self.length or 0)
        for epoch in itertools.count(begin):
            before = number
            for item in self._epoch(epoch):
                if number >= first:
                    yield self._scaled(item, f"batch {number}")
                number += 1
            if self.once or number == before:
                raise DataError(
                    f"the data ended after {number} batches; pass something that can be read "
                    "again, like a DataLoader or a list, or ask for fewer steps"
                )

    def held_out(self, unit: int) -> list[Tensor]:
        """Return the first batches of one reading."""
        return [self._scaled(item, "the first batch") for item in self.sample]

    def measure(self) -> ValueRange | None:
        """Return the range of the first batches where they are floats that leave [0, 1]."""
        images = [image_of(item) for item in self.sample]
        arrays = [array for image in images for array in split(image, self.channels, "a batch")]
        floats = [array.ravel() for array in arrays if array.dtype.kind == "f"]
        return range_of(np.concatenate(floats)) if floats else None

    def _epoch(self, epoch: int) -> Iterator[object]:
        """Yield this process's items of one reading of the source."""
        _seed(Key(self.seed, _EPOCH, epoch))
        iterator = iter(self.source)
        for fetched in itertools.count():
            torch.default_generator.manual_seed(
                hash_key(Key(self.seed, _FETCH, (epoch << 32) + fetched))
            )
            items = list(itertools.islice(iterator, self.processes))
            if len(items) < self.processes:
                return
            yield items[self.rank]

    def _scaled(self, item: object, what: str) -> Tensor:
        image = image_of(item)
        if not (isinstance(image, Tensor) and image.ndim == 4 and image.shape[1] == self.channels):
            stacked = np.stack(split(image, self.channels, what))
            image = torch.from_numpy(stacked)
        batch = to_batch(image, value_range=self.value_range)[0]
        if batch.device.type == "cpu" and not bool(torch.isfinite(batch).all()):
            raise PixelError(
                f"{what} has NaN or infinite values; replace them first, for example with "
                "torch.nan_to_num"
            )
        return batch


def _crop(array: Array, side: int, words: list[int], augment: bool) -> Array:
    """Return a square of (C, H, W), flipped and transposed by the bits of the last word."""
    row = words[1] * (array.shape[1] - side + 1) >> 32
    col = words[2] * (array.shape[2] - side + 1) >> 32
    crop = array[:, row : row + side, col : col + side]
    if augment:
        crop = crop[:, ::-1] if words[3] & 1 else crop
        crop = crop[:, :, ::-1] if words[3] & 2 else crop
        crop = crop.swapaxes(1, 2) if words[3] & 4 else crop
    return crop


def _seed(key: Key) -> None:
    """Seed what DataLoaders and data sets draw from on the CPU."""
    torch.default_generator.manual_seed(hash_key(key))

"""Batches of float crops from whatever a user has: loaders, data sets, arrays, files, folders."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..errors import DataError, PixelError
from ..hashing import Key, Purpose, hash_key
from ..transfer import to_device
from ..values import ValueRange, to_batch
from .crops import CropBatches, Unit
from .pictures import (
    Array,
    Pictures,
    image_of,
    pictures_held,
    pictures_in_files,
    pictures_in_memory,
    pictures_of_items,
    range_of_all,
    split,
    windows,
)
from .settings import FitSettings
from .store import unit_scale


class Batches(Protocol):
    """Source of batches for the training loop."""

    length: int | None

    def start(self, first: int, unit: Unit) -> Iterator[Tensor]:
        """Yield this process's batches from number `first` on: float (B, C, H, W), 0..1 scale."""

    def held_out(self, unit: int) -> list[Tensor]:
        """Return the batches for validation, float (B, C, H, W) on the 0..1 scale."""

    def measure(self) -> ValueRange | None:
        """Return the range of the values if they are not on the 0..1 scale, else None."""

    def windows(self, megapixels: float, side: int) -> Iterator[Array]:
        """Yield noisy pictures (C, H, W), or windows of them, in their own dtype and scale."""

    value_range: ValueRange | None
    device: torch.device  # where batches go if it is a GPU; set by the loop


def as_batches(
    data: object,
    settings: FitSettings,
    *,
    channels: int,
    smallest: int = 1,
    hold_out: bool = True,
    process: tuple[int, int] = (0, 1),
) -> Batches:
    """Return batches from any data that `fit` takes.

    * a folder (searched recursively), a file, or a list of paths: crops of the images;
    * an array or tensor, or a list of them, each (H, W), (H, W, C) or (C, H, W): crops;
    * a map-style data set (`__len__` and `__getitem__`): crops of its items, read anew for each;
    * a DataLoader or any other iterable: its batches, as they come.

    Args:
        data: see above.
        settings: batch_size, crop, augment and seed are used.
        channels: C of the denoiser.
        smallest: the shortest side that pictures may have.
        hold_out: keep some pictures for validation only.
        process: (rank, number of processes); each process gets batches of its own.

    Raises:
        DataError: the data are empty, or of a kind that cannot be used.
        SizeError, PixelError, ImageReadError: a picture cannot be used, a path does not exist.
    """
    pictures = pictures_of(data, channels)
    if pictures is not None:
        return CropBatches(
            pictures, settings, smallest=smallest, hold_out=hold_out, process=process
        )
    if isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=settings.batch_size)
    if isinstance(data, Iterable) and not isinstance(data, bytes | dict):
        return LoaderBatches(data, channels, seed=settings.seed, hold_out=hold_out, process=process)
    raise _no_data(data)


def pictures_of(data: Any, channels: int) -> Pictures | None:
    """Return the pictures to cut crops from, None where the data are ready-made batches."""
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


def pictures_from(noisy: Any, channels: int, megapixels: float, seed: int) -> Pictures:
    """Return the pictures in any data that `fit` takes; of a loader, batches up to `megapixels`.

    The seed determines the order in which a loader shuffles.
    """
    pictures = pictures_of(noisy, channels)
    if pictures is not None:
        return pictures
    if not isinstance(noisy, Iterable) or isinstance(noisy, bytes | dict):
        raise _no_data(noisy)
    arrays: list[Tensor | Array] = []
    left = 1e6 * megapixels
    with torch.random.fork_rng(devices=[]):
        _seed(Key(seed, Purpose.EPOCH))
        for number, item in enumerate(noisy):
            image = image_of(item)
            found = split(image, channels, f"batch {number}")
            arrays += [np.ascontiguousarray(np.moveaxis(array, 0, 2)) for array in found]
            left -= sum(array[0].size for array in found)
            if left <= 0:
                break
    return pictures_in_memory(arrays, channels)


def windows_of(noisy: object, channels: int, megapixels: float, seed: int) -> list[Array]:
    """Return noisy pictures (C, H, W) in their dtype, or windows where they exceed `megapixels`.

    Args:
        noisy: any data that `fit` takes.
        channels: C.
        megapixels: limit in millions of pixels, approximate.
        seed: of the choice of windows.

    Raises:
        DataError, SizeError, PixelError, ImageReadError: the images cannot be used.
    """
    return list(windows(pictures_from(noisy, channels, megapixels, seed), megapixels, seed))


class LoaderBatches:
    """The batches of a loader or another iterable, as they come, epoch after epoch.

    torch's CPU generator is seeded before every epoch and every batch, so that a shuffled
    DataLoader repeats its batches. To start at a later batch, those before it in the same epoch are
    read and dropped.

    Args:
        source: an iterable of batches (B, C, H, W): tensors, arrays, tuples or dicts. Of an
            iterator, which can be read only once, the first batch is kept for validation.
        channels: C.
        seed: of the run.
        hold_out: False trains on the first batch of an iterator, too.
        process: (rank, number of processes); of every so many batches, each process takes one.

    Attributes:
        length: batches per epoch and process; None where the iterable has no length.
        value_range: (low, high) of values that are not on the usual scale, else None.
        device: where the batches go if it is a GPU.

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
        self.device = torch.device("cpu")
        self.once = isinstance(source, Iterator)
        _seed(Key(seed, Purpose.EPOCH))
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
        """Yield this process's batches from number `first` on: float (B, C, H, W), 0..1 scale."""
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
        """Return the first two batches, of an iterator only the first."""
        return [self._scaled(item, "the first batch") for item in self.sample]

    def measure(self) -> ValueRange | None:
        """Return the range of the first batches if they are not on the 0..1 scale, else None."""
        return range_of_all(self._arrays())

    def windows(self, megapixels: float, side: int) -> Iterator[Array]:
        """Yield the images (C, H, W) of the first batches, or windows of them."""
        return windows(pictures_held(self._arrays()), megapixels, self.seed, side=side)

    def _arrays(self) -> list[Array]:
        """Return the images (C, H, W) of the first batches."""
        images = map(image_of, self.sample)
        return [array for image in images for array in split(image, self.channels, "a batch")]

    def _epoch(self, epoch: int) -> Iterator[object]:
        """Yield this process's items in one pass over the source."""
        _seed(Key(self.seed, Purpose.EPOCH, epoch))
        iterator = iter(self.source)
        for fetched in itertools.count():
            _seed(Key(self.seed, Purpose.FETCH, (epoch << 32) + fetched))
            items = list(itertools.islice(iterator, self.processes))
            if len(items) < self.processes:
                return
            yield items[self.rank]

    def _scaled(self, item: object, what: str) -> Tensor:
        image = image_of(item)
        if not (isinstance(image, Tensor) and image.ndim == 4 and image.shape[1] == self.channels):
            stacked = np.stack(split(image, self.channels, what))
            image = torch.from_numpy(stacked)
        if not image.is_floating_point():
            return unit_scale(image, self.device, self.value_range)
        batch = to_batch(image, value_range=self.value_range)[0]
        if batch.device.type == "cpu" and not bool(torch.isfinite(batch).all()):
            raise PixelError(
                f"{what} has NaN or infinite values; replace them first, for example with "
                "torch.nan_to_num"
            )
        return to_device(batch, self.device) if self.device.type == "cuda" else batch


def _no_data(data: object) -> DataError:
    return DataError(
        f"a {type(data).__name__} came as data; a folder, paths, arrays, tensors, a data set, a "
        "DataLoader or another iterable of batches is needed"
    )


def _seed(key: Key) -> None:
    """Seed torch's CPU generator, which DataLoaders and data sets draw from."""
    torch.default_generator.manual_seed(hash_key(key))

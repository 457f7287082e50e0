"""Pictures to train on, in whatever form they come: arrays (C, H, W) that crops are cut from."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, ImageReadError, PixelError, SizeError
from ..hashing import Key, Purpose, hash_key
from ..values import DIM, FAINT, CountRange, ValueRange, to_batch

Array = NDArray[Any]
Paths = str | Path | Iterable[str | Path]

MEMORY_LIMIT = 4 << 30  # bytes of pixels held in memory; files beyond that take turns
WINDOW = 512  # side in pixels of windows, where pictures are too many to use whole
SLACK = 0.25  # how far floats may leave [0, 1], as noise makes them, and still count as inside
IMAGE_KEYS = ("image", "noisy", "input")


@dataclass(frozen=True)
class Pictures:
    """Pictures that can be read one by one.

    Attributes:
        read: called as read(index), returns (C, H, W) in the stored dtype and scale.
        areas: number of pixels of each picture, or a guess; crops are drawn in proportion to it.
        shortest: shortest side of the pictures seen so far.
        slots: how many are held in memory at a time; 0 where any may be read at any time.
        looks: how many to read to measure the value range.
        arrays: all of them, where they are in memory.
    """

    read: Callable[[int], Array]
    areas: Sequence[int]
    shortest: int
    slots: int = 0
    looks: int = 64
    arrays: Sequence[Array] | None = None

    def __len__(self) -> int:
        return len(self.areas)


def image_of(item: object) -> Tensor | Array:
    """Return the picture in an item of a data set or a batch of a loader.

    A tensor or array is the picture itself. In a tuple or list it is the first tensor, in a mapping
    the value of "image", "noisy" or "input", else the only 4-D or only 3-D tensor.

    Raises:
        DataError: there is no picture in it.

    >>> image_of((torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))).shape
    torch.Size([2, 3, 8, 8])
    """
    if isinstance(item, Tensor | np.ndarray):
        return item
    if isinstance(item, Mapping):
        for key in IMAGE_KEYS:
            if key in item:
                return image_of(item[key])
        for ndim in (4, 3):
            found = [v for v in item.values() if _is_picture(v) and v.ndim == ndim]
            if len(found) == 1:
                return image_of(found[0])
        raise DataError(
            f"a batch has the keys {', '.join(map(str, item))}; the noisy image is looked for "
            f"under {', '.join(IMAGE_KEYS)}, or as the only tensor of 4 dimensions"
        )
    if isinstance(item, tuple | list):
        for part in item:
            if _is_picture(part):
                return image_of(part)
            if isinstance(part, Mapping) or hasattr(part, "__array_interface__"):
                return image_of(part)
    elif hasattr(item, "__array_interface__"):
        return np.asarray(item)
    raise DataError(
        f"a {type(item).__name__} came where a picture or a batch is needed: a tensor, an array, a "
        "tuple whose first tensor is the image, or a dict with the key 'image'"
    )


def split(image: Tensor | Array, channels: int, what: str = "the picture") -> list[Array]:
    """Return the pictures (C, H, W) in a tensor or array, in its dtype, mostly uncopied.

    Args:
        image: array (H, W), (H, W, C) or (N, H, W, C); tensor (C, H, W) or (N, C, H, W); with one
            channel also a stack (N, H, W).
        channels: C, which tells the layouts apart.
        what: name of the picture in error messages.

    Raises:
        SizeError: the shape is none of these.
        PixelError: the dtype cannot hold a picture.
    """
    is_array = isinstance(image, np.ndarray)
    array = image if isinstance(image, np.ndarray) else _to_numpy(image)
    # These raise PixelError for a dtype that cannot be used.
    if isinstance(image, Tensor):
        to_batch(image.new_zeros(1, 1, 1))
    else:
        to_batch(np.zeros((1, 1), image.dtype))
    if 0 in array.shape:
        raise SizeError(f"{what} has shape {tuple(array.shape)}; no side may be empty")
    if array.ndim == 2 and channels == 1:
        return [array[None]]
    if array.ndim in (3, 4):
        stack = array[None] if array.ndim == 3 else array
        if is_array and stack.shape[3] == channels:
            return list(np.moveaxis(stack, 3, 1))
        if stack.shape[1] == channels:
            return list(stack)
        colours = array.shape[-1] if is_array else array.shape[0]
        if array.ndim == 3 and channels == 1 and colours not in (2, 3, 4):
            return list(array[:, None])
    c = channels
    raise SizeError(
        f"{what} has shape {tuple(array.shape)}, the denoiser takes {c} channel{'s' * (c > 1)}: "
        f"arrays (H, W, {c}) or tensors ({c}, H, W), or several as (N, H, W, {c}) or "
        f"(N, {c}, H, W). For pictures of C channels make it with "
        "AsymmetricMaskDenoiser(..., channels=C)"
    )


def pictures_in_memory(images: Iterable[Tensor | Array], channels: int) -> Pictures:
    """Return pictures that are already in memory.

    Raises:
        DataError: there are none.
        SizeError, PixelError: one of them cannot be used, or has NaN or infinite pixels.
    """
    arrays: list[Array] = []
    for number, image in enumerate(images):
        for array in split(image, channels, f"picture {number}"):
            check_picture(array, f"picture {number}")
            arrays.append(array)
    if not arrays:
        raise DataError("there are no pictures to train on: the list or array is empty")
    return pictures_held(arrays)


def pictures_in_files(paths: Paths, channels: int) -> Pictures:
    """Return the pictures in files and folders; skip unreadable files with a warning.

    Pixels are held in memory up to `MEMORY_LIMIT`; if there are more, a part at a time.

    Raises:
        ImageReadError: a path does not exist, or no file can be read.
        DataError: there are no images.
        SizeError: a picture has another number of channels.
        PixelError: a picture has NaN or infinite pixels.
    """
    from ..images import find_images

    files = [file for file, _ in find_images(paths)]
    arrays: list[Array] = []
    held = 0
    for file in files:
        try:
            arrays.append(_read_file(file, channels))
        except ImageReadError as error:
            warnings.warn(f"left out of training: {error}", stacklevel=2)
            continue
        held += arrays[-1].nbytes
        if held > MEMORY_LIMIT:
            return _held_in_part(files, arrays, channels)
    if not arrays:
        raise ImageReadError(f"none of the {len(files)} image files can be read, {files[0]} first")
    return pictures_held(arrays)


def pictures_of_items(dataset: Any, channels: int) -> Pictures:
    """Return the items of a map-style data set, read anew for each crop.

    Raises:
        DataError: the data set is empty, or its first item holds no picture.
        SizeError: the first item does not hold exactly one picture with `channels` channels.
        PixelError: it has NaN or infinite pixels.
    """
    if len(dataset) == 0:
        raise DataError("the data set is empty; it needs at least one picture")

    def read(index: int) -> Array:
        found = split(image_of(dataset[index]), channels, f"item {index} of the data set")
        if len(found) != 1:
            raise SizeError(
                f"item {index} of the data set holds {len(found)} pictures; one, (C, H, W), is "
                "needed; pass a DataLoader where the items are batches"
            )
        check_picture(found[0], f"item {index} of the data set")
        return found[0]

    first = read(0)
    return Pictures(read, [_area(first)] * len(dataset), min(first.shape[1:]), looks=8)


def windows(
    pictures: Pictures, megapixels: float, seed: int, *, side: int = WINDOW
) -> Iterator[Array]:
    """Yield the pictures (C, H, W), or evenly spread windows where they exceed `megapixels`."""
    ends = list(itertools.accumulate(pictures.areas))
    count = count_windows(pictures, megapixels, side=side)
    if count is None:
        yield from map(pictures.read, range(len(pictures)))
        return
    for number in range(count):
        draws = [hash_key(Key(seed, Purpose.WINDOW, 3 * number + k)) / 2**32 for k in range(3)]
        index = bisect_right(ends, (number + draws[0]) / count * ends[-1])
        array = pictures.read(min(index, len(pictures) - 1))
        row, col = (
            int(draw * (max(0, length - side) + 1))
            for draw, length in zip(draws[1:], array.shape[1:], strict=True)
        )
        yield array[:, row : row + side, col : col + side]


def count_windows(pictures: Pictures, megapixels: float, *, side: int = WINDOW) -> int | None:
    """Return how many windows to take, None for the pictures as they are.

    A window is no larger than its picture. Pictures are drawn in proportion to their areas.
    """
    total = sum(pictures.areas)
    if total <= 1e6 * megapixels:
        return None
    pixels = sum(area * min(area, side**2) for area in pictures.areas) / total
    return math.ceil(1e6 * megapixels / pixels)


def measured_range(pictures: Pictures) -> ValueRange | None:
    """Return the `range_of_all` of some of the pictures, on a grid of their pixels."""
    samples = []
    for index in range(0, len(pictures), math.ceil(len(pictures) / pictures.looks)):
        array = pictures.read(index)
        step = max(1, math.isqrt(_area(array) >> 14))
        samples.append(array[:, ::step, ::step])
    return range_of_all(samples)


def range_of_all(arrays: Sequence[Array]) -> ValueRange | None:
    """Return the value range of the floats, if any, else of integers that leave their scale empty.

    Such integers have more than 8 bits (12 stored in 16, say), and none is above `DIM` of its
    scale. Returns None for values on the usual scale.
    """
    floats = [array.ravel() for array in arrays if array.dtype.kind == "f"]
    if floats:
        return range_of(np.concatenate(floats).astype(np.float64))
    if not arrays or any(array.dtype.itemsize == 1 for array in arrays):
        return None
    if any(array.max() > DIM * np.iinfo(array.dtype).max for array in arrays):
        return None
    low, high = _quantiles(np.concatenate([array.ravel() for array in arrays]))
    return CountRange(low, high) if high > low else None


def _quantiles(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, (0.001, 0.999))
    return float(low), float(high)


def range_of(values: Array) -> ValueRange | None:
    """Return the 0.1 and 99.9 percentiles of floats, None where they are on the 0..1 scale.

    Percentiles ignore a few hot pixels. Floats are on that scale if they leave [0, 1] by at most a
    quarter, as noise may make them, and reach `FAINT`. Values that are not finite do not count.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = _quantiles(values)
    if low >= -SLACK and FAINT <= high <= 1 + SLACK:
        return None
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def range_of_windows(windows: Sequence[Array]) -> ValueRange | None:
    """Return the `range_of_all` of every seventh value of the windows."""
    return range_of_all([window.ravel()[::7] for window in windows])


def check_picture(array: Array, what: str) -> None:
    """Raise PixelError if a float picture has NaN or infinite pixels."""
    if array.dtype.kind != "f" or np.isfinite([array.min(), array.max()]).all():
        return
    bad = ~np.isfinite(array)
    channel, row, col = (int(place[0]) for place in np.nonzero(bad))
    raise PixelError(
        f"{what} has {int(bad.sum())} NaN or infinite values, the first at channel {channel}, row "
        f"{row}, column {col}; replace them first, for example with numpy.nan_to_num"
    )


def pictures_held(arrays: list[Array]) -> Pictures:
    """Return pictures (C, H, W) that are in memory and have been checked."""
    areas = [_area(array) for array in arrays]
    return Pictures(arrays.__getitem__, areas, _shortest(arrays), arrays=arrays)


def _held_in_part(files: list[Path], known: list[Array], channels: int) -> Pictures:
    """Return the pictures in files, of which only the last ones read are held, up to the limit.

    A file that cannot be read is replaced by the next one.
    """
    slots = max(1, MEMORY_LIMIT // max(array.nbytes for array in known))
    area = sum(map(_area, known)) // len(known)

    @functools.lru_cache(maxsize=slots)
    def read(index: int) -> Array:
        for place in range(index, index + len(files)):
            try:
                return _read_file(files[place % len(files)], channels)
            except ImageReadError as error:
                warnings.warn(f"left out of training: {error}", stacklevel=2)
        raise ImageReadError(f"none of the {len(files)} image files can be read any more")

    return Pictures(read, [area] * len(files), _shortest(known), slots, looks=8)


def _read_file(file: Path, channels: int) -> Array:
    from ..images import read_image

    pixels = read_image(file).pixels
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] != channels:
        raise SizeError(
            f"{file} has {pixels.shape[2]} channels, the denoiser takes {channels}; leave it out, "
            f"or make the denoiser with channels={pixels.shape[2]} for pictures like it"
        )
    array = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))  # crops are cut faster by planes
    check_picture(array, str(file))
    return array


def _area(array: Array) -> int:
    return int(array.shape[1] * array.shape[2])


def _shortest(arrays: list[Array]) -> int:
    return int(min(side for array in arrays for side in array.shape[1:]))


def _is_picture(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim >= 2


def _to_numpy(tensor: Tensor) -> Array:
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()

"""Pixels on their way to the network: pictures held on a GPU, and asynchronous copies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..calls import free_memory
from ..transfer import to_device
from ..values import ValueRange, to_batch
from .pictures import Array, Pictures

SHARE = 0.25  # of a GPU's free memory that pictures may take
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32}  # can be indexed on every GPU


class CropPlace(NamedTuple):
    """Where a crop is cut from a picture, and how it is turned.

    Attributes:
        row, col: of its top left pixel.
        turn: bits: 1 to reverse rows, 2 to reverse columns, 4 to transpose after that.
    """

    row: int
    col: int
    turn: int


def crop_of(array: Array, place: CropPlace, side: int) -> Array:
    """Return a square of (C, H, W), turned; a view."""
    crop = array[:, place.row : place.row + side, place.col : place.col + side]
    crop = crop[:, ::-1] if place.turn & 1 else crop
    crop = crop[:, :, ::-1] if place.turn & 2 else crop
    return crop.swapaxes(1, 2) if place.turn & 4 else crop


def can_hold(pictures: Pictures, device: torch.device) -> bool:
    """Return whether to hold the pictures on the device: a GPU with room, and all of one dtype."""
    if device.type != "cuda" or pictures.arrays is None:
        return False
    kinds = {array.dtype.newbyteorder("=") for array in pictures.arrays}
    total = sum(array.nbytes for array in pictures.arrays)
    return len(kinds) == 1 and kinds.pop().itemsize <= 8 and total <= SHARE * free_memory(device)


class PixelStore:
    """Pictures of any sizes in one flat tensor, in their own dtype.

    Args:
        arrays: (C, H, W) each, of one dtype and number of channels.
        device: that holds them.
    """

    def __init__(self, arrays: Sequence[Array], device: torch.device) -> None:
        self.shapes = [array.shape for array in arrays]
        self.begins = list(itertools.accumulate((array.size for array in arrays), initial=0))
        self.dtype = _to_tensor(arrays[0][:, :1, :1]).dtype
        kind = SIGNED.get(self.dtype, self.dtype)
        self.pixels = torch.empty(self.begins[-1], dtype=kind, device=device)
        for array, (begin, end) in zip(arrays, itertools.pairwise(self.begins), strict=True):
            self.pixels[begin:end] = _to_tensor(array).view(kind).reshape(-1)

    def cut(self, chosen: Sequence[int], places: Sequence[CropPlace], side: int) -> Tensor:
        """Return the crops (B, C, side, side) of the chosen pictures, turned, in one gather."""
        pairs = zip(chosen, places, strict=True)
        table = torch.tensor([self._steps(index, place, side) for index, place in pairs])
        table = to_device(table, self.pixels.device)
        start, plane, down, right = table.view(-1, 4, 1, 1, 1).unbind(1)
        along = torch.arange(side, device=table.device)
        channel = torch.arange(self.shapes[0][0], device=table.device).view(1, -1, 1, 1)
        index = start + plane * channel + down * along.view(1, 1, -1, 1) + right * along
        return self.pixels[index].view(self.dtype)

    def _steps(self, index: int, place: CropPlace, side: int) -> tuple[int, int, int, int]:
        """Return the index of a crop's first pixel, and steps to the next channel, row and column.

        Reversed rows or columns begin at the other end and step backwards; transposing swaps the
        steps to the next row and column.
        """
        _, height, width = self.shapes[index]
        start = self.begins[index] + place.row * width + place.col
        down, right = width, 1
        if place.turn & 1:
            start, down = start + (side - 1) * width, -width
        if place.turn & 2:
            start, right = start + side - 1, -1
        steps = (right, down) if place.turn & 4 else (down, right)
        return (start, height * width, *steps)


def unit_scale(image: Tensor, device: torch.device, value_range: ValueRange | None) -> Tensor:
    """Return a float batch on the 0..1 scale; if the device is a GPU, copied there asynchronously.

    Integers of 8 and 16 bits are copied as they are and converted there: a quarter or half of the
    bytes, and the same values.
    """
    if device.type != "cuda":
        return to_batch(image, value_range=value_range)[0]
    small = not image.is_floating_point() and image.element_size() < 4
    image = to_device(image, device) if small else image
    return to_device(to_batch(image, value_range=value_range)[0], device)


def _to_tensor(array: Array) -> Tensor:
    """Return a tensor with a copy of the array, in the byte order of the machine."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))

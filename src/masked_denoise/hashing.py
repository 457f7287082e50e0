"""Random bits from an integer hash of seed, purpose, number of the draw, and pixel.

They are the same on every device, and no random number generator is used.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WORD = 0xFFFFFFFF
ROW, COLUMN = 0x68E31DA4, 0x35294E57  # make the stages of the hash differ
Word = TypeVar("Word", int, Tensor)
Words = NDArray[Any]


class Key(NamedTuple):
    """What a draw depends on, apart from the pixel: seed, purpose, and number of the draw."""

    seed: int = 0
    purpose: int = 0
    draw: int = 0


class Purpose:
    """Numbers that separate the random streams."""

    TRAIN, BRANCH, STRIDE, INFER, REPLACE, VALIDATE, CROP, REFINE = range(8)
    NEIGHBOR = 16  # added to the purpose of the mask that a fill belongs to
    SLOT, EPOCH, FETCH, WINDOW = range(32, 36)  # choice and order of the training pictures
    NETWORK = 64  # draws within networks, such as dropout; the number of the process is added


def mix(word: Word) -> Word:
    """Return 32 well-mixed bits of a 32-bit word (int or int64 tensor): a bijective hash.

    Two rounds of xor-shift and multiply; both multipliers are below 2**31, so that no product
    leaves the signed 64-bit range on any device.
    """
    word = word ^ (word >> 16)
    word = (word * 0x21F0AAAD) & WORD
    word = word ^ (word >> 15)
    word = (word * 0x735A2D97) & WORD
    return word ^ (word >> 15)


def hash_key(key: Key) -> int:
    """Return 32 bits from a key, of which 64 bits of each part count."""
    state = 0x9E3779B9
    for part in key:
        state = mix(state ^ (part & WORD))
        state = mix((state + 0x3C6EF35F) & WORD ^ (part >> 32 & WORD))
    return state


def hash_pixels(key: Key, sample: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Return one 32-bit word (int64) for each (sample, row, col), of their broadcast shape.

    Coordinates are mixed in one after another, so that no linear index can overflow; all 64 bits
    of the sample count. On a CPU the same is computed by numpy, whose calls cost less than torch's.
    """
    if sample.device.type == "cpu":
        return _hash_array(key, sample.numpy(), row.numpy(), col.numpy())
    return hash_words(hash_key(key), sample, row, col)


def hash_words(state: Tensor | int, sample: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Return the words of `hash_pixels`, given `state`, the result of `hash_key`."""
    word = mix((sample & WORD) ^ mix(sample >> 32 & WORD) ^ state)
    word = mix(((word + row) & WORD) ^ ROW)
    return mix(((word + col) & WORD) ^ COLUMN)


def _hash_array(key: Key, sample: Words, row: Words, col: Words) -> Tensor:
    """Return `hash_pixels` of int64 arrays, computed in uint32, which needs no masking."""
    high = _mix_array((sample >> 32).astype(np.uint32))
    word = _mix_array(sample.astype(np.uint32) ^ high ^ np.uint32(hash_key(key)))
    word = _mix_array((word + row.astype(np.uint32)) ^ np.uint32(ROW))
    word = _mix_array((word + col.astype(np.uint32)) ^ np.uint32(COLUMN))
    return torch.from_numpy(word.astype(np.int64))


def _mix_array(word: Words) -> Words:
    """Return `mix` of a uint32 array, which may be overwritten."""
    word = np.atleast_1d(word)
    word ^= word >> 16
    word *= np.uint32(0x21F0AAAD)
    word ^= word >> 15
    word *= np.uint32(0x735A2D97)
    word ^= word >> 15
    return word

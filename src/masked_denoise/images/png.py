"""PNG at the level of chunks: a reader for 16 bits, and a writer for 8 and 16 bits.

Pillow reduces 16-bit colour to 8 bits and cannot write it. Terms and section numbers are those of
the PNG specification, third edition (https://www.w3.org/TR/png-3/).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import ImageReadError

Array: TypeAlias = np.ndarray[Any, Any]

# Passes without and with Adam7 (section 8.1): first row, first column, row step, column step
_PASSES = (
    ((0, 0, 1, 1),),
    (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ),
)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the bodies of a PNG's chunks by name, with the IDAT chunks joined.

    Raises:
        ImageReadError: a checksum is wrong, or the file ends before its last chunk.
    """
    chunks: dict[bytes, bytes] = {}
    pixels = []
    at, view = len(SIGNATURE), memoryview(data)
    while b"IEND" not in chunks:
        length, name = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (0, b"")
        end = at + 8 + length
        if not name or end + 4 > len(data):
            raise ImageReadError(f"the file is cut off: it ends after {len(data)} bytes")
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ImageReadError(f"the file is damaged: wrong checksum in chunk {name!r}")
        chunks[name] = data[at + 8 : end]
        if name == b"IDAT":
            pixels.append(chunks[name])
        at = end + 4
    return {**chunks, b"IDAT": b"".join(pixels)}


def read_samples16(chunks: Mapping[bytes, bytes]) -> Array:
    """Return the samples of a 16-bit PNG as stored: uint16 (H, W, C), C from 1 to 4.

    Raises:
        ImageReadError: there are too few pixels, or a filter type is invalid.
        zlib.error: the compressed pixels are damaged.
    """
    width, height, _, kind, *_, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[kind]
    step = 2 * channels
    samples = np.empty((height, width, step), np.uint8)
    parts = [samples[r::down, c::right] for r, c, down, right in _PASSES[interlaced]]
    parts = [part for part in parts if part.size]
    needed = sum(len(part) * (1 + part.shape[1] * step) for part in parts)
    stored = np.frombuffer(zlib.decompressobj().decompress(chunks[b"IDAT"], needed), np.uint8)
    if len(stored) < needed:
        raise ImageReadError(f"the file is damaged: {len(stored)} of {needed} bytes of pixels")
    for part in parts:
        row = 1 + part.shape[1] * step
        lines, stored = np.split(stored, [len(part) * row])
        _unfilter(lines.reshape(len(part), row), part)
    return samples.view(">u2").astype(np.uint16)


def _unfilter(lines: Array, pixels: Array, band: int = 1024) -> None:
    """Restore filtered `lines`, uint8 (H, 1 + W * step), into `pixels` (H, W, step).

    A byte depends on those to its left (a), above (b) and above left (c), so that all bytes of an
    antidiagonal can be restored at once: `skewed[t]` holds the pixels (y, t - y) of a band of rows.
    The filters Sub and Up are Paeth (section 9.4) with b = c = 0 and with a = c = 0.
    """
    height, width, step = pixels.shape
    above = np.zeros((width + min(band, height) + 1, step), np.int16)
    for first in range(0, height, band):
        part = lines[first : first + band]
        rows = len(part)
        kind = np.repeat(part[:, :1], step, axis=1)
        if kind.max() > 4:
            raise ImageReadError(f"the file is damaged: it has a filter of type {kind.max()}")
        use_a, use_b, use_c = (
            -np.isin(kind, k).astype(np.int16) for k in ((1, 3, 4), (2, 3, 4), 4)
        )
        wide = np.zeros((rows, width + 2 * rows, step), np.uint8)  # zeros left of the picture
        wide[:, rows : rows + width] = part[:, 1:].reshape(rows, width, step)
        skewed = np.lib.stride_tricks.as_strided(
            wide[0, rows:], (width + rows - 1, rows, step), (step, wide.strides[0] - step, 1)
        )
        last, before = np.zeros((2, rows + 1, step), np.int16)  # the previous two antidiagonals
        last[0] = above[0]
        for t, diagonal in enumerate(skewed):
            a, b, c = last[1:] & use_a, last[:-1] & use_b, before[:-1] & use_c
            guess = np.where(kind == 3, (a + b) >> 1, _paeth(a, b, c))
            last, before = before, last
            last[1:] = (diagonal + guess) & 255
            last[0] = above[t + 1]
            diagonal[:] = last[1:]
        pixels[first : first + rows] = wide[:, rows : rows + width]
        above[:width] = pixels[first + rows - 1]


def _paeth(a: Array, b: Array, c: Array) -> Array:
    """Return the one of a, b, c (int16) nearest to a + b - c, the first of equally near ones."""
    to_a, to_b = b - c, a - c
    to_c = np.abs(to_a + to_b)
    to_a, to_b = np.abs(to_a), np.abs(to_b)
    return np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))


def write_samples(samples: Array, chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Return a PNG file of `samples`, uint8 or uint16 (H, W, C): grey, grey + alpha, RGB or RGBA.

    Args:
        samples: as above.
        chunks: (name, body) pairs to write between the header and the pixels.

    >>> list(read_chunks(write_samples(np.zeros((2, 3, 3), np.uint16))))
    [b'IHDR', b'IDAT', b'IEND']
    """
    height, width, channels = samples.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, kind, 0, 0, 0)
    stored = np.ascontiguousarray(samples, samples.dtype.newbyteorder(">")).view(np.uint8)
    packed = _pack(stored.reshape(height, -1), channels * samples.itemsize)
    pixels = [(b"IDAT", block) for block in packed if block]
    framed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [(b"IHDR", header), *chunks, *pixels, (b"IEND", b"")]
    ]
    return b"".join([SIGNATURE, *framed])


def _pack(rows: Array, step: int, block: int = 64) -> Iterator[bytes]:
    """Yield the compressed pixels, each row with the filter of the smallest sum of differences.

    Args:
        rows: uint8 (H, bytes per row).
        step: bytes per pixel (PNG specification, section 9).
        block: rows per call of the compressor.
    """
    packer = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
    padded = np.pad(rows, ((1, 0), (step, 0)))
    for first in range(0, len(rows), block):
        part = padded[first : first + block + 1].astype(np.int16)
        here = part[1:, step:]
        a, b, c = part[1:, :-step], part[:-1, step:], part[:-1, :-step]
        guesses = (np.zeros_like(here), a, b, (a + b) >> 1, _paeth(a, b, c))
        filtered = np.stack([(here - guess).astype(np.uint8) for guess in guesses])
        best = np.abs(filtered.view(np.int8).astype(np.int16)).sum(2, dtype=np.int64).argmin(0)
        chosen = filtered[best, np.arange(len(best))]
        yield packer.compress(np.hstack([best[:, None].astype(np.uint8), chosen]).tobytes())
    yield packer.flush()

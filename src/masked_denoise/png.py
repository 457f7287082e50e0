"""PNG as the standard stores it: checked chunks, 16-bit samples, and a writer for 8 and 16 bit.

Pillow reads 16-bit colour as 8 bit and cannot write it, so 16-bit samples are read by torchvision
(libpng) and every PNG is written here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from masked_denoise.errors import ImageReadError

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the chunks of a PNG by name, in their order; bodies of IDAT are left out.

    Raises `ImageReadError` for a wrong checksum and for a file that ends before its last chunk.
    """
    chunks: dict[bytes, bytes] = {}
    at, view = len(SIGNATURE), memoryview(data)
    while b"IEND" not in chunks:
        if at + 12 > len(data):
            raise ImageReadError(f"the file is cut off after {len(data)} bytes")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise ImageReadError(f"the file is cut off after {len(data)} bytes, in its pixels")
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ImageReadError(f"the file is damaged: wrong checksum in chunk {name!r}")
        chunks[name] = b"" if name == b"IDAT" else data[at + 8 : end]
        at = end + 4
    return chunks


def read_samples16(data: bytes) -> np.ndarray[Any, Any]:
    """Return the samples of a 16-bit PNG as they are stored: uint16 (H, W, C), C from 1 to 4.

    Raises `RuntimeError`, from libpng, for damaged pixels.
    """
    import torch
    from torchvision.io import ImageReadMode, decode_png

    stored = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    samples = decode_png(stored, ImageReadMode.UNCHANGED).permute(1, 2, 0)
    return np.ascontiguousarray(samples.numpy().astype(np.uint16))


def write_samples(
    samples: np.ndarray[Any, Any], chunks: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """Return a PNG file of `samples`, uint8 or uint16 (H, W, C): grey, grey + alpha, RGB or RGBA.

    `chunks` are (name, body) pairs that stand between the header and the pixels.

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


def _pack(rows: np.ndarray[Any, Any], step: int, block: int = 64) -> Iterator[bytes]:
    """Yield the compressed pixels, every row in the filter that leaves the smallest differences.

    `rows` is (H, bytes of a row), `step` the bytes of a pixel (PNG standard, section 9).
    """
    packer = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
    padded = np.pad(rows, ((1, 0), (step, 0)))
    for first in range(0, len(rows), block):
        part = padded[first : first + block + 1]
        here, up = part[1:, step:], part[:-1, step:]
        left, corner = part[1:, :-step], part[:-1, :-step]
        a, b, c = (values.astype(np.int16) for values in (left, up, corner))
        to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
        paeth = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
        guesses = (np.zeros_like(here), left, up, ((a + b) >> 1).astype(np.uint8), paeth)
        filtered = np.stack([here - guess for guess in guesses])
        best = np.abs(filtered.view(np.int8).astype(np.int16)).sum(2, dtype=np.int64).argmin(0)
        chosen = filtered[best, np.arange(len(best))]
        yield packer.compress(np.hstack([best[:, None].astype(np.uint8), chosen]).tobytes())
    yield packer.flush()

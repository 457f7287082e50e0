"""Decoding of PNG, JPEG, TIFF and NPY files into an `ImageFile`, and encoding into bytes.

JPEG, and PNG of up to 8 bits, are read by Pillow, JPEG is written by it, and NPY handled by numpy;
for the rest see png.py and tiff.py.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import ImageReadError, PixelError, SettingError, SizeError
from . import png, tiff
from .metadata import (
    XMP_OF_JPEG,
    XMP_OF_PNG,
    orientation_of,
    texts_of,
    upright_exif,
    upright_xmp,
    xmp_of,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Array: TypeAlias = np.ndarray[Any, Any]
Samples: TypeAlias = tuple[Array, "Array | None"]  # pixels and alpha

PIXEL_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
JPEG_LONGEST_SIDE = 65500
JPEG_LARGEST_EXIF = 65533 - 6  # bytes of a segment without its identifier
PNG_FINEST = 2**31 - 1  # pixels per metre; higher values are no valid resolution
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\x93NUMPY": "npy",
}
_PNG_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_USE_PNG = "write .png (--format png)"
_USE_TIFF = "write .tif (--format tiff)"


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The contents of one image file, in the stored dtype and scale, turned upright.

    Use `dataclasses.replace(image, pixels=clean)` to give a result the metadata of its source.

    Attributes:
        pixels: (H, W) or (H, W, C) without alpha; unsigned integers of 8 or 16 bits, or floats of
            16, 32 or 64 bits.
        alpha: (H, W) of the same dtype, or None.
        format: "png", "jpeg", "tiff" or "npy".
        icc_profile, exif, xmp: the file's bytes; EXIF has no thumbnail, and EXIF and XMP have the
            orientation 1.
        dpi: (horizontal, vertical).
        native: metadata that only the same format can store: colour chunks and texts of PNG; the
            comment of JPEG; text tags, resolution, compression and extra channels of TIFF.
        path: of the file.

    Raises:
        SizeError: the shape is not one of these.
        PixelError: the dtype is not one of these.

    >>> ImageFile(np.zeros((2, 3, 3), np.uint16)).pixels.shape
    (2, 3, 3)
    """

    pixels: Array
    alpha: Array | None = None
    format: str = "png"
    icc_profile: bytes | None = field(default=None, repr=False)
    exif: bytes | None = field(default=None, repr=False)
    xmp: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    native: Mapping[str, Any] = field(default_factory=dict, repr=False)
    path: Path | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) not in (2, 3) or 0 in shape:
            raise SizeError(f"pixels have shape {shape}; need (H, W) or (H, W, C), none of them 0")
        if dtype.name not in PIXEL_TYPES:
            wanted = ", ".join(PIXEL_TYPES)
            raise PixelError(f"pixels are {dtype}; convert them to one of {wanted} first")
        if self.alpha is not None and (self.alpha.shape, self.alpha.dtype) != (shape[:2], dtype):
            raise SizeError(
                f"alpha is {self.alpha.dtype} {self.alpha.shape}; it must have the height, width "
                f"and type of the pixels, {dtype} {shape[:2]}"
            )


def decode(path: Path) -> ImageFile:
    """Return the contents of a file, whose format is detected from its first bytes.

    Raises:
        ImageReadError: the file is empty or not supported.
        Exception: any error of the decoding library for damaged files; `read_image` converts it to
            an `ImageReadError` that names the file.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    if not start:
        raise ImageReadError("the file is empty (0 bytes)")
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return _DECODERS[kind](path)
    raise ImageReadError(f"not a PNG, JPEG, TIFF or NPY file: it begins with {start!r}")


def encode(image: ImageFile, kind: str, quality: int = 95) -> bytes:
    """Return the bytes of a file with the image.

    Args:
        image: to encode.
        kind: "png", "jpeg", "tiff" or "npy".
        quality: of JPEG, 1 to 100.

    Raises:
        SettingError: the format cannot store the pixels, their dtype or the alpha channel.
    """
    pixels = image.pixels[..., 0] if image.pixels.shape[2:] == (1,) else image.pixels
    dtype, colours = pixels.dtype.name, pixels.shape[2] if pixels.ndim == 3 else 1
    if kind in ("png", "jpeg"):
        if colours not in (1, 3):
            raise SettingError(f"{kind} holds 1 or 3 colours, not {colours}; {_USE_TIFF}")
        if dtype not in ("uint8", "uint16"):
            raise SettingError(f"{kind} cannot hold {dtype} pixels; {_USE_TIFF}")
    if kind == "jpeg" and dtype == "uint16":
        raise SettingError(f"jpeg holds 8 bits and the image has 16; {_USE_PNG}")
    if kind in ("jpeg", "npy") and image.alpha is not None:
        raise SettingError(f"{kind} has no alpha channel and the image has one; {_USE_PNG}")
    if kind == "png" and image.alpha is not None and image.native.get("alpha_kind") == 1:
        raise SettingError(f"png cannot hold colours multiplied by alpha; {_USE_TIFF}")
    if kind == "jpeg":
        return _encode_jpeg(image, pixels, quality)
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, image.pixels, allow_pickle=False)
        return buffer.getvalue()
    return _encode_png(image, pixels) if kind == "png" else _encode_tiff(image, pixels)


# Orientation


def _upright(array: Array, orientation: int) -> Array:
    """Return pixels (H, W, ...) turned upright from EXIF orientation 1 to 8, in native bytes."""
    if orientation in (5, 7):
        array = array.swapaxes(0, 1)
    turns = {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0)
    array = np.rot90(array, turns) if turns else array
    if orientation in (2, 4):
        array = np.flip(array, 1 if orientation == 2 else 0)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _image_file(pixels: Array, alpha: Array | None, orientation: int, **meta: Any) -> ImageFile:
    """Return the picture turned upright; an invalid orientation is ignored."""
    orientation = orientation if orientation in range(1, 9) else 1
    if orientation >= 5 and meta["dpi"]:
        meta["dpi"] = meta["dpi"][::-1]
    if alpha is not None:
        alpha = _upright(alpha, orientation)
    return ImageFile(_upright(pixels, orientation), alpha, **meta)


def _with_pillow(picture: Image, samples: Samples, **meta: Any) -> ImageFile:
    """Return `samples` (pixels, alpha) with the metadata that Pillow has read."""
    return _image_file(
        *samples,
        orientation=orientation_of(picture),
        icc_profile=picture.info.get("icc_profile"),
        exif=upright_exif(picture.info.get("exif")),
        xmp=upright_xmp(xmp_of(picture)),
        dpi=picture.info.get("dpi"),
        **meta,
    )


def _pillow_samples(picture: Image) -> Samples:
    """Return pixels and alpha of a loaded picture; palettes become RGB, 1 bit becomes 8."""
    if picture.mode in ("1", "L", "LA"):
        picture = picture.convert("LA" if picture.has_transparency_data else "L")
    elif picture.mode in ("P", "RGB", "RGBA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    else:
        raise ImageReadError(f"colour mode {picture.mode}; convert the file to grey or RGB first")
    array = np.asarray(picture)
    if picture.mode in ("LA", "RGBA"):
        return array[..., 0] if picture.mode == "LA" else array[..., :3], array[..., -1]
    return array, None


# PNG and JPEG


def _decode_jpeg(path: Path) -> ImageFile:
    from PIL import Image

    with Image.open(path, formats=["JPEG", "MPO"]) as picture:
        picture.load()
        comment = picture.info.get("comment")
        native = {"comment": comment} if comment else {}
        samples = _pillow_samples(picture)
        return _with_pillow(picture, samples, format="jpeg", path=path, native=native)


def _encode_jpeg(image: ImageFile, pixels: Array, quality: int) -> bytes:
    from PIL import Image

    if not 1 <= quality <= 100:
        raise SettingError(f"quality is {quality}; JPEG takes 1 to 100, 95 keeps nearly everything")
    if max(pixels.shape[:2]) > JPEG_LONGEST_SIDE:
        raise SettingError(f"jpeg sides end at {JPEG_LONGEST_SIDE} pixels; {_USE_PNG}")
    dpi = image.dpi and tuple(min(round(value), 65535) for value in image.dpi)
    if image.exif and len(image.exif) > JPEG_LARGEST_EXIF:
        size = len(image.exif)
        raise SettingError(f"jpeg holds 64 kB of EXIF and the image has {size} bytes; {_USE_PNG}")
    given = {
        "icc_profile": image.icc_profile, "exif": image.exif, "dpi": dpi,
        "comment": image.native.get("comment"),
    }  # fmt: skip
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, "JPEG", quality=quality, subsampling=0, **{k: v for k, v in given.items() if v}
    )
    data = buffer.getvalue()
    if not image.xmp:
        return data
    body = XMP_OF_JPEG + image.xmp
    if len(body) > 65533:  # more than fits into a segment: it is omitted
        return data
    end = _end_of_head(data)
    return data[:end] + struct.pack(">2sH", b"\xff\xe1", len(body) + 2) + body + data[end:]


def _end_of_head(data: bytes) -> int:
    """Return the offset in a JPEG after its JFIF header and EXIF, if it has them."""
    end = 2
    while data[end : end + 2] in (b"\xff\xe0", b"\xff\xe1"):
        end += 2 + struct.unpack_from(">H", data, end + 2)[0]
    return end


def _decode_png(path: Path) -> ImageFile:
    from PIL import Image

    data = path.read_bytes()
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        chunks = png.read_chunks(data)
        if getattr(picture, "n_frames", 1) > 1:
            raise ImageReadError("an animated PNG; save each frame as a file of its own")
        picture.load()
        deep = chunks[b"IHDR"][8] == 16
        samples = _deep_samples(chunks) if deep else _pillow_samples(picture)
        colour = [(name, chunks[name]) for name in _PNG_COLOUR if name in chunks]
        native: dict[str, Any] = {"chunks": colour} if colour else {}
        if texts := texts_of(picture):
            native["texts"] = texts
        return _with_pillow(picture, samples, format="png", path=path, native=native)


def _deep_samples(chunks: Mapping[bytes, bytes]) -> Samples:
    """Return pixels and alpha of a 16-bit PNG; a transparent colour becomes alpha."""
    array = png.read_samples16(chunks)
    colours = 1 if array.shape[2] < 3 else 3
    pixels = array[..., 0] if colours == 1 else array[..., :3]
    if b"tRNS" in chunks:
        shown = (array[..., :colours] != np.frombuffer(chunks[b"tRNS"], ">u2")).any(-1)
        return pixels, shown.astype(np.uint16) * np.uint16(65535)
    return pixels, array[..., -1] if array.shape[2] > colours else None


def _encode_png(image: ImageFile, pixels: Array) -> bytes:
    chunks = list(image.native.get("chunks", []))
    if image.icc_profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(image.icc_profile)))
    if image.dpi and all(0 <= value < PNG_FINEST * 0.0254 for value in image.dpi):
        per_metre = [round(value / 0.0254) for value in image.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if image.xmp:
        chunks.append((b"iTXt", XMP_OF_PNG.encode() + bytes(5) + image.xmp))
    if image.exif:
        chunks.append((b"eXIf", image.exif.removeprefix(b"Exif\0\0")))
    for keyword, text in image.native.get("texts", {}).items():
        chunks.append((b"iTXt", keyword.encode("latin-1") + bytes(5) + text.encode()))
    planes = [pixels] if image.alpha is None else [pixels, image.alpha]
    return png.write_samples(np.dstack(planes), chunks)


# TIFF and NPY


def _decode_tiff(path: Path) -> ImageFile:
    pixels, alpha, meta = tiff.read_page(path)
    meta["xmp"] = upright_xmp(meta["xmp"])
    return _image_file(pixels, alpha, **meta, format="tiff", path=path)


def _encode_tiff(image: ImageFile, pixels: Array) -> bytes:
    return tiff.write_page(
        pixels, image.alpha, icc_profile=image.icc_profile, xmp=image.xmp, dpi=image.dpi,
        native=image.native,
    )  # fmt: skip


def _decode_npy(path: Path) -> ImageFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a wrong size costs nothing
    if array.ndim == 3 and array.shape[2] > max(4, array.shape[0]):
        raise ImageReadError(
            f"an array of shape {array.shape}, which looks like (C, H, W) or a stack; "
            "store (H, W) or (H, W, C), one image a file"
        )
    return ImageFile(_upright(np.array(array), 1), format="npy", path=path)


_DECODERS = {"png": _decode_png, "jpeg": _decode_jpeg, "tiff": _decode_tiff, "npy": _decode_npy}

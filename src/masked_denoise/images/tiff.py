"""TIFF files of one page: pixels, alpha and the tags to keep, read and written by tifffile.

By itself, tifffile reads uncompressed files and Deflate, LZMA and PackBits compression. For other
compressions Pillow (libtiff) is used where it is exact: for 8-bit pictures, and 16-bit or float
grey. With the package imagecodecs installed, tifffile reads them all. YCbCr is left to Pillow.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import ImageReadError

Array: TypeAlias = np.ndarray[Any, Any]

_TEXT = (270, 271, 272, 306, 315, 33432)  # description, maker, model, date, artist, copyright
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _ICC_PROFILE = (
    274,
    282,
    283,
    296,
    34675,
)
_XMP = 700
_PLAIN_COMPRESSIONS = (1, 8, 32773, 32946, 34925)
_ALPHA_KINDS = (1, 2)  # colours multiplied by alpha, or not
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width
_PER_INCH = {2: 1.0, 3: 2.54}


def read_page(path: Path) -> tuple[Array, Array | None, dict[str, Any]]:
    """Return pixels, alpha (or None) and `orientation`, `icc_profile`, `xmp`, `dpi` and `native`.

    In the pixels 0 is always black; palettes become RGB, 1 bit becomes 8, and planes (C, H, W)
    become (H, W, C). `native` is for `write_page`, to keep text tags, the resolution, the kind of
    extra channels, and whether the file is compressed.

    Raises:
        ImageReadError: the file has several pages, is truncated, or has colours other than grey,
            RGB, palette and YCbCr.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        pages = [page.aspage() for page in tiff.pages]
        pages = [page for page in pages if not page.is_reduced] or pages
        if not pages:
            raise ImageReadError("the file is cut off: there is no picture in it")
        if len(pages) != 1 or tiff.series[0].size != pages[0].size:
            raise ImageReadError("a TIFF of several pages; save each page as a file of its own")
        page = pages[0]
        _check(page, path.stat().st_size)
        tags = {tag.code: tag.value for tag in page.tags}
        orientation = tags.get(_ORIENTATION, 1)
        resolution = [tags.get(code, (0, 0)) for code in (_X_RESOLUTION, _Y_RESOLUTION)]
        plain = page.compression in _PLAIN_COMPRESSIONS and page.predictor in (1, 2)
        codecs = importlib.util.find_spec("imagecodecs") is not None
        if page.photometric.name != "YCBCR" and (plain or codecs):
            pixels, alpha, native = _samples(page)
        else:  # Pillow turns the picture upright by itself
            pixels, alpha = _samples_from_pillow(path, page)
            native = {}
            resolution = resolution[::-1] if orientation in _SIDEWAYS else resolution
            orientation = 1
    dpi = None
    if all(min(fraction) > 0 for fraction in resolution):
        unit = int(tags.get(_RESOLUTION_UNIT, 2))
        if unit in _PER_INCH:
            dpi = tuple(over / under * _PER_INCH[unit] for over, under in resolution)
        upright = resolution[::-1] if orientation in _SIDEWAYS else resolution
        native["resolution"] = (*upright, unit)
    native["text"] = {code: tags[code] for code in _TEXT if isinstance(tags.get(code), str | bytes)}
    native["compressed"] = page.compression != 1
    xmp = tags.get(_XMP)
    xmp = xmp if isinstance(xmp, bytes) else None
    kept = {"icc_profile": tags.get(_ICC_PROFILE), "xmp": xmp, "dpi": dpi, "native": native}
    return pixels, alpha, {"orientation": orientation, **kept}


def _check(page: Any, file_size: int) -> None:
    """Raise an error for a page that is absurdly large, truncated, or in unsupported colours."""
    from PIL import Image

    area = page.imagewidth * page.imagelength
    if Image.MAX_IMAGE_PIXELS and area > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"it claims {area} pixels")
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        if 0 in (offset, length) or offset + length > file_size:
            raise ImageReadError(f"the file is cut off: it ends after {file_size} bytes")
    colour = page.photometric.name
    if colour not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE", "YCBCR"):
        raise ImageReadError(f"a TIFF in {colour} colour; convert it to grey or RGB first")
    if page.axes not in ("YX", "YXS", "SYX") or page.bitspersample not in (1, 8, 16, 32, 64):
        raise ImageReadError(
            f"a TIFF with axes {page.axes} and {page.bitspersample} bits a sample; "
            "convert it to a flat picture of 8 bit, 16 bit or float first"
        )


def _samples(page: Any) -> tuple[Array, Array | None, dict[str, Any]]:
    """Return pixels, alpha, and `native` for colours and extra channels, decoded by tifffile."""
    array = page.asarray()
    if page.axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    colour = page.photometric.name
    if colour == "PALETTE":
        array = (page.colormap >> 8).astype(np.uint8).T[array]
    elif colour == "MINISWHITE":
        if array.dtype.kind != "u":
            raise ImageReadError(f"a TIFF of {array.dtype} in which 0 is white; invert it first")
        array = np.invert(array)
    rgb = colour in ("RGB", "PALETTE")
    extra = [int(kind) for kind in page.extrasamples]
    if extra and (extra[-1] in _ALPHA_KINDS or (rgb and len(extra) == 1)):
        pixels = array[..., 0] if array.shape[-1] == 2 else array[..., :-1]
        return pixels, array[..., -1], {"rgb": rgb, "alpha_kind": extra[-1]}
    return array, None, {"rgb": rgb}


def _samples_from_pillow(path: Path, page: Any) -> tuple[Array, Array | None]:
    """Return pixels and alpha of a page that tifffile alone cannot decode."""
    from PIL import Image

    name = getattr(page.compression, "name", page.compression)
    if page.samplesperpixel > 1 and page.bitspersample != 8:
        raise ImageReadError(
            f"{name} compression of {page.bitspersample}-bit colour needs one more package; type: "
            "pip install imagecodecs (or save the file with Deflate or without compression)"
        )
    with Image.open(path, formats=["TIFF"]) as picture:
        picture.load()
        if picture.mode == "1":
            return np.asarray(picture.convert("L")), None
        if picture.mode in ("P", "YCbCr"):
            return np.asarray(picture.convert("RGB")), None
        array = np.asarray(picture)
        if picture.mode in ("LA", "RGBA"):
            return array[..., 0] if picture.mode == "LA" else array[..., :3], array[..., -1]
        if picture.mode in ("L", "RGB", "F", "I;16", "I;16B"):
            return array, None
        raise ImageReadError(f"a TIFF of mode {picture.mode} in {name}; save it uncompressed first")


def write_page(
    pixels: Array,
    alpha: Array | None,
    *,
    icc_profile: bytes | None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None,
    native: Mapping[str, Any],
) -> bytes:
    """Return a TIFF file of one page: (H, W) or (H, W, C) of any dtype, with or without alpha."""
    import tifffile

    planes = np.dstack([pixels] if alpha is None else [pixels, alpha])
    colours = pixels.shape[2] if pixels.ndim == 3 else 1
    rgb = colours >= 3 and native.get("rgb", colours == 3)
    extra = [0] * (colours - (3 if rgb else 1))
    extra += [] if alpha is None else [native.get("alpha_kind", 2)]
    x, y, unit = native.get("resolution") or (*(dpi or (1, 1)), 2 if dpi else 1)
    compressed = native.get("compressed", False)
    text = [
        (code, 2, 0, value.encode() if isinstance(value, str) else value, True)
        for code, value in native.get("text", {}).items()
    ]
    extratags: list[tuple[Any, ...]] = [*text]
    if xmp:
        extratags.append((_XMP, 1, len(xmp), xmp, True))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        planes if planes.shape[2] > 1 else planes[..., 0],
        photometric="rgb" if rgb else "minisblack",
        planarconfig="contig" if planes.shape[2] > 1 else None,
        extrasamples=extra or None,
        compression="zlib" if compressed else None,
        predictor=compressed and pixels.dtype.kind == "u",
        resolution=(x, y),
        resolutionunit=unit,
        iccprofile=icc_profile,
        extratags=extratags,
        metadata=None,
        software=False,
    )
    return buffer.getvalue()

"""What a file says of its picture besides the pixels: EXIF, XMP and texts, made upright with it."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

XMP_OF_JPEG = b"http://ns.adobe.com/xap/1.0/\0"  # identifier of its segment
XMP_OF_PNG = "XML:com.adobe.xmp"  # keyword of its text chunk
_ORIENTATION = 0x0112
_SIZES = (0x0100, 0x0101)  # tags of width and height
_EXIF_TABLE = 0x8769  # tag with the offset of the table of EXIF tags
_SIZES_OF_EXIF = (0xA002, 0xA003)  # tags of width and height in that table


def orientation_of(picture: Image) -> int:
    """Return the EXIF orientation of a loaded file; 1 if its EXIF is damaged."""
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError):
        return 1


def upright_exif(exif: bytes | None) -> bytes | None:
    """Return EXIF with orientation 1, without the thumbnail, which shows the noisy image.

    Width and height are exchanged if the picture was stored sideways. The bytes are patched in
    place, because maker notes contain offsets. None if the EXIF is damaged.
    """
    if not exif:
        return None
    head = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[head : head + 2])
    data = bytearray(exif)

    def read(kind: str, at: int) -> int:
        return int(struct.unpack_from(f"{order}{kind}", data, at)[0])

    def entries(table: int) -> dict[int, int]:
        """Return the offset of each tag's entry: 12 bytes of tag, type, count and value."""
        end = table + 2 + 12 * read("H", table)
        if end > len(data):
            raise struct.error("the table is cut off")
        return {read("H", entry): entry for entry in range(table + 2, end, 12)}

    def exchange(found: Mapping[int, int], sizes: tuple[int, int]) -> None:
        if sizes[0] in found and sizes[1] in found:
            one, other = (slice(found[tag] + 2, found[tag] + 12) for tag in sizes)
            data[one], data[other] = data[other], data[one]

    try:
        if order is None:
            return None
        first = head + read("I", head + 4)
        tags = entries(first)
        if _ORIENTATION in tags:
            value = tags[_ORIENTATION] + 8
            if read("H", value) in range(5, 9):
                exchange(tags, _SIZES)
                with suppress(KeyError, struct.error):  # no such table, or a damaged one
                    exchange(entries(head + read("I", tags[_EXIF_TABLE] + 8)), _SIZES_OF_EXIF)
            struct.pack_into(order + "H", data, value, 1)
        struct.pack_into(order + "I", data, first + 2 + 12 * read("H", first), 0)
    except struct.error:
        return None
    return bytes(data)


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """Return XMP in UTF-8, with orientation 1 in attributes and elements."""
    if not xmp:
        return None
    if xmp[:2] in (b"\xff\xfe", b"\xfe\xff"):
        xmp = xmp.decode("utf-16", "replace").encode()
    return re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*))[2-8]", rb"\g<1>1", xmp)


def xmp_of(picture: Image) -> bytes | None:
    """Return the XMP of a loaded PNG or JPEG, without the part of a JPEG beyond 64 kB."""
    text = picture.info.get(XMP_OF_PNG)
    if isinstance(text, str):
        return text.encode()
    segments = [data for name, data in getattr(picture, "applist", ()) if name == "APP1"]
    found = (data for data in segments if data.startswith(XMP_OF_JPEG))
    return next((data.removeprefix(XMP_OF_JPEG) for data in found), None)


def texts_of(picture: Image) -> dict[str, str]:
    """Return the texts of a loaded PNG by keyword, without those with EXIF, XMP and the like.

    Those may contain the orientation, which no longer applies to the upright picture.
    """
    texts: Mapping[str, str] = getattr(picture, "text", {})
    return {
        keyword: str(text)
        for keyword, text in texts.items()
        if keyword != XMP_OF_PNG and not keyword.startswith("Raw profile type ")
    }

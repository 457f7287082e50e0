"""Image files, in and out: PNG, JPEG, TIFF and NPY, at every depth, written whole or not at all."""

from .codecs import ImageFile, encode
from .files import (
    OTHER_SUFFIXES,
    SUFFIXES,
    find_images,
    other_images,
    output_path,
    output_paths,
    read_image,
    write_image,
)

__all__ = [
    "OTHER_SUFFIXES",
    "SUFFIXES",
    "ImageFile",
    "encode",
    "find_images",
    "other_images",
    "output_path",
    "output_paths",
    "read_image",
    "write_image",
]

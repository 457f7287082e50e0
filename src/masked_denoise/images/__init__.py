"""Reading and writing of image files: PNG, JPEG, TIFF and NPY, of any bit depth, atomically."""

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

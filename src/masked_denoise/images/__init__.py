"""Image files, in and out: PNG, JPEG, TIFF and NPY, at every depth, written whole or not at all."""

from .codecs import ImageFile, encode
from .files import SUFFIXES, find_images, output_path, output_paths, read_image, write_image

__all__ = [
    "SUFFIXES",
    "ImageFile",
    "encode",
    "find_images",
    "output_path",
    "output_paths",
    "read_image",
    "write_image",
]

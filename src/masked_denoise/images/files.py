"""Image files: finding, reading and writing them, and safe output paths for results."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from ..atomic import write_whole
from ..errors import (
    DataError,
    ImageReadError,
    ImageWriteError,
    MaskedDenoiseError,
    SettingError,
    unknown_name,
)
from .codecs import ImageFile, decode, encode

SUFFIXES = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".npy": "npy",
}


OTHER_SUFFIXES = (
    ".gif", ".webp", ".bmp", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".exr", ".hdr", ".dng",
    ".ppm", ".pgm", ".tga", ".psd", ".pdf", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2",
    ".pef", ".czi", ".lif", ".nd2",
)  # fmt: skip
"""Suffixes of image formats that are not supported."""


def read_image(path: str | Path) -> ImageFile:
    """Return the pixels of a PNG, JPEG, TIFF or NPY file, with the metadata that a copy keeps.

    Pixels keep the stored dtype and scale: uint8 and uint16 (PNG, TIFF, NPY; JPEG has uint8),
    floats (TIFF, NPY). They are turned upright if the file has an orientation; palettes become RGB,
    and 1-bit pictures 8-bit grey. ICC profile, EXIF (of PNG and JPEG), XMP, resolution and texts
    are kept.

    Raises:
        ImageReadError: the file is missing, damaged, truncated, absurdly large (see
            `PIL.Image.MAX_IMAGE_PIXELS`) or not supported; the message names it.
    """
    path = Path(path)
    try:
        return decode(path)
    except MaskedDenoiseError as error:
        raise ImageReadError(f"cannot read {path}: {error}") from error
    except OSError as error:
        reason = error.strerror or f"damaged or cut off ({error})"
        raise ImageReadError(f"cannot read {path}: {reason}") from error
    except MemoryError:  # nothing is wrong with the file
        raise
    except Exception as error:  # decoders raise anything on damaged files
        if type(error).__name__ == "DecompressionBombError":
            hint = "cut it into parts, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
            raise ImageReadError(f"cannot read {path}: too large ({error}); {hint}") from error
        reason = str(error) or type(error).__name__
        raise ImageReadError(f"cannot read {path}: damaged or cut off ({reason})") from error


def write_image(path: str | Path, image: ImageFile, *, quality: int = 95) -> None:
    """Write an image in the format given by the suffix of `path`, completely or not at all.

    Alpha, ICC profile, resolution, XMP and EXIF (PNG, JPEG) are written, too; NPY stores pixels
    only. Missing folders are created. The file appears under its name once it is complete and on
    the disk; until then, and if writing fails, an older file of that name remains.

    Args:
        path: of the file, with a suffix of `SUFFIXES`.
        image: to write, with the bit depth of its pixels.
        quality: of JPEG, 1 to 100; colour is stored at full resolution.

    Raises:
        SettingError: the suffix is not known, or the format cannot store the image (floats as PNG,
            16 bits or alpha as JPEG).
        ImageWriteError: the file cannot be written; the message has the reason.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise SettingError(f"cannot tell the format of {path.name}; end it in {_known_suffixes()}")
    try:
        data = encode(image, kind, quality)
    except MaskedDenoiseError:
        raise
    except Exception as error:
        raise ImageWriteError(f"cannot write {path}: {error or type(error).__name__}") from error
    try:
        write_whole(path, data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageWriteError(f"cannot write {path}: {reason}; choose another folder") from error


def find_images(
    inputs: str | Path | Iterable[str | Path], *, recursive: bool = True
) -> list[tuple[Path, Path]]:
    """Return (file, root) for every image in the given files and folders, each file once.

    `root` is the given folder, or the folder of a given file: `output_path` keeps the sub-folders
    between root and file. In folders, files are sorted, and names that begin with a dot or have a
    suffix not in `SUFFIXES` (in any case) are skipped.

    Args:
        inputs: a file or folder, or several.
        recursive: whether to search sub-folders, too.

    Raises:
        ImageReadError: a path does not exist, or a folder cannot be listed.
        DataError: there is no image at all.
    """
    paths = [Path(given) for given in ([inputs] if isinstance(inputs, str | Path) else inputs)]
    found: dict[Path, tuple[Path, Path]] = {}
    for given in paths:
        if given.is_dir():
            files = sorted(_walk(given, recursive), key=lambda file: (str(file).lower(), file))
        elif given.exists():
            files = [given]
        else:
            raise ImageReadError(f"there is no file or folder {given}")
        for file in files:
            found.setdefault(file.resolve(), (file, given if given.is_dir() else given.parent))
    if not found:
        where = ", ".join(str(given) for given in paths) or "an empty list of inputs"
        raise DataError(f"no images in {where}: looked for files that end in {_known_suffixes()}")
    return list(found.values())


def other_images(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the images in the given folders whose formats are not supported."""
    return [
        file
        for given in inputs
        if Path(given).is_dir()
        for file in _walk(Path(given), recursive=True, suffixes=OTHER_SUFFIXES)
    ]


def _walk(
    folder: Path, recursive: bool, suffixes: Collection[str] = SUFFIXES.keys()
) -> Iterator[Path]:
    def unlisted(error: OSError) -> None:
        raise ImageReadError(f"cannot list {error.filename}: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=unlisted):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(place, name)


def output_path(
    source: str | Path,
    root: str | Path,
    folder: str | Path,
    *,
    suffix: str = "",
    format: str | None = None,
) -> Path:
    """Return the path of the result for `source`, in the same sub-folder of `folder` as of `root`.

    No file is accessed.

    Args:
        source: path of the input, under `root`.
        root: folder of the input.
        folder: folder of the results.
        suffix: added to the stem of the name.
        format: "png", "jpeg", "tiff" or "npy"; default: that of the source, but PNG for JPEG.

    Raises:
        UnknownNameError: the format is not known.
        SettingError: `source` is not under `root`, `suffix` cannot be part of a file name, or the
            suffix of `source` is unknown and no `format` is given.

    >>> output_path("in/cats/tom.JPG", "in", "out", suffix="_clean").as_posix()
    'out/cats/tom_clean.png'
    >>> output_path("in/cats/tom.JPG", "in", "out", format="jpeg").as_posix()
    'out/cats/tom.JPG'
    """
    source = Path(source)
    stored = SUFFIXES.get(source.suffix.lower())
    if format is None:
        wanted = "png" if stored == "jpeg" else stored
        if wanted is None:
            known = ", ".join(sorted(set(SUFFIXES.values())))
            raise SettingError(
                f"the suffix of {source.name} is none of {known}, the formats that are read; "
                "convert the file, or, where it is one of these all the same, say which format the "
                "result is to have, for example --format png"
            )
    else:
        wanted = SUFFIXES.get(f".{format.lower().lstrip('.')}")
        if wanted is None:
            raise unknown_name("format", format, set(SUFFIXES.values()))
    if Path(suffix).name != suffix:
        raise SettingError(f"suffix is {suffix!r}; it must be part of a file name, without / or \\")
    try:
        place = source.relative_to(root).parent
    except ValueError as error:
        raise SettingError(f"{source} is not under {root}; give the folder it is in") from error
    first = next(ending for ending, kind in SUFFIXES.items() if kind == wanted)
    ending = source.suffix if wanted == stored else first
    return Path(folder) / place / f"{source.stem}{suffix}{ending}"


def output_paths(
    found: Sequence[tuple[Path, Path]],
    folder: str | Path,
    *,
    suffix: str = "",
    format: str | None = None,
) -> list[Path]:
    """Return the `output_path` for every (file, root) of `find_images`, all different.

    Raises:
        SettingError: two results would have the same path, or a result would replace an input.
    """

    def place_of(path: Path) -> str:
        place = str(path.resolve())
        return place.casefold() if _ignores_case(path) else place

    sources = {place_of(file): file for file, _ in found}
    taken: dict[str, Path] = {}
    targets = []
    for file, root in found:
        target = output_path(file, root, folder, suffix=suffix, format=format)
        place = place_of(target)
        if place in sources:
            hint = "give another output folder with -o, or a suffix, for example --suffix _clean"
            if suffix:
                hint = "give another folder with -o, another suffix, or keep it (--skip-existing)"
            raise SettingError(f"the result of {file} would replace {sources[place]}; {hint}")
        if place in taken:
            hint = "rename one or denoise them into different folders"
            raise SettingError(f"{taken[place]} and {file} would both become {target}; {hint}")
        taken[place] = file
        targets.append(target)
    return targets


def _ignores_case(path: Path) -> bool:
    """Return whether the file system of `path` ignores case in names."""
    folder = next((one for one in path.absolute().parents if one.exists()), path)
    return _folder_ignores_case(folder)


@functools.lru_cache(maxsize=256)
def _folder_ignores_case(folder: Path) -> bool:
    other = folder.with_name(folder.name.swapcase()) if folder.name else folder
    if other == folder:  # no letters in it, or compared without case, as on Windows
        return sys.platform in ("win32", "darwin")
    try:
        return other.samefile(folder)
    except OSError:
        return False


def _known_suffixes() -> str:
    return ", ".join(SUFFIXES)

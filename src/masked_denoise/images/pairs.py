"""Pairing of noisy and clean files, whose names differ in endings such as _real and _mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .files import find_images

_ROLE = re.compile(r"(_(real|mean|noisy|clean|gt|denoised))+$", re.IGNORECASE)
_CLEAN_ROLE = re.compile(r"_(mean|clean|gt)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A picture and its clean reference; `name` is its path relative to the given folder."""

    name: str
    image: Path
    clean: Path


@dataclass(frozen=True)
class Pairing:
    """The pairs, and the files on both sides without a partner."""

    pairs: tuple[Pair, ...]
    unpaired_images: tuple[Path, ...]
    unpaired_clean: tuple[Path, ...]


def pair_name(path: str | Path) -> str:
    """Return the stem that files of a pair share, without _real, _mean, _noisy, _clean and so on.

    >>> pair_name("photos/cat_real.JPG"), pair_name("truth/cat_mean.png")
    ('cat', 'cat')
    """
    stem = Path(path).stem
    return _ROLE.sub("", stem) or stem


def find_pairs(images: str | Path, clean: str | Path) -> Pairing:
    """Return the pairs of files in two folders, see `pair_files`.

    Two files, instead of folders, form a pair whatever their names.

    Raises:
        ImageReadError: a path does not exist.
        DataError: a folder has no images, there is no pair, or a picture has two clean ones.
    """
    images, clean = Path(images), Path(clean)
    if images.is_file() and clean.is_file():
        return Pairing((Pair(images.name, images, clean),), (), ())
    pairing = pair_files(find_images(images), find_images(clean))
    if not pairing.pairs and not (pairing.unpaired_images and pairing.unpaired_clean):
        raise DataError(
            f"{images} and {clean} hold the same files, and a picture is not compared with itself"
        )
    if not pairing.pairs:
        raise DataError(
            f"no file of {images} has the stem of one in {clean}, also without _real, _mean, "
            f"_noisy, _clean, _gt; for example {pairing.unpaired_images[0].name} and "
            f"{pairing.unpaired_clean[0].name}: rename them"
        )
    return pairing


def pair_files(images: Sequence[tuple[Path, Path]], clean: Sequence[tuple[Path, Path]]) -> Pairing:
    """Return the pairs among (file, root) of both sides: files with equal `pair_name`.

    If both sides have sub-folders, these must be equal, too. If noisy and clean files share a
    folder, those ending in _mean, _clean or _gt are the clean ones. A clean picture may have
    several noisy partners.

    Raises:
        DataError: a picture has two clean ones.
    """
    flat = any(all(file.parent == root for file, root in side) for side in (images, clean))

    def key(file: Path, root: Path) -> tuple[Path, str]:
        return Path() if flat else file.relative_to(root).parent, pair_name(file)

    candidates: dict[tuple[Path, str], list[Path]] = {}
    for file, root in clean:
        candidates.setdefault(key(file, root), []).append(file)
    pairs, lonely = [], []
    for file, root in images:
        match = _clean_one(candidates.get(key(file, root), []))
        if match is None:
            lonely.append(file)
        elif match.resolve() != file.resolve():
            pairs.append(Pair(file.relative_to(root).as_posix(), file, match))
    used = {file.resolve() for pair in pairs for file in (pair.image, pair.clean)}
    left = [file for file, _ in clean if file.resolve() not in used]
    return Pairing(tuple(pairs), tuple(lonely), tuple(left))


def _clean_one(files: list[Path]) -> Path | None:
    """Return the clean picture among files of one `pair_name`, or None; DataError for several."""
    if len(files) > 1:
        files = [file for file in files if _CLEAN_ROLE.search(file.stem)] or files
    if len(files) > 1:
        raise DataError(
            f"{files[0]} and {files[1]} are both clean pictures of '{pair_name(files[0])}'; keep "
            "one of them"
        )
    return files[0] if files else None

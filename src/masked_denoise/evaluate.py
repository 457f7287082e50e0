"""Scores against clean pictures: which files belong together, PSNR and SSIM of each, the means."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MaskedDenoiseError, PixelError
from .images import find_images, read_image
from .jobs.survey import Failure
from .metrics import score
from .values import range_in_use

Array = NDArray[Any]
Denoise = Callable[[Array], Array]
ValueRange = tuple[float, float]

CONVENTION = "both pictures rounded to 8 bits; SSIM with the uniform 7x7 window; mean over pictures"

_ROLE = re.compile(r"(_(real|mean|noisy|clean|gt|denoised))+$", re.IGNORECASE)
_CLEAN_ROLE = re.compile(r"_(mean|clean|gt)$", re.IGNORECASE)
_NEAR = 0.05  # how far floats of a clean picture may leave [0, 1] and still be on that scale


@dataclass(frozen=True)
class Pair:
    """A picture and its clean reference; `name` is its place below the folder that was given."""

    name: str
    image: Path
    clean: Path


@dataclass(frozen=True)
class Pairing:
    """The pairs, and the files of either side that have no partner."""

    pairs: tuple[Pair, ...]
    unpaired_images: tuple[Path, ...]
    unpaired_clean: tuple[Path, ...]


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM of one picture; of the input and the seconds where it was denoised."""

    name: str
    psnr: float
    ssim: float
    input_psnr: float | None = None
    input_ssim: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_pairs` found."""

    scores: tuple[Score, ...]
    failures: tuple[Failure, ...] = ()
    convention: str = field(default=CONVENTION)

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each number over the pictures that have it."""
        keys = ("psnr", "ssim", "input_psnr", "input_ssim", "seconds")
        columns = {key: [getattr(one, key) for one in self.scores] for key in keys}
        return {k: float(np.mean(v)) for k, v in columns.items() if v and None not in v}

    @property
    def worse(self) -> tuple[str, ...]:
        """Names of the pictures whose PSNR fell by denoising."""
        scored = ((one, one.input_psnr) for one in self.scores)
        return tuple(one.name for one, before in scored if before is not None and before > one.psnr)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and strings, ready for JSON; infinite ones become None."""
        rows = [{"image": s.name, **_plain(vars(s))} for s in self.scores]
        for row in rows:
            del row["name"]
        return {
            "convention": self.convention,
            "mean": _plain(self.mean),
            "worse": list(self.worse),
            "images": rows,
            "failed": {str(one.path): one.reason for one in self.failures},
        }


def pair_name(path: str | Path) -> str:
    """Return the stem by which files pair: without _real, _mean, _noisy, _clean, _gt, _denoised.

    >>> pair_name("photos/cat_real.JPG"), pair_name("truth/cat_mean.png")
    ('cat', 'cat')
    """
    stem = Path(path).stem
    return _ROLE.sub("", stem) or stem


def find_pairs(images: str | Path, clean: str | Path) -> Pairing:
    """Return which files of two folders belong together (see `pair_files`).

    Two files, instead of folders, are a pair whatever they are called.

    Raises:
        ImageReadError: a path does not exist.
        DataError: a folder has no images, or there is no pair.
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
    """Return which of the (file, root) found belong together: those of equal `pair_name`.

    Where both sides have sub-folders, these must be equal, too. Where noisy and clean files share a
    folder, those ending in _mean, _clean or _gt are the clean ones. A clean picture may have
    several partners.

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
    """Return the clean picture among files of one name; raise where two would do."""
    if len(files) > 1:
        files = [file for file in files if _CLEAN_ROLE.search(file.stem)] or files
    if len(files) > 1:
        raise DataError(
            f"{files[0]} and {files[1]} are both clean pictures of '{pair_name(files[0])}'; keep "
            "one of them"
        )
    return files[0] if files else None


def evaluate_pairs(
    pairs: Iterable[Pair],
    *,
    denoise: Denoise | None = None,
    value_range: ValueRange | Mapping[Path, ValueRange | None] | None = None,
    on_score: Callable[[Pair], None] | None = None,
) -> Evaluation:
    """Return PSNR and SSIM of every picture against its clean one, alpha left aside.

    Args:
        pairs: from `find_pairs`; a pair that cannot be scored becomes a failure.
        denoise: called with the stored pixels, (H, W) or (H, W, C), returns them denoised; those
            are scored, and the input beside them. None scores the pictures as they are.
        value_range: (black, white) of float pictures, or that of each by its path; (0, 1) where
            not given.
        on_score: called with every pair when it is done.
    """
    scores, failures = [], []
    for pair in pairs:
        try:
            scores.append(_score(pair, denoise, value_range))
        except (MaskedDenoiseError, MemoryError) as error:
            failures.append(Failure(pair.image, str(error) or "not enough memory"))
        if on_score is not None:
            on_score(pair)
    return Evaluation(tuple(scores), tuple(failures))


def _score(
    pair: Pair,
    denoise: Denoise | None,
    value_range: ValueRange | Mapping[Path, ValueRange | None] | None,
) -> Score:
    noisy, clean = read_image(pair.image).pixels, read_image(pair.clean).pixels
    if isinstance(value_range, Mapping):
        value_range = value_range.get(pair.image)
    unit = _unit(clean, value_range, pair.clean)
    before = score(_unit(noisy, value_range), unit)
    if denoise is None:
        return Score(pair.name, before["psnr"], before["ssim"])
    start = time.perf_counter()
    result = denoise(noisy)
    seconds = time.perf_counter() - start
    after = score(_unit(result, value_range), unit)
    return Score(pair.name, after["psnr"], after["ssim"], before["psnr"], before["ssim"], seconds)


def _unit(pixels: Array, value_range: ValueRange | None, clean: Path | None = None) -> Array:
    """Return floats and counts on the 0..1 scale, integers as they are; refuse what is off it."""
    if pixels.dtype.kind != "f" and range_in_use(pixels.dtype.name, value_range) is None:
        return pixels
    if value_range is not None:
        low, high = value_range
        return np.asarray((pixels.astype(np.float64) - low) / (high - low))
    if clean is not None and np.isfinite(pixels).all():
        low, high = float(pixels.min()), float(pixels.max())
        if low < -_NEAR or high > 1 + _NEAR:
            raise PixelError(
                f"{clean} has floats from {low:g} to {high:g}, not from 0 to 1; tell black and "
                f"white with value_range, for example --value-range {low:g} {high:g}"
            )
    return pixels


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that are there; JSON has none for infinity."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in numbers.items()
        if value is not None
    }

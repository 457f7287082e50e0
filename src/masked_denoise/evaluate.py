"""Scores against clean pictures: PSNR and SSIM of each, and their means."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MaskedDenoiseError, PixelError
from .images import read_image
from .images.pairs import Pair
from .jobs.survey import Failure
from .metrics import score
from .values import range_in_use

Array = NDArray[Any]
Denoise = Callable[[Array], Array]
ValueRange = tuple[float, float]

CONVENTION = "both pictures rounded to 8 bits; SSIM with the uniform 7x7 window; mean over pictures"

_NEAR = 0.05  # how far floats of a clean picture may exceed [0, 1] and count as on that scale


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM of one picture; if it was denoised, also of the input, and the time."""

    name: str
    psnr: float
    ssim: float
    input_psnr: float | None = None
    input_ssim: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate_pairs`."""

    scores: tuple[Score, ...]
    failures: tuple[Failure, ...] = ()
    convention: str = field(default=CONVENTION)

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each number over the pictures, if all of them have it."""
        keys = ("psnr", "ssim", "input_psnr", "input_ssim", "seconds")
        columns = {key: [getattr(one, key) for one in self.scores] for key in keys}
        return {k: float(np.mean(v)) for k, v in columns.items() if v and None not in v}

    @property
    def worse(self) -> tuple[str, ...]:
        """Names of the pictures whose PSNR was lowered by denoising."""
        scored = ((one, one.input_psnr) for one in self.scores)
        return tuple(one.name for one, before in scored if before is not None and before > one.psnr)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and strings, ready for JSON; infinities become None."""
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


def evaluate_pairs(
    pairs: Iterable[Pair],
    *,
    denoise: Denoise | None = None,
    value_range: ValueRange | Mapping[Path, ValueRange | None] | None = None,
    on_score: Callable[[Pair], None] | None = None,
) -> Evaluation:
    """Return PSNR and SSIM of every picture against its clean reference, without alpha.

    Args:
        pairs: from `find_pairs`; a pair that cannot be scored becomes a failure.
        denoise: called with the stored pixels, (H, W) or (H, W, C), returns them denoised; input
            and result are both scored. None scores the pictures as they are.
        value_range: (black, white) of float pictures, or a mapping from their paths to it; default
            (0, 1).
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
    """Return pixels on the 0..1 scale, integers on that of their dtype.

    Raises:
        PixelError: clean floats are not on that scale, and there is no `value_range`.
    """
    if pixels.dtype.kind != "f" and range_in_use(pixels.dtype.name, value_range) is None:
        return pixels
    if value_range is not None:
        low, high = value_range
        return np.asarray((pixels.astype(np.float64) - low) / (high - low))
    if clean is not None and np.isfinite(pixels).all():
        low, high = float(pixels.min()), float(pixels.max())
        if low < -_NEAR or high > 1 + _NEAR:
            raise PixelError(
                f"{clean} has floats from {low:g} to {high:g}, not from 0 to 1; `evaluate` "
                f"scores them with --value-range {low:g} {high:g}, in Python value_range=(...)"
            )
    return pixels


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are not None, with None for NaN and infinity, which JSON lacks."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in numbers.items()
        if value is not None
    }

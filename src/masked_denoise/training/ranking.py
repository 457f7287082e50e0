"""Which of several models is best for given noisy pictures, where no clean one exists.

The pictures themselves cannot tell: noise that a model leaves and detail that it keeps look alike.
So a test is made of them to which the answer is known. A reference model cleans the pictures, and
what it took away tells the level of their noise. Made half as large, the cleaned pictures are sharp
again, and what noise was left in them is gone; camera noise of that level is simulated on them, and
every model is scored by how well it takes it off. The reference never judges itself by its own
output: it has to win on the same simulated noise as all others.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..camera_noise import CameraNoise
from ..colour import LUMA
from ..errors import DataError, SettingError
from ..hashing import Key, Purpose, hash_key
from .batches import windows_of
from .pictures import Array, range_of_windows
from .simulated import smaller

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

MEGAPIXELS = 4.0
SHRINK = 2.0
TRUE_OVER_REMOVED = 1.3  # noise, to what a good model takes off: chosen on half of the dev scenes
QUIETEST = 0.5 / 255
DRAWS = 2  # of noise on each picture

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Rank:
    """How a model did on simulated noise of the level of the pictures.

    Attributes:
        name: of the model.
        psnr: in dB, of the pictures it denoised, against what the noise was simulated on; mean.
        gain: in dB, over the noisy pictures. A model that gains nothing is not for these pictures.
    """

    name: str
    psnr: float
    gain: float

    @property
    def helps(self) -> bool:
        """Whether the pictures came out better than they went in."""
        return self.gain > 0


def rank_models(
    models: Mapping[str, AsymmetricMaskDenoiser],
    noisy: object,
    *,
    reference: AsymmetricMaskDenoiser | None = None,
    megapixels: float = MEGAPIXELS,
    seed: int = 0,
) -> list[Rank]:
    """Return the models by how well they denoise such pictures, best first; no clean one is needed.

    Scores are comparable within a call, or with the same pictures, reference and seed. Differences
    of less than about 0.1 dB say nothing.

    Args:
        models: denoisers by name, all for the same number of channels, 1 or 3, and the same range
            of float values.
        noisy: noisy pictures, in any of the forms that `fit` takes.
        reference: cleans the pictures for the test; it should be a good one. Default: the model
            that comes with the package.
        megapixels: how many million pixels are looked at. Of more, windows are taken.
        seed: of windows, noise and masks.

    Raises:
        DataError: there is no model, or the pictures hold floats of another range.
        SettingError: the models are for other numbers of channels than 1 or 3, or differ; the
            reference is for another number; megapixels is not above 0.
        DataError, SizeError, PixelError, ImageReadError: the pictures cannot be used.

    >>> from masked_denoise import AsymmetricMaskDenoiser
    >>> models = {"one": AsymmetricMaskDenoiser("fast-student", preset="student").eval()}
    >>> [rank.name for rank in rank_models(models, np.random.rand(64, 64, 3))]
    ['one']
    """
    like = _alike(models)
    if not megapixels > 0:
        raise SettingError(f"megapixels is {megapixels}; a number above 0 is needed")
    windows = windows_of(noisy, like.channels, megapixels, seed)
    found = range_of_windows(windows) if like.value_range is None else None
    if found is not None:
        raise DataError(
            f"the pictures hold values from {found[0]:.6g} to {found[1]:.6g}, and the models take "
            "the scale from 0 to 1, or of a dtype; divide the pictures by their white, or set "
            f"model.value_range = {found} for all"
        )
    reference = reference or _shipped(like)
    if reference.channels != like.channels:
        raise SettingError(
            f"the reference has {reference.channels} channels, the models have {like.channels}; "
            "equal numbers are needed"
        )
    tests = simulated_tests(windows, reference, seed)
    ranks = [_rank(name, model, tests, seed) for name, model in models.items()]
    return sorted(ranks, key=lambda rank: -rank.psnr)


def simulated_tests(
    windows: Sequence[Array], reference: AsymmetricMaskDenoiser, seed: int
) -> list[tuple[Pixels, Pixels]]:
    """Return pairs (noisy, clean), uint8 (H, W, C), that are like the windows (C, H, W)."""
    pairs = []
    reference = copy.copy(reference)
    reference.dct_threshold = 0.0  # TRUE_OVER_REMOVED was measured without
    for number, window in enumerate(windows):
        before = np.moveaxis(smaller(window, 1, reference.value_range), 0, 2)
        after = reference.denoise(np.ascontiguousarray(before), seed=seed)
        level = max(TRUE_OVER_REMOVED * _luma_deviation(before, after), QUIETEST)
        clean = torch.from_numpy(smaller(np.moveaxis(after, 2, 0), SHRINK))
        noise = CameraNoise(sigma=(level, level))
        for draw in range(DRAWS):
            key = Key(seed, Purpose.VALIDATE, DRAWS * number + draw)
            made = noise.add(clean.float() / 255, np.random.default_rng(hash_key(key)))
            pair = made.mul(255).round().to(torch.uint8), clean
            first, second = (one.permute(1, 2, 0).contiguous().numpy() for one in pair)
            pairs.append((first, second))
    return pairs


def _rank(
    name: str, model: AsymmetricMaskDenoiser, tests: Sequence[tuple[Pixels, Pixels]], seed: int
) -> Rank:
    scores = [_psnr(model.denoise(noisy, seed=seed), clean) for noisy, clean in tests]
    before = [_psnr(noisy, clean) for noisy, clean in tests]
    psnr = float(np.mean(scores))
    return Rank(name, psnr, psnr - float(np.mean(before)))


def _psnr(image: Pixels, clean: Pixels) -> float:
    error = float(np.square(image.astype(np.float64) - clean).mean())
    return 10 * math.log10(255**2 / max(error, 1e-3))


def _luma_deviation(noisy: Pixels, clean: Pixels) -> float:
    """Return the standard deviation of what was taken off luma, where white is 1."""
    difference = (noisy.astype(np.float64) - clean) / 255
    luma = difference @ np.array(LUMA) if difference.shape[2] == 3 else difference
    return float(luma.std())


def _alike(models: Mapping[str, AsymmetricMaskDenoiser]) -> AsymmetricMaskDenoiser:
    """Return one of the models, of which all take the same pictures."""
    from ..denoiser import AsymmetricMaskDenoiser

    named = isinstance(models, Mapping)
    if not named or not all(isinstance(m, AsymmetricMaskDenoiser) for m in models.values()):
        raise SettingError(
            "models must be denoisers by name: {'mine': denoiser}; from_pretrained makes one of a "
            "folder"
        )
    if not models:
        raise DataError("there are no models to rank; one is needed")
    found = {(model.channels, model.value_range) for model in models.values()}
    first = next(iter(models.values()))
    if len(found) > 1 or first.channels not in (1, 3):
        told = ", ".join(f"{n} {m.channels} and {m.value_range}" for n, m in models.items())
        raise SettingError(
            f"the models have these numbers of channels and value ranges: {told}; all must be "
            "alike, with 1 channel or 3"
        )
    return first


def _shipped(like: AsymmetricMaskDenoiser) -> AsymmetricMaskDenoiser:
    """Return the model of the package, for what another model takes."""
    from ..pretrained.shipped import as_grey, load_shipped

    model = load_shipped() if like.channels == 3 else as_grey(load_shipped())
    model.value_range = like.value_range
    return model.to(like.device)

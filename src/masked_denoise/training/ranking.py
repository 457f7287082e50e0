"""Rank models by how well they denoise given noisy pictures, where there are no clean ones.

From noisy pictures alone, remaining noise cannot be told from preserved detail. So they are made
into a test to which the answer is known. A reference model denoises the pictures, and what it
removes gives the level of their noise. Reduced to half their size, the denoised pictures are sharp
again and free of remaining noise. Camera noise of that level is simulated on them, and every model
is scored by how well it removes it. The reference is never judged by its own output: it has to win
on the same simulated noise as all others.
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
TRUE_OVER_REMOVED = 1.3  # noise to what a good model removes: chosen on half of the dev scenes
QUIETEST = 0.5 / 255
DRAWS = 2  # of noise per picture

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Rank:
    """Scores of a model on simulated noise of the level of the pictures.

    Attributes:
        name: of the model.
        psnr: mean in dB of its results, against the pictures that the noise was simulated on.
        gain: in dB, over the noisy pictures. A model that gains nothing is not for these pictures.
    """

    name: str
    psnr: float
    gain: float

    @property
    def helps(self) -> bool:
        """Whether the model improved the pictures."""
        return self.gain > 0


def rank_models(
    models: Mapping[str, AsymmetricMaskDenoiser],
    noisy: object,
    *,
    reference: AsymmetricMaskDenoiser | None = None,
    megapixels: float = MEGAPIXELS,
    seed: int = 0,
) -> list[Rank]:
    """Return the models ranked by how well they denoise such pictures, best first.

    No clean picture is needed. Scores are comparable within a call, or with the same pictures,
    reference and seed. Differences below about 0.1 dB are not meaningful.

    Args:
        models: denoisers by name, all for the same number of channels, 1 or 3, and the same value
            range.
        noisy: noisy pictures, in any of the forms that `fit` takes.
        reference: a good model, which denoises the pictures for the test. Default: the one bundled
            with the package.
        megapixels: how many million pixels to use; of more, windows are taken.
        seed: of windows, noise and masks.

    Raises:
        DataError: there is no model, or the pictures have another value range.
        SettingError: the models are not denoisers by name, differ in channels or value range, or
            have other than 1 or 3 channels; the reference has another number; megapixels is not
            above 0.
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
    """Return `DRAWS` pairs (noisy, clean) for each window (C, H, W): uint8 (H, W, C), reduced."""
    pairs = []
    reference = copy.copy(reference)
    reference.dct_threshold = 0.0  # TRUE_OVER_REMOVED was measured without it
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
    """Return the standard deviation of what was removed from luma, where white is 1."""
    difference = (noisy.astype(np.float64) - clean) / 255
    luma = difference @ np.array(LUMA) if difference.shape[2] == 3 else difference
    return float(luma.std())


def _alike(models: Mapping[str, AsymmetricMaskDenoiser]) -> AsymmetricMaskDenoiser:
    """Return one of the models, once it is sure that all take the same pictures."""
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
    """Return the bundled model for the pictures of another model, on its device."""
    from ..pretrained.shipped import as_grey, load_shipped

    model = load_shipped() if like.channels == 3 else as_grey(load_shipped())
    model.value_range = like.value_range
    return model.to(like.device)

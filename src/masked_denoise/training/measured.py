"""What `fit` measures of the noise and decides by it: settings nobody gave, the noise level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..inference import denoise_batch
from ..noise import NEGLIGIBLE_SIGMA, measure_noise
from ..observation import find_levels
from ..presets import preset
from ..values import to_batch
from .batches import Batches
from .settings import FitSettings, fit_settings

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

MEGAPIXELS, SIDE = 16.0, 512  # of windows in which the noise is measured before training ...
LEVEL_MEGAPIXELS, LEVEL_SIDE = 0.6, 256  # ... and denoised after it


def settings_of(denoiser: AsymmetricMaskDenoiser, given: Mapping[str, Any]) -> FitSettings:
    """Return the settings of a run: those given to `fit`, else those of the denoiser's preset."""
    return fit_settings(preset(denoiser.preset or "default")["fit"], given)


def decide(denoiser: AsymmetricMaskDenoiser, batches: Batches) -> str | None:
    """Decide by the noise of the pictures what nobody gave; return why, in words.

    Where noise is independent from pixel to pixel in all channels that is the preset "independent",
    else "default", at stride 1 where that is advised. Where more than 2 is advised it stays at 2:
    that measured no worse on noise that is so coarse, and much better where fine texture was taken
    for coarse noise. None: there is too little to measure.
    """
    try:
        report = measure_noise(
            np.moveaxis(array, 0, 2) for array in batches.windows(MEGAPIXELS, SIDE)
        )
    except DataError:
        return None
    if report.independent:
        most = max(channel.correlation[0] for channel in report.channels)
        denoiser.decide("independent")
        return (
            "noise is independent from pixel to pixel (neighbours are correlated "
            f"{most:.2f} at most): preset 'independent'"
        )
    near = report.train_stride == 1 and report.luma.sigma >= NEGLIGIBLE_SIGMA
    denoiser.decide("default", **({"train_stride": 1} if near else {}))
    between = report.luma.correlation[0]
    strides = ", ".join(map(str, denoiser.train_strides))
    return f"neighbours have noise that is correlated {between:.2f}: training at stride {strides}"


def decide_as(denoiser: AsymmetricMaskDenoiser, recipe: Mapping[str, Any]) -> None:
    """Decide what an earlier run decided that is to be resumed."""
    if recipe["preset"] is not None:
        strides = tuple(recipe["train_stride"])
        denoiser.decide(recipe["preset"], train_stride=strides, stride=recipe["stride"])


def find_noise_level(denoiser: AsymmetricMaskDenoiser, batches: Batches) -> None:
    """Set `noise_level` by what the trained network leaves of the pictures; None where too small.

    Args:
        denoiser: in evaluation mode, with the observation "measured".
        batches: that it was trained on.
    """
    denoiser.noise_level = None  # the predictions are to be free of the pixel's own value
    device = next(denoiser.backbone.parameters()).device
    pairs = []
    for array in batches.windows(LEVEL_MEGAPIXELS, LEVEL_SIDE):
        image = to_batch(np.moveaxis(array, 0, 2), value_range=denoiser.value_range)[0].to(device)
        pairs.append((image, denoise_batch(denoiser, image, passes=denoiser.passes, seed=0)))
    denoiser.noise_level = find_levels(pairs)

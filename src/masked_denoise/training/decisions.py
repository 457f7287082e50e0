"""What `fit` measures of the noise and decides by it: settings nobody gave, the noise level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from torch import Tensor

from ..errors import DataError, PixelError
from ..inference import denoise_batch
from ..noise import measure_noise
from ..observation import SMALLEST, NoiseLevel, estimate_noise_levels
from ..presets import preset
from ..values import CountRange, ValueRange, to_batch
from .batches import Batches
from .settings import FitSettings, fit_settings

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..denoiser import AsymmetricMaskDenoiser

MEGAPIXELS, SIDE = 16.0, 512  # of windows in which the noise is measured before training ...
LEVEL_MEGAPIXELS, LEVEL_SIDE = 0.6, 256  # ... and denoised after it
HASTY_MEGAPIXELS = 0.1  # after Ctrl-C

T = TypeVar("T")


def settings_of(denoiser: AsymmetricMaskDenoiser, given: Mapping[str, Any]) -> FitSettings:
    """Return the settings of a run: those given to `fit`, else those of the denoiser's preset."""
    return fit_settings(preset(denoiser.preset or "default")["fit"], given)


class Decision(NamedTuple):
    """What the noise decides: a preset, settings that go before it, and why, in words."""

    preset: str
    settings: dict[str, Any]
    reason: str


def decide(
    denoiser: AsymmetricMaskDenoiser, batches: Batches, accelerator: Accelerator
) -> str | None:
    """Decide by the noise of the pictures what nobody gave; return why, in words.

    Of several processes the first measures, for all of them. None: there is too little to measure.
    """
    found = same_for_all(lambda: _decision(batches, denoiser.value_range), accelerator)
    if found is None:
        return None
    denoiser.decide(found.preset, **found.settings)
    strides = ", ".join(map(str, denoiser.train_strides))
    where = "" if found.preset == "independent" else f": training at stride {strides}"
    return found.reason + where


def find_range(denoiser: AsymmetricMaskDenoiser, batches: Batches) -> str | None:
    """Measure the range of images not on the usual scale, unless it is known; return it in words.

    The denoiser keeps it; the batches are told. Integers keep the scale of their dtype where that
    is what a noise level was given for, or weights have learnt.
    """
    found = batches.measure() if denoiser.value_range is None else None
    if isinstance(found, CountRange) and (denoiser.level_given or denoiser.fit_record):
        found = None
    if found is not None:
        denoiser.value_range = found
    batches.value_range = denoiser.value_range
    if found is None:
        return None
    low, high = found
    return (
        f"the values are not on the usual scale: measured value_range=({low:.6g}, {high:.6g}), "
        "which the denoiser keeps"
    )


def _decision(batches: Batches, value_range: ValueRange | None) -> Decision | None:
    """Return what the noise decides, None where it cannot be measured.

    Where noise is independent from pixel to pixel in all channels that is the preset "independent",
    else "default", at the stride that the report names for it.
    """
    try:
        report = measure_noise(
            (np.moveaxis(array, 0, 2) for array in batches.windows(MEGAPIXELS, SIDE)),
            value_range=value_range,
        )
    except (DataError, PixelError):  # too small; or not finite, which training will tell better
        return None
    if report.independent:
        reason = "noise is independent from pixel to pixel: preset 'independent'"
        return Decision("independent", {}, reason)
    between = report.luma.correlation[0]
    reason = f"neighbours have noise that is correlated {between:.2f}"
    reason = "there is nearly no noise" if report.negligible else reason
    return Decision("default", {"train_stride": report.train_stride}, reason)


def decide_as(denoiser: AsymmetricMaskDenoiser, recipe: Mapping[str, Any]) -> None:
    """Decide what an earlier run decided that is to be resumed."""
    if recipe["preset"] is not None:
        strides = tuple(recipe["train_stride"])
        denoiser.decide(recipe["preset"], train_stride=strides, stride=recipe["stride"])


def measured_level(
    denoiser: AsymmetricMaskDenoiser, batches: Batches, *, megapixels: float = LEVEL_MEGAPIXELS
) -> tuple[NoiseLevel, ...] | None:
    """Return the level of the noise, by what the trained network leaves of the pictures.

    Args:
        denoiser: in evaluation mode, with the observation "measured" and no level yet, so that its
            predictions are free of the pixel's own value.
        batches: that it was trained on.
        megapixels: how many million pixels to look at.

    Returns:
        One level a channel; None where the pictures are too small.
    """
    device = denoiser.device
    least = max(SMALLEST, denoiser.stride)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for array in batches.windows(megapixels, LEVEL_SIDE):
            if min(array.shape[1:]) < least:
                continue
            unit, _ = to_batch(np.moveaxis(array, 0, 2), value_range=denoiser.value_range)
            image = unit.to(device)
            yield image, denoise_batch(denoiser, image, passes=denoiser.passes, seed=0)

    return estimate_noise_levels(pairs())


def same_for_all(find: Callable[[], T], accelerator: Accelerator) -> T:
    """Return what the first process finds, in all of them."""
    from accelerate.utils import broadcast_object_list

    if accelerator.num_processes == 1:
        return find()
    found = [find() if accelerator.is_main_process else None]
    broadcast_object_list(found)
    return cast("T", found[0])

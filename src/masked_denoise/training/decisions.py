"""What `fit` decides by the measured noise: settings the user left open, and the noise level."""

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

MEGAPIXELS, SIDE = 16.0, 512  # to measure the noise in, before training ...
LEVEL_MEGAPIXELS, LEVEL_SIDE = 0.6, 256  # ... and its level, after training
HASTY_MEGAPIXELS = 0.1  # the same after Ctrl-C

T = TypeVar("T")


def settings_of(denoiser: AsymmetricMaskDenoiser, given: Mapping[str, Any]) -> FitSettings:
    """Return the settings of a run: those passed to `fit`, else those of the denoiser's preset."""
    return fit_settings(preset(denoiser.preset or "default")["fit"], given)


class Decision(NamedTuple):
    """A preset, settings that override it, and the reason as text."""

    preset: str
    settings: dict[str, Any]
    reason: str


def decide(
    denoiser: AsymmetricMaskDenoiser, batches: Batches, accelerator: Accelerator
) -> str | None:
    """Choose preset and stride by the measured noise, where the user gave none; return the reason.

    With several processes, the first measures for all of them. Returns None, and decides nothing,
    where the noise cannot be measured.
    """
    found = same_for_all(lambda: _decision(batches, denoiser.value_range), accelerator)
    if found is None:
        return None
    denoiser.decide(found.preset, **found.settings)
    strides = ", ".join(map(str, denoiser.train_strides))
    where = "" if found.preset == "independent" else f": training at stride {strides}"
    return found.reason + where


def find_range(denoiser: AsymmetricMaskDenoiser, batches: Batches) -> str | None:
    """Measure the range of values that are not on the usual scale, if unknown; return a message.

    The range is set on the denoiser and the batches. Integers keep the scale of their dtype where a
    noise level was given or the weights are trained, as both refer to it.
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

    Where noise is independent from pixel to pixel, that is the preset "independent", else "default"
    with the training stride that the report advises.
    """
    try:
        report = measure_noise(
            (np.moveaxis(array, 0, 2) for array in batches.windows(MEGAPIXELS, SIDE)),
            value_range=value_range,
        )
    except (DataError, PixelError):  # too small; or not finite, which training reports better
        return None
    if report.independent:
        reason = "noise is independent from pixel to pixel: preset 'independent'"
        return Decision("independent", {}, reason)
    between = report.luma.correlation[0]
    reason = f"neighbours have noise that is correlated {between:.2f}"
    reason = "there is nearly no noise" if report.negligible else reason
    return Decision("default", {"train_stride": report.train_stride}, reason)


def decide_as(denoiser: AsymmetricMaskDenoiser, recipe: Mapping[str, Any]) -> None:
    """Repeat the decision of an earlier run, to resume it."""
    if recipe["preset"] is not None:
        strides = tuple(recipe["train_stride"])
        denoiser.decide(recipe["preset"], train_stride=strides, stride=recipe["stride"])


def measured_level(
    denoiser: AsymmetricMaskDenoiser, batches: Batches, *, megapixels: float = LEVEL_MEGAPIXELS
) -> tuple[NoiseLevel, ...] | None:
    """Return the noise level, estimated from what the trained network removes from the pictures.

    Args:
        denoiser: in evaluation mode, with observation "measured" and no level yet, so that its
            predictions do not contain the pixel's own value.
        batches: those it was trained on.
        megapixels: how many million pixels to use.

    Returns:
        One level per channel; None where the pictures are too small.
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
    """Return in every process what `find` returns in the first."""
    from accelerate.utils import broadcast_object_list

    if accelerator.num_processes == 1:
        return find()
    found = [find() if accelerator.is_main_process else None]
    broadcast_object_list(found)
    return cast("T", found[0])

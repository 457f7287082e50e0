"""The standard deviation of the mask draws that `denoise` averages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import SettingError
from .scheme import Checkerboard, Lattice, NothingHidden
from .values import Form, from_batch

if TYPE_CHECKING:
    from .denoiser import AsymmetricMaskDenoiser


class Spread:
    """Running standard deviation of draws that are added one by one (Welford 1962).

    Args:
        like: (B, C, H, W), of the same shape and device as the draws.

    >>> spread = Spread(torch.zeros(1, 1, 1, 1))
    >>> for value in (1.0, 2.0, 4.0):
    ...     spread.add(torch.full((1, 1, 1, 1), value))
    >>> round(float(spread.deviation() ** 2), 4)
    2.3333
    """

    def __init__(self, like: Tensor) -> None:
        self.number = 0
        self.mean = torch.zeros_like(like, dtype=torch.float32)
        self.squares = torch.zeros_like(self.mean)  # of the distances from the mean

    def add(self, draw: Tensor) -> None:
        """Add one draw (B, C, H, W)."""
        self.number += 1
        before = draw - self.mean
        self.mean += before / self.number
        self.squares += before * (draw - self.mean)

    def deviation(self) -> Tensor:
        """Return the sample standard deviation (B, C, H, W), float32, of two draws or more."""
        return (self.squares / (self.number - 1)).sqrt()


def turns_passes(denoiser: AsymmetricMaskDenoiser) -> bool:
    """Return whether each pass shows the network the image in another orientation.

    Where nothing is hidden, they always do, as passes would otherwise be equal.
    """
    return denoiser.turns or type(denoiser.inference_scheme) is NothingHidden


def check_draws(denoiser: AsymmetricMaskDenoiser, passes: int) -> None:
    """Raise SettingError if the passes of a denoiser cannot differ, or are fewer than 2."""
    scheme = denoiser.inference_scheme
    if type(scheme) in (Checkerboard, Lattice) and not turns_passes(denoiser):
        raise SettingError(
            f"return_std needs passes that differ, and those of {scheme!r} all hide the same: set "
            "denoiser.turns = True to compare orientations"
        )
    if passes < 2:
        raise SettingError(f"passes is {passes}; return_std=True needs 2 or more, better passes=8")


def deviation_of(batch: Tensor, form: Form) -> Tensor | NDArray[np.generic]:
    """Return a standard deviation (B, C, H, W) in scale and layout of its picture, as float32."""
    plain = replace(form, dtype="float32", low=0.0, scale=1.0, byte_order="=")
    return from_batch(batch * form.scale, plain)

"""R3, random replacement refinement: denoise again with a share of noisy pixels put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import SettingError
from .pixels import PixelDownsample
from .scheme import WORD, Key, Purpose, hash_pixels


@dataclass(frozen=True)
class Refinement:
    """Settings of R3 (AP-BSN, Lee et al. 2022; the E of the paper's variants B-E and P-E).

    Attributes:
        draws: T, the number of replaced images that are denoised and averaged.
        share: the share of pixels replaced by the noisy ones, in [0, 1).
        masked: True sends every replaced image through the masked branches at stride 1, as the
            paper's code does (K·T network passes); False sends it through the plain network, as
            AP-BSN does (T passes), which needs a blind-spot network.
        balanced: True spreads the replaced pixels evenly over the draws: with T·share whole every
            pixel is put back in exactly T·share of them. False draws anew each time, as both
            papers do.
    """

    draws: int = 8
    share: float = 0.16
    masked: bool = True
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 <= self.share < 1:
            raise SettingError(
                f"refinement with draws={self.draws}, share={self.share}; draws >= 1 and a share "
                "in [0, 1) are needed"
            )


def replacement(
    size: tuple[int, int],
    batch: int,
    share: float,
    *,
    key: Key,
    draws: int = 0,
    sample: Tensor | int = 0,
    origin: tuple[int, int] = (0, 0),
    device: torch.device | str | None = None,
) -> Tensor:
    """Return bool (B, 1, H, W), True where the noisy pixel is put back, with odds `share`.

    With `draws` = T, draw t of T takes the pixels whose one random number u fulfils
    (u + t/T) mod 1 < share: systematic sampling. With 0 every draw has numbers of its own.
    """
    grid = PixelDownsample(1).grid(batch, size, sample=sample, origin=origin, device=device)
    turn = (key.draw << 32) // draws if draws else 0
    key = key._replace(purpose=Purpose.REPLACE, draw=0 if draws else key.draw)
    word = hash_pixels(key, grid.sample, grid.row, grid.col)
    return (word + turn & WORD) < int(share * 2**32)


def refine(
    image: Tensor, denoised: Tensor, run: Callable[[Tensor, int], Tensor], replace: Tensor
) -> Tensor:
    """Return the mean over T draws of `run` on the denoised image with noisy pixels put back.

    Args:
        image: (B, C, H, W) float, noisy.
        denoised: (B, C, H, W), the first result.
        run: called as run(replaced, draw) -> (B, C, H, W), one denoising of a replaced image.
        replace: bool (T, B or 1, 1, H, W), True where the noisy pixel is put back; shared by the
            channels of a pixel.
    """
    if not len(replace):
        raise SettingError("refine needs at least one draw; replace has none")
    total = torch.zeros_like(denoised)
    for draw, mask in enumerate(replace):
        total += run(torch.where(mask, image, denoised), draw)
    return total / len(replace)

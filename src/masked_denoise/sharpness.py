"""Sharpness at the pixel level: low in photographs as cameras make them, high after downscaling.

Demosaicing and the lens blur: photographs are smooth at the pixel level, and differences between
neighbouring pixels of a noisy one are mostly noise. Downscaled pictures are sharp, and these
differences may be texture.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .robust import differs

WINDOW = 24  # side of the sampled windows, in pixels
WINDOWS = 12  # largest number of windows along a side
SQUARE = 8  # side of the squares in which contrast is compared
EDGES = 0.1  # share of the squares that counts: those with the strongest contrast
NOISY = 0.9  # least share of the pixels of a square that differ from a neighbour
NEAR, FAR = 5, 9  # sides of the means whose difference is the contrast
FAINT = 2 / 255  # contrast that is not significant, where white is 1


def sharpness(luma: Tensor, noisy: Tensor) -> Tensor:
    """Return the fine contrast at edges over the coarse contrast there: (B,).

    The ratio does not depend on the strength of edges, but is small if there is hardly any
    contrast. It is 0.2 to 0.5 for photographs of five cameras, and mostly 0.6 to 1 for the Kodak
    pictures.

    Args:
        luma: (B, 1, H, W) float, where white is 1. The result is 0 if a side is under 24 pixels.
        noisy: the same before denoising, if `luma` is denoised. Squares in which pixels equal their
            neighbours, as at the edge of a frame, do not count.
    """
    if min(luma.shape[2:]) < WINDOW or not len(luma):
        return luma.new_zeros(len(luma))
    image, before = _windows(luma), _windows(noisy)
    fine = _squares((image - _binomial(image)).square())
    coarse = _squares((_mean(image, NEAR) - _mean(image, FAR)).square())
    coarse = coarse * (_squares(differs(before).to(image.dtype)) >= NOISY)
    fine, coarse = fine.view(len(luma), -1), coarse.view(len(luma), -1)
    most = coarse.topk(-(-coarse.shape[1] // round(1 / EDGES)), dim=1)
    power = most.values.mean(1) + FAINT**2
    return (fine.gather(1, most.indices).mean(1) / power).sqrt()


def _windows(luma: Tensor) -> Tensor:
    """Return windows (N, 1, 24, 24), spread evenly over images (B, 1, H, W), image by image."""
    seen = luma[:, 0]
    for dim in (1, 2):
        room = seen.shape[dim] - WINDOW
        seen = seen.unfold(dim, WINDOW, max(WINDOW, -(-room // (WINDOWS - 1))))
    return seen.reshape(-1, 1, WINDOW, WINDOW)


def _squares(windows: Tensor) -> Tensor:
    """Return means over the squares of the inner part, where `FAR` does not leave the window."""
    inner = slice(FAR // 2, WINDOW - FAR // 2)
    return F.avg_pool2d(windows[..., inner, inner], SQUARE)


def _binomial(image: Tensor) -> Tensor:
    """Return means over 3 x 3 pixels with weights 1, 2, 1; those at the border are not valid."""
    for dim in (2, 3):
        image = (image.roll(1, dim) + 2 * image + image.roll(-1, dim)) / 4
    return image


def _mean(image: Tensor, side: int) -> Tensor:
    """Return means over `side` x `side` pixels; those at the border are not valid."""
    image = F.avg_pool2d(image, (side, 1), 1, (side // 2, 0))
    return F.avg_pool2d(image, (1, side), 1, (0, side // 2))

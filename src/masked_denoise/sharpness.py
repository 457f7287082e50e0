"""Whether a picture is sharp in every pixel, or smooth as cameras make them.

A camera interpolates its colour mosaic, and its lens blurs: photographs seen pixel by pixel are
smooth, and what changes from one pixel to the next in a noisy one is mostly noise. Pictures that
were made smaller are sharp, and have texture there.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .robust import differs

WINDOW = 24  # side of the windows that are looked at, in pixels
WINDOWS = 12  # of them in a row, at most
SQUARE = 8  # side of the squares in which contrast is compared
EDGES = 0.1  # share of the squares that counts: those of most contrast
NOISY = 0.9  # share of the pixels of a square that carry noise, at least
NEAR, FAR = 5, 9  # contrast is that between means over so many pixels, a side
FAINT = 2 / 255  # contrast that tells nothing, where white is 1


def sharpness(luma: Tensor, noisy: Tensor) -> Tensor:
    """Return the contrast of neighbouring pixels over that of their surroundings, at edges: (B,).

    It does not depend on contrast itself, but where there is hardly any: then it is small. Of
    photographs of five cameras it is 0.2 to 0.5, of the Kodak pictures mostly 0.6 to 1.

    Args:
        luma: (B, 1, H, W) float, white is 1; denoised. 0 is returned for sides under 24 pixels.
        noisy: the same before. Where pixels equal all their neighbours, as at the edge of a frame,
            nothing counts.
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
    """Return windows (N, 1, 24, 24) spread evenly over images (B, 1, H, W), some of each."""
    seen = luma[:, 0]
    for dim in (1, 2):
        room = seen.shape[dim] - WINDOW
        seen = seen.unfold(dim, WINDOW, max(WINDOW, -(-room // (WINDOWS - 1))))
    return seen.reshape(-1, 1, WINDOW, WINDOW)


def _squares(windows: Tensor) -> Tensor:
    """Return means over the squares of the inner part, whose surroundings lie in the window."""
    inner = slice(FAR // 2, WINDOW - FAR // 2)
    return F.avg_pool2d(windows[..., inner, inner], SQUARE)


def _binomial(image: Tensor) -> Tensor:
    """Return means of 3 x 3 pixels, of weights 1, 2, 1; those at the ends are not meant."""
    for dim in (2, 3):
        image = (image.roll(1, dim) + 2 * image + image.roll(-1, dim)) / 4
    return image


def _mean(image: Tensor, side: int) -> Tensor:
    """Return means of `side` x `side` pixels; those at the ends are not meant."""
    image = F.avg_pool2d(image, (side, 1), 1, (side // 2, 0))
    return F.avg_pool2d(image, (1, side), 1, (0, side // 2))

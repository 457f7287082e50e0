"""The masking operators in plain torch: these functions are the definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import SettingError
from ..hashing import WORD, Key, Purpose, hash_pixels
from ..pixels import PixelDownsample
from ..scheme import Fill, check_fill


def fill_hidden(image: Tensor, hidden: Tensor, fill: Fill, *, word: Tensor | None = None) -> Tensor:
    """Return the image with its hidden pixels filled in; visible pixels stay as they are (Eq. 2).

    Filled by selection, never by multiplication, so that a NaN under a hidden pixel is gone.

    Args:
        image: (N, C, h, w) float.
        hidden: bool (N, 1, h, w), True = the network must not see this pixel.
        fill: "zero", a number, "mean" of the visible pixels in the 3 x 3 around the pixel, else
            5 x 5, else 7 x 7, else of the whole sub-image; or "neighbor", the value of one other
            pixel of the 5 x 5 (of its part inside the image), picked by `word`.
        word: int64 (N, 1, h, w) random bits, for "neighbor" only.

    Raises:
        SettingError: the fill is not known.
    """
    check_fill(fill, sparse=True)
    if fill == "mean":
        return _fill_mean(image, hidden)
    if fill == "neighbor":
        if word is None:
            raise SettingError("fill 'neighbor' needs random bits; pass word=scheme.bits(...)")
        return torch.where(hidden, _random_neighbor(image, word), image)
    return torch.where(hidden, 0.0 if fill == "zero" else float(fill), image)


def _fill_mean(image: Tensor, hidden: Tensor) -> Tensor:
    """Fill with the mean of the visible pixels in the smallest window that has one."""
    visible = torch.where(hidden, 0.0, image)
    weight = (~hidden).to(image.dtype)
    wide = torch.promote_types(image.dtype, torch.float32)  # half precision would overflow
    total = visible.sum((2, 3), keepdim=True, dtype=wide)
    count = weight.sum((2, 3), keepdim=True, dtype=wide)
    filled = torch.where(hidden, (total / count.clamp_min(1)).to(image.dtype), image)
    for radius in (3, 2, 1):
        total, count = _window_sum(visible, radius), _window_sum(weight, radius)
        filled = torch.where(hidden & (count > 0), total / count.clamp_min(1), filled)
    return filled


def fill_gradient(grad: Tensor, hidden: Tensor, *, mean: bool) -> Tensor:
    """Return the gradient of `fill_hidden` to its image, from that to its result.

    Args:
        grad: (N, C, h, w) float.
        hidden: bool (N, 1, h, w).
        mean: whether the fill is "mean"; of zeros and numbers nothing comes through.
    """
    grad_input = torch.where(hidden, 0.0, grad)
    if not mean:
        return grad_input
    wide = torch.promote_types(grad.dtype, torch.float32)
    rest, weight = torch.where(hidden, grad, 0.0).to(wide), (~hidden).to(wide)
    grad_input = grad_input.to(wide)
    for radius in (1, 2, 3):  # what a hidden pixel gets goes to those it is the mean of
        count = _window_sum(weight, radius)
        grad_input = grad_input + _window_sum(rest / count.clamp_min(1) * (count > 0), radius)
        rest = torch.where(count > 0, 0.0, rest)
    count = weight.sum((2, 3), keepdim=True).clamp_min(1)
    grad_input = grad_input + rest.sum((2, 3), keepdim=True) / count
    return torch.where(hidden, 0.0, grad_input).to(grad.dtype)


def _window_sum(x: Tensor, radius: int) -> Tensor:
    """Return the sum over a (2·radius+1)² window, zeros outside, one direction after the other."""
    for dim in (2, 3):
        size = x.shape[dim]
        total = x.clone()
        for shift in range(1, min(radius, size - 1) + 1):
            total.narrow(dim, 0, size - shift).add_(x.narrow(dim, shift, size - shift))
            total.narrow(dim, shift, size - shift).add_(x.narrow(dim, 0, size - shift))
        x = total
    return x


def _random_neighbor(image: Tensor, word: Tensor) -> Tensor:
    """Return for every pixel the value of one other pixel of its 5 x 5, of what is inside."""
    height, width = image.shape[2:]
    row = torch.arange(height, device=image.device).view(1, 1, -1, 1)
    col = torch.arange(width, device=image.device).view(1, 1, 1, -1)
    top, left = (row - 2).clamp_min(0), (col - 2).clamp_min(0)
    across = (col + 3).clamp_max(width) - left
    count = ((row + 3).clamp_max(height) - top) * across
    pick = (word * (count - 1)) >> 32
    pick = pick + (pick >= (row - top) * across + col - left)  # step over the pixel itself
    index = (top + pick // across) * width + left + pick % across
    index = index.clamp_max(height * width - 1)  # a single pixel has no other
    index = index.flatten(2).expand(-1, image.shape[1], -1)
    return image.flatten(2).gather(2, index).view_as(image)


def merge_branches(outputs: Sequence[Tensor], scored: Sequence[Tensor]) -> Tensor:
    """Return the image whose every pixel comes from the branch that scores it (Eq. 7).

    Args:
        outputs: K tensors (N, C, h, w), one a branch.
        scored: K tensors bool (N, 1, h, w) that partition the pixels.
    """
    merged = outputs[0]
    for output, mask in zip(outputs[1:], scored[1:], strict=True):
        merged = torch.where(mask, output, merged)
    return merged


def masked_distance(output: Tensor, target: Tensor, scored: Tensor, *, squared: bool) -> Tensor:
    """Return the mean of |output - target|, or of its square, where scored: float32, 0 for none."""
    error = torch.where(scored, output - target, 0.0).float()
    total = error.square().sum() if squared else error.abs().sum()
    return total / (scored.sum() * output.shape[1]).clamp_min(1)


def smoothness(image: Tensor, epsilon: float) -> Tensor:
    """Return the mean of sqrt(dy² + dx² + epsilon²) - epsilon of (B, C, H, W), in float32."""
    image = image.float()
    dy = torch.diff(image, dim=2, append=image[:, :, -1:])
    dx = torch.diff(image, dim=3, append=image[..., -1:])
    length = (dy.square() + dx.square() + epsilon**2).sqrt() - epsilon
    return length.mean() if image.numel() else length.sum()


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

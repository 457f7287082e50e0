"""Losses: mask loss, smoothness loss and their sum, without clean images; and loss to a target."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .errors import SettingError, SizeError
from .ops import mask_distance, smoothness

LossKind = Literal["l1", "l2", "psnr"]
FLOOR = 1e-6  # added to the mean squared error, so that PSNR saturates at 60 dB


def mask_loss(output: Tensor, target: Tensor, scored: Tensor, *, kind: LossKind = "l1") -> Tensor:
    """Return the mean distance of output and noisy target over the scored pixels (Eq. 3, 4).

    The mean runs over scored pixels and channels; it is 0, with zero gradient, if no pixel is
    scored. The sum is computed in float32 whatever the dtype of the input. Pixels that are not
    scored never enter, not even as a NaN.

    Args:
        output: (N, C, h, w) float, the prediction for the masked sub-images.
        target: (N, C, h, w), the noisy sub-images.
        scored: bool (N, 1, h, w).
        kind: "l1" for absolute, "l2" for squared differences.

    Returns:
        A float32 scalar.

    Raises:
        SizeError: the shapes do not match.
        SettingError: `kind` is neither "l1" nor "l2", or `scored` is not bool.

    >>> noisy = torch.tensor([[[[1.0, 2.0]]]])
    >>> mask_loss(torch.zeros(1, 1, 1, 2), noisy, torch.tensor([[[[True, False]]]]))
    tensor(1.)
    """
    if output.shape != target.shape or scored.shape != (output.shape[0], 1, *output.shape[2:]):
        raise SizeError(
            f"output {tuple(output.shape)}, target {tuple(target.shape)} and scored "
            f"{tuple(scored.shape)}: (N, C, h, w) twice and (N, 1, h, w) are needed"
        )
    if scored.dtype != torch.bool:
        raise SettingError(f"scored is of {scored.dtype}; bool is needed: scored > 0.5, say")
    if kind not in ("l1", "l2"):
        raise SettingError(f"kind is {kind!r}; 'l1' or 'l2' is needed")
    return mask_distance(output, target, scored, squared=kind == "l2")


def target_loss(output: Tensor, target: Tensor, *, kind: LossKind = "l1") -> Tensor:
    """Return the distance of output and target over all pixels, for training with a target.

    Args:
        output: (B, C, H, W) float.
        target: the same shape.
        kind: "l1" for absolute, "l2" for squared differences; "psnr" for -PSNR / 434 dB, averaged
            over the images (ln(mean squared error) / 100), so that quiet images count as much as
            noisy ones.

    Returns:
        A float32 scalar.

    Raises:
        SizeError: the shapes differ.
        SettingError: `kind` is none of these.

    >>> import torch
    >>> round(target_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), kind="psnr").item(), 4)
    0.0
    """
    if output.shape != target.shape:
        raise SizeError(f"output is {tuple(output.shape)}, target {tuple(target.shape)}")
    difference = output.float() - target.float()
    if kind == "l1":
        return difference.abs().mean()
    if kind == "l2":
        return difference.square().mean()
    if kind == "psnr":
        return (difference.square().mean((1, 2, 3)) + FLOOR).log().mean() / 100
    raise SettingError(f"kind is {kind!r}; 'l1', 'l2' or 'psnr' is needed")


def smoothness_loss(image: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """Return the mean length of the colour gradient over pixels and channels (Eq. 9).

    The length is sqrt(dy² + dx² + epsilon²) - epsilon, with forward differences that are zero at
    the last row and column. Epsilon keeps the gradient finite where the image is flat; a flat image
    has a loss of exactly zero.

    Args:
        image: (B, C, H, W) float in any range; computed in float32.
        epsilon: in units of the pixel values.

    Returns:
        A float32 scalar.

    Raises:
        SizeError: the image is not four-dimensional.

    >>> import torch
    >>> smoothness_loss(torch.ones(1, 3, 4, 4))
    tensor(0.)
    """
    if image.ndim != 4:
        raise SizeError(f"image has shape {tuple(image.shape)}; (B, C, H, W) is needed")
    return smoothness(image, epsilon)


def total_loss(mask_losses: Tensor, denoised: Tensor, *, smoothness: float = 0.01) -> Tensor:
    """Return the summed mask losses of all branches plus lambda times smoothness (Eq. 10).

    Args:
        mask_losses: (K,) or scalar, one `mask_loss` per branch.
        denoised: (B, C, H, W), the image merged from all branches.
        smoothness: lambda; the paper's text uses 0.01.
    """
    return mask_losses.sum() + smoothness * smoothness_loss(denoised)

"""Trials of a network, to detect its size multiple, memory layout, global skip and blindness."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from .errors import BackboneError
from .modes import keeping_modes
from .scheme import MaskScheme

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)  # tried first, as they fit most networks
_OTHERS = (3, 5, 6, 7, 9, 10, 12, 14, 20, 24, 28, 40, 48, 56, 80, 96, 112)


@dataclass(frozen=True)
class Traits:
    """Properties of a network.

    Attributes:
        size_multiple: height and width must be multiples of this.
        global_skip: True if its output is its input plus a correction.
        channels_last: True if it accepts that memory layout.
        blind: True if it is registered as blind: no output pixel depends on the input pixel at the
            same place.
    """

    size_multiple: int
    global_skip: bool
    channels_last: bool
    blind: bool = False


def probe(network: nn.Module, channels: int, *, size_multiple: int | None = None) -> Traits:
    """Return the traits of a network, found with a few small random images in evaluation mode.

    The network's weights, buffers, mode and the global random state stay as they were.

    Args:
        network: (B, C, H, W) float in and out.
        channels: C.
        size_multiple: if it is known.

    Raises:
        BackboneError: the network keeps the shape for no size multiple up to 128, accepts one image
            only, or has no weights in memory.

    >>> probe(nn.Conv2d(3, 3, 3, padding=1), 3).size_multiple
    1
    """
    if any(weight.is_meta for weight in network.parameters()):
        raise BackboneError(
            "the backbone's weights are on the device 'meta', which has no memory; make it on "
            "another, or give it memory: backbone.to_empty(device='cpu'), and weights"
        )
    multiples = (*_MULTIPLES, *_OTHERS) if size_multiple is None else (size_multiple,)
    with _evaluating(network):
        multiple, image, output = _smallest_multiple(network, channels, multiples)
        return Traits(multiple, _has_skip(image, output), _takes_channels_last(network, image))


def is_blind(network: nn.Module, channels: int, size_multiple: int) -> bool | None:
    """Return whether no output pixel depends on the input pixel at its place; None if unclear.

    The network runs with random weights, as its own may be zero, in a zero-initialised last layer
    for example. Single pixels are changed, and the outputs are compared at the same places. The
    network is not modified.

    >>> is_blind(nn.Conv2d(3, 3, 3, padding=1), 3, 1)
    False
    """
    generator = torch.Generator().manual_seed(0)
    weights = {name: _random_like(value, generator) for name, value in network.named_parameters()}
    height, width = _odd_sides(size_multiple)
    image = torch.rand(1, channels, height, width, generator=generator)
    image = image.to(_a_weight(network))
    there, anywhere = 0.0, 0.0
    with _evaluating(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = functional_call(network, weights, image.clone())
        for row, col in ((height // 2, width // 2), (height // 3, width // 2 + 1)):
            changed = image.clone()
            changed[..., row, col] = 1 - changed[..., row, col]
            change = (functional_call(network, weights, changed) - output).abs()
            there = max(there, float(change[..., row, col].max()))
            anywhere = max(anywhere, float(change.max()))
    if not 0 < anywhere < float("inf"):
        return None
    return there <= 1e-6 * anywhere


def warn_unless_blind(
    scheme: MaskScheme, network: nn.Module, channels: int, traits: Traits
) -> None:
    """Warn if neither the scheme nor the network hides a pixel from its own prediction."""
    if not scheme.blind or traits.blind:
        return
    if is_blind(network, channels, traits.size_multiple) is False:
        warnings.warn(
            f"{scheme!r} hides no pixel, and the backbone sees each pixel that it predicts: it "
            "will learn to copy the noise. Take a blind-spot network, or a scheme that hides "
            "pixels, such as RandomPartition(2)",
            stacklevel=3,
        )


@torch.no_grad()
def _run(network: nn.Module, image: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        output = network(image.clone())  # it may modify its input
    if not isinstance(output, Tensor):
        raise BackboneError(
            f"the backbone returned a {type(output).__name__}; a tensor of the shape of its input "
            "is needed (wrap the network in a small nn.Module that picks it)"
        )
    return output


def _smallest_multiple(
    network: nn.Module, channels: int, multiples: Sequence[int]
) -> tuple[int, Tensor, Tensor]:
    """Return the first size multiple that works, and the input and output of that trial."""
    parameter = _a_weight(network)
    trouble: Exception | str = ""
    for multiple in multiples:
        height, width = _odd_sides(multiple)
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, channels, height, width, generator=generator)
        image = image.to(parameter.device, parameter.dtype)
        try:
            output = _run(network, image)
        except BackboneError:
            raise
        except Exception as error:  # a network may fail in any way on a size it cannot take
            trouble = error
            continue
        if output.shape == image.shape:
            return multiple, image, output
        trouble = f"{tuple(image.shape)} went in, {tuple(output.shape)} came out"
    sides = f"any multiple up to {_MULTIPLES[-1]}" if len(multiples) > 1 else f"{multiples[0]}·n"
    raise BackboneError(
        f"the backbone does not keep the shape of (B, {channels}, H, W) for sides of {sides}; the "
        f"last trial: {trouble}. Its input and output need {channels} channels each; pass "
        "channels=... if the images have another number"
    ) from (trouble if isinstance(trouble, Exception) else None)


def _odd_sides(multiple: int) -> tuple[int, int]:
    """Return two different sides of about 32 pixels or more that are odd times the multiple."""
    times = max(33 // multiple, 1) | 1
    return multiple * times, multiple * (times + 2)


def _has_skip(image: Tensor, output: Tensor) -> bool:
    """Return whether the output follows the input pixel by pixel with a slope of about one."""
    x, y = (image - image.mean()).float(), (output - output.mean()).float()
    slope = (x * y).sum() / x.square().sum().clamp_min(1e-12)
    return bool(0.5 < slope < 1.5)


def _takes_channels_last(network: nn.Module, image: Tensor) -> bool:
    """Return whether the network accepts channels-last input.

    Raises:
        BackboneError: it cannot process two images at once in any layout.
    """
    two = image.repeat(2, 1, 1, 1)
    try:
        _run(network, two.to(memory_format=torch.channels_last))
    except RuntimeError:  # such as a .view() of an unexpected layout
        takes = False
    else:
        takes = not any(weight.ndim == 5 for weight in network.parameters())  # for volumes
    if takes:
        return True
    try:
        _run(network, two)
    except RuntimeError as error:
        raise BackboneError(
            f"the backbone takes one image, but not two at once, {tuple(two.shape)}: {error}. "
            "Batches (B, C, H, W) are needed; a network for volumes is not one for images"
        ) from error
    return False


def _a_weight(network: nn.Module) -> Tensor:
    """Return a weight whose device and dtype the input must have."""
    floats = (weight for weight in network.parameters() if weight.is_floating_point())
    return next(floats, torch.zeros(()))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; afterwards restore its modes and buffers."""
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    with keeping_modes(network):
        network.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    module._buffers[name] = buffer
                    same = (buffer == before) | ((buffer != buffer) & (before != before))  # NaN
                    if not bool(same.all()):
                        buffer.copy_(before)


def _random_like(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return random values for a weight, scaled to keep the magnitude of feature maps."""
    scale = (weight.numel() / len(weight)) ** -0.5 if weight.ndim > 1 else 0.5
    return scale * torch.randn(weight.shape, generator=generator).to(weight)

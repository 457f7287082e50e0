"""The cost of a backbone: parameters, and multiply-adds per pixel."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import SettingError
from ..modes import keeping_modes
from ..probe import probe
from .registry import backbone_info, create_backbone

SIDE, SMALL_SIDE = 256, 64
"""Side in pixels of the test picture on the "meta" device, and on the CPU."""


class Cost(NamedTuple):
    """The cost of a network.

    Attributes:
        parameters: number of parameters.
        macs_per_pixel: multiply-adds of one pass, divided by the number of pixels.
    """

    parameters: int
    macs_per_pixel: float


def cost(name: str, *, channels: int = 3, **arguments: object) -> Cost:
    """Return parameters and multiply-adds per pixel of a registered backbone.

    PyTorch's own counter counts convolutions (including transposed and depthwise ones), matrix
    products and attention, but not activations, norms and sums. The network runs on the "meta"
    device, without computing anything, if it can.

    Args:
        name: one of `list_backbones()`, or "timm:" and the name of an encoder.
        channels: C of the picture.
        arguments: of the network, as for `create_backbone`.

    Raises:
        UnknownNameError: no backbone has that name.

    >>> cost("unet").parameters, round(cost("unet").macs_per_pixel / 1000)
    (1259475, 297)
    """
    multiple = backbone_info(name, **arguments).size_multiple
    if multiple is None:
        with torch.random.fork_rng(devices=[]):
            network = create_backbone(name, channels=channels, **arguments)
        multiple = probe(network, channels).size_multiple
    try:
        with torch.device("meta"):
            network = create_backbone(name, channels=channels, **arguments)
            return cost_of(network, _image(channels, SIDE, multiple))
    except (RuntimeError, SettingError):  # the network cannot run on "meta"
        with torch.random.fork_rng(devices=[]):
            network = create_backbone(name, channels=channels, **arguments)
        return cost_of(network, _image(channels, SMALL_SIDE, multiple))


def count_parameters(name: str, *, channels: int = 3, **arguments: object) -> int:
    """Return the number of parameters of a registered backbone; faster than `cost`.

    >>> count_parameters("unet", width=128)
    7935555
    """
    with torch.device("meta"):
        network = create_backbone(name, channels=channels, **arguments)
    return _parameters(network)


def _parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _image(channels: int, side: int, multiple: int) -> Tensor:
    side = multiple * math.ceil(side / multiple)
    return torch.zeros(1, channels, side, side)


@torch.no_grad()
def cost_of(network: nn.Module, image: Tensor) -> Cost:
    """Return the cost of a network, by running it on a picture (B, C, H, W).

    >>> cost_of(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 16, 16))
    Cost(parameters=224, macs_per_pixel=216.0)
    """
    with keeping_modes(network), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    pixels = image.shape[0] * image.shape[2] * image.shape[3]
    return Cost(_parameters(network), counter.get_total_flops() / 2 / pixels)

"""What a backbone costs: its parameters, and the multiply-adds it spends on a pixel."""

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
"""Sides in pixels of the picture to count on: without values, and with."""


class Cost(NamedTuple):
    """What a network costs.

    Attributes:
        parameters: numbers that training may change.
        macs_per_pixel: multiply-adds of one pass, divided by the pixels of the picture.
    """

    parameters: int
    macs_per_pixel: float


def cost(name: str, *, channels: int = 3, **arguments: object) -> Cost:
    """Return parameters and multiply-adds a pixel of a registered backbone.

    Convolutions (transposed and depthwise ones, too), matrix products and attention are counted,
    by PyTorch's own counter; activations, norms and sums are not. Nothing is computed: the network
    is made without values, unless it cannot run so.

    Args:
        name: one of `list_backbones()`.
        channels: C of the picture.
        arguments: the network's own, as for `create_backbone`.

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
    except (RuntimeError, SettingError):  # something in it has no form without values
        with torch.random.fork_rng(devices=[]):
            network = create_backbone(name, channels=channels, **arguments)
        return cost_of(network, _image(channels, SMALL_SIDE, multiple))


def count_parameters(name: str, *, channels: int = 3, **arguments: object) -> int:
    """Return the parameters of a registered backbone; sooner than `cost` does.

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
    """Return what a network costs on a picture (B, C, H, W), which it is run on.

    >>> cost_of(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 16, 16))
    Cost(parameters=224, macs_per_pixel=216.0)
    """
    with keeping_modes(network), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    pixels = image.shape[0] * image.shape[2] * image.shape[3]
    return Cost(_parameters(network), counter.get_total_flops() / 2 / pixels)

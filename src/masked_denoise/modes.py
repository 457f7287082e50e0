"""Training and evaluation mode of networks: saved and restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def keeping_modes(network: nn.Module) -> Iterator[None]:
    """Restore the mode (training or evaluation) of every module after the block."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training

"""The network of a denoiser in training, compiled by `torch.compile`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..compiled import CompiledOrPlain


class CompiledForward:
    """Takes the place of a network's `forward` until `remove` is called.

    The network stays itself, so that its weights keep their names. Without gradients, as in
    validation, it runs as it is.

    Args:
        network: to compile; on the device it is trained on.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.before = network.__dict__.get("forward")
        self.forward = CompiledOrPlain(network.forward, "training goes on without compile=True")
        network.forward = self  # an attribute, over the method

    @property
    def works(self) -> bool:
        """Whether it is compiled; False from the first failure on."""
        return self.forward.works

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's output."""
        if not torch.is_grad_enabled():
            return self.forward.plain(*args, **kwargs)
        return self.forward(*args, **kwargs)

    def remove(self) -> None:
        """Give the network its own `forward` back."""
        self.network.__dict__.pop("forward", None)
        if self.before is not None:
            self.network.__dict__["forward"] = self.before

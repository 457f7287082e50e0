"""The network of a denoiser in training, compiled by `torch.compile`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class CompiledForward:
    """Takes the place of a network's `forward` until `remove` is called.

    The network stays itself, so that its weights keep their names. Without gradients, as in
    validation, it runs as it is. Where it cannot be compiled, it runs as it is from then on, and
    that is told once.

    Args:
        network: to compile; on the device it is trained on.

    Attributes:
        works: whether it is compiled; False from the first failure on.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.plain: Callable[..., Tensor] = network.forward
        self.before = network.__dict__.get("forward")
        self.compiled: Callable[..., Tensor] | None = None
        self.works = True
        network.forward = self  # an attribute, over the method

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's output."""
        if not self.works or not torch.is_grad_enabled():
            return self.plain(*args, **kwargs)
        try:
            if self.compiled is None:
                self.compiled = torch.compile(self.plain)
            return self.compiled(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # compilers fail in many ways
            output = self.plain(*args, **kwargs)  # what the network itself cannot do, it raises
            self.works = False
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            warnings.warn(
                f"training goes on without compile=True, since torch.compile failed: {reason}",
                stacklevel=2,
            )
            return output

    def remove(self) -> None:
        """Give the network its own `forward` back."""
        self.network.__dict__.pop("forward", None)
        if self.before is not None:
            self.network.__dict__["forward"] = self.before

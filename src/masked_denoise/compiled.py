"""Functions compiled by `torch.compile` where that works, and as they are where it does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class CompiledOrPlain:
    """A network, or its `forward`, that is compiled by its first call.

    Where it cannot be compiled it runs as it is from then on, and that is told once. What it cannot
    do itself, it raises.

    Args:
        plain: what is called.
        without: how the warning begins, such as "training goes on without compile=True".

    Attributes:
        works: whether it is compiled; False from the first failure on.
    """

    def __init__(self, plain: Callable[..., Tensor], without: str) -> None:
        self.plain, self.without = plain, without
        self.compiled: Callable[..., Tensor] | None = None
        self.works = True

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output."""
        if not self.works:
            return self.plain(*args, **kwargs)
        try:
            if self.compiled is None:
                self.compiled = torch.compile(self.plain)
            return self.compiled(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # compilers fail in many ways
            output = self.plain(*args, **kwargs)
            self.works = False
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            warnings.warn(f"{self.without}, since torch.compile failed: {reason}", stacklevel=2)
            return output


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

"""Networks compiled by `torch.compile` where that works, and uncompiled where it fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .errors import first_line


class CompiledOrPlain:
    """A network, or its `forward`, that is compiled by its first call.

    If compilation fails, it runs uncompiled from then on, after one warning. Errors of the
    uncompiled network itself are raised.

    Args:
        plain: the network or function to call.
        without: beginning of the warning, such as "training goes on without compile=True".

    Attributes:
        works: True until the first failure to compile.
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
            warnings.warn(
                f"{self.without}, since torch.compile failed: {first_line(error)}", stacklevel=2
            )
            return output


class CompiledForward:
    """Replacement of a network's `forward` by a compiled one, until `remove` is called.

    The network is not wrapped, so that its weights keep their names. Without gradients, as in
    validation, it runs uncompiled.

    Args:
        network: to compile, on the device it is trained on.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.before = network.__dict__.get("forward")
        self.forward = CompiledOrPlain(network.forward, "training goes on without compile=True")
        network.forward = self  # an attribute, which shadows the method

    @property
    def works(self) -> bool:
        """Whether compilation has not failed so far."""
        return self.forward.works

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's output."""
        if not torch.is_grad_enabled():
            return self.forward.plain(*args, **kwargs)
        return self.forward(*args, **kwargs)

    def remove(self) -> None:
        """Restore the network's own `forward`."""
        self.network.__dict__.pop("forward", None)
        if self.before is not None:
            self.network.__dict__["forward"] = self.before

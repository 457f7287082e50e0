"""Functions compiled by `torch.compile` where that works, and as they are where it does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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

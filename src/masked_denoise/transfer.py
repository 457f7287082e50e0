"""Copies between the host and a GPU, through pinned memory."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; copies from the CPU to a GPU are asynchronous."""
    if device.type == "cuda" and x.device.type == "cpu":
        pinned = torch.empty(
            x.shape, dtype=x.dtype, pin_memory=True
        )  # dense, however x is laid out
        return pinned.copy_(x).to(device, non_blocking=True)
    return x.to(device)


def to_host(x: Tensor) -> Tensor:
    """Return a tensor on the host, completely copied; pinned memory if it comes from a GPU."""
    if x.device.type != "cuda":
        return x.cpu()
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return host

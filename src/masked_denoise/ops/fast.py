"""Whether the fused kernels can take a tensor, and in words why not."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch
from torch import Tensor

SWITCH = "MASKED_DENOISE_EAGER"
LEAST_TRITON = (3, 4)
_OFF = ("", "0")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def why_eager(x: Tensor) -> str | None:
    """Return in words why the fused GPU kernels do not take a tensor; None where they do.

    >>> why_eager(torch.zeros(1, 3, 8, 8))
    'the tensor is on a CPU; the fused kernels are for GPUs, move it with .to("cuda")'
    """
    if os.environ.get(SWITCH, "") not in _OFF:
        return f"the environment variable {SWITCH}={os.environ[SWITCH]} is set; unset it"
    if x.device.type != "cuda":
        place = "a CPU" if x.device.type == "cpu" else f"'{x.device.type}'"
        return f'the tensor is on {place}; the fused kernels are for GPUs, move it with .to("cuda")'
    if x.dtype not in _DTYPES:
        return f"the tensor is of {x.dtype}; float16, bfloat16, float32 or float64 is needed"
    return no_triton() or _no_compiler() or _too_old(x.device, x.dtype)


@lru_cache(maxsize=1)
def no_triton() -> str | None:
    """Return why triton, if it is there at all, cannot compile the kernels; None where it can."""
    if find_spec("triton") is None:
        told = "pip install triton" if sys.platform == "linux" else "which Linux has"
        return f"the kernels are compiled by triton, which is not installed ({told})"
    try:
        found = version("triton")
    except PackageNotFoundError:  # part of another package, as "pytorch-triton"
        return None
    if tuple(int(part) for part in found.split(".")[:2]) >= LEAST_TRITON:
        return None
    least = ".".join(map(str, LEAST_TRITON))
    return f"triton is {found}; {least} or newer is needed, which comes with PyTorch 2.8"


@lru_cache(maxsize=1)
def _no_compiler() -> str | None:
    """Return what triton lacks to build its launcher, as it looks for it; None where it is there.

    Images of containers with a GPU often have neither a C compiler nor Python's headers.
    """
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton needs a C compiler; install gcc, or name one in the environment variable CC"
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme  # Debian's own, as triton has it
    headers = sysconfig.get_paths(scheme)["include"]
    if not os.path.exists(os.path.join(headers, "Python.h")):
        return f"triton needs Python's headers in {headers}; install them, on Debian as python3-dev"
    return None


@lru_cache(maxsize=64)
def _too_old(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why a GPU is too old for the kernels, or for a dtype; None where it is not."""
    if torch.version.hip is not None:
        return None
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if capability < (7, 0):
        return f"{name} has compute capability {capability}; 7.0 or more is needed"
    if dtype == torch.bfloat16 and capability < (8, 0):
        return f"{name} does not compute in bfloat16; take float16 or float32"
    return None

"""Fixtures shared by the tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# The tensors of the tests are small: more threads cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Without a GPU the kernels run in Triton's interpreter, which triton must know when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Sums of float32 are compared to 1e-6: no product may be rounded to 10 bits.
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every program
# that they start: tests that press it need it to work.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded reference data and photographs; tests that need it skip without."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder of recorded data (../shared) is not there")
    return folder


@pytest.fixture(autouse=True)
def _on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the GPU, from programs that a test starts too, unless the test is marked `gpu`.

    Many tests compare bits, which no two devices have in common.
    """
    if "gpu" not in request.keywords:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Have every test draw the same random numbers, whichever ran before it."""
    torch.manual_seed(0)

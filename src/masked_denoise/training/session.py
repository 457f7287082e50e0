"""What a training run borrows from the process: accelerate, the random state, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import torch

from ..calls import computes_bf16
from ..errors import SettingError
from .settings import FitOptions, FitSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextmanager
def borrowed_accelerator(
    settings: FitSettings, options: FitOptions, *, in_bf16: bool
) -> Iterator[Accelerator]:
    """Lend the accelerator of a run; restore accelerate's state and torch's generators afterwards.

    Args:
        settings: of the run.
        options: of the run.
        in_bf16: whether mixed_precision="auto" may train the network in bfloat16.

    Raises:
        SettingError: the device, the precision or the trackers are not available.
    """
    from accelerate.state import AcceleratorState, GradientState, PartialState

    kinds = (PartialState, AcceleratorState, GradientState)
    before = [dict(kind._shared_state) for kind in kinds]
    try:
        accelerator = _make_accelerator(settings, options, in_bf16)
        gpus = [accelerator.device] if accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), _apples_forked(accelerator.device):
            yield accelerator
    finally:
        for kind, state in zip(kinds, before, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(state)


@contextmanager
def _apples_forked(device: torch.device) -> Iterator[None]:
    """Restore the generator of an Apple GPU afterwards, which `fork_rng` does not cover."""
    if device.type != "mps":
        yield
        return
    before = torch.mps.get_rng_state()
    try:
        yield
    finally:
        torch.mps.set_rng_state(before)


def _make_accelerator(settings: FitSettings, options: FitOptions, in_bf16: bool) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin

    try:
        device = None if options.device is None else torch.device(options.device)
    except RuntimeError as error:
        raise SettingError(f"device is {options.device!r}; 'cpu' or 'cuda' is needed") from error
    on_cpu = device is not None and device.type == "cpu"
    try:
        accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=_precision(settings.mixed_precision, on_cpu, in_bf16),
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=settings.accumulate, sync_with_dataloader=False
            ),
            log_with=options.log_with,
            project_dir=str(options.output or "."),
        )
    except (ValueError, ImportError) as error:
        raise SettingError(
            f"accelerate cannot provide mixed_precision='{settings.mixed_precision}', "
            f"device={options.device!r}, log_with={options.log_with!r}: {error}"
        ) from error
    if device is not None and accelerator.device.type != device.type:
        raise SettingError(f"device is '{device}', but accelerate found '{accelerator.device}'")
    if device is not None and device.index not in (None, accelerator.device.index or 0):
        raise SettingError(
            f"device is '{device}', but accelerate takes '{accelerator.device}'; choose the GPU "
            f"with CUDA_VISIBLE_DEVICES={device.index}, and device='{device.type}'"
        )
    return accelerator


def _precision(asked: str, on_cpu: bool, in_bf16: bool) -> str:
    """Return "no", "fp16" or "bf16"; "auto" is bf16 on CPUs and CUDA GPUs that compute in it.

    Only for networks that train in it. They train up to twice as fast.
    """
    if asked != "auto":
        return asked
    if on_cpu or not any(
        other.is_available() for other in (torch.cuda, torch.backends.mps, torch.xpu)
    ):
        device = "cpu"
    else:
        device = "cuda" if torch.cuda.is_available() else "other"
    return "bf16" if in_bf16 and device != "other" and computes_bf16(torch.device(device)) else "no"


class Interrupt:
    """In its context, the first Ctrl-C only sets `asked`; the second raises KeyboardInterrupt.

    Does nothing outside the main thread, or where the program handles Ctrl-C in its own way.

    Args:
        tell: called with a message at the first Ctrl-C.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.asked = False
        self.tell = tell
        self.installed = False

    def __enter__(self) -> Interrupt:
        normal = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if normal and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._ask)
            self.installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.tell("\nstopping after this step; Ctrl-C again stops at once")

"""Calls of the network: precision, compilation, and how many images at a time.

On a GPU the branches of several passes are batched, as many as fit into half of the free memory:
the first call takes one image and measures its memory. A call that runs out of memory is repeated
with half as many images. On other devices every branch is a separate call: one image keeps a CPU
busy, and a smaller batch stays in its caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .compiled import CompiledOrPlain
from .errors import BackboneError, SettingError
from .pixels import reflect_pad

if TYPE_CHECKING:
    from .denoiser import AsymmetricMaskDenoiser

Job = tuple[Tensor, int]  # filled sub-images (n, C, h, w), and their orientation, see `turned`
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_PIXELS = 1 << 24  # per call; more do not make a GPU faster
_TURNS: tuple[tuple[tuple[int, ...], bool], ...] = (  # flipped dimensions, then transposed or not
    ((), False), ((3,), True), ((2, 3), False), ((2,), True),
    ((3,), False), ((2, 3), True), ((2,), False), ((), True),
)  # fmt: skip
SHARE = 0.5  # share of the free memory that a call may use
TELLING = 1 << 16  # pixels of a call from which its memory extrapolates: workspace is small then


class CallCache:
    """Facts learnt from calls of a denoiser's network; a copy starts empty.

    Attributes:
        network: the network they apply to.
        compiled: the network for calls with `compile=True`; None before the first.
        measured: by device and precision: bytes per pixel of a call, and the number of pixels of
            the call they were measured in.
        room: largest number of pixels per call; lowered when a call runs out of memory.
    """

    def __init__(self, network: nn.Module | None = None) -> None:
        self.network = network
        self.compiled: CompiledOrPlain | None = None
        self.measured: dict[tuple[torch.device, torch.dtype | None], tuple[float, int]] = {}
        self.room = MOST_PIXELS

    def __deepcopy__(self, memo: object) -> CallCache:
        return CallCache()

    def __reduce__(self) -> tuple[type[CallCache], tuple[()]]:
        return CallCache, ()


class NetworkCalls:
    """Calls the network of a denoiser for the branches of all passes, without gradients.

    Args:
        denoiser: in evaluation mode.
        device: of the images and the network.
        precision: "float32"; "bf16" or "fp16" for automatic mixed precision; or "auto": bf16 on
            GPUs with bf16 arithmetic, elsewhere float32, which gives the same picture on any CPU. A
            network whose weights are not float32 runs in their dtype under "auto" and "float32".
            "auto" respects an autocast of the caller.
        compile: whether to compile the network with `torch.compile`, once per denoiser.

    Raises:
        SettingError: the precision is not one of these.
    """

    def __init__(
        self,
        denoiser: AsymmetricMaskDenoiser,
        device: torch.device,
        *,
        precision: str = "auto",
        compile: bool = False,
    ) -> None:
        self.denoiser, self.network, self.device = denoiser, denoiser.backbone, device
        weight = next(self.network.parameters(), None)
        self.cast = cast_of(precision, device, torch.float32 if weight is None else weight.dtype)
        if denoiser.call_cache.network is not self.network:
            denoiser.call_cache = CallCache(self.network)
        self.compile, self.memory = compile, denoiser.call_cache

    def run(self, jobs: Iterable[Job]) -> Iterator[Tensor]:
        """Yield the prediction (n, C, h, w) of each job, in order; jobs are consumed lazily."""
        batch: list[Job] = []
        room = 0.0
        for image, turn in jobs:
            if batch and not self._fits(batch, image, turn, room):
                yield from self._predict(batch)
                batch = []
            if not batch:
                room = self._room()  # asks the driver, which takes longer than a small picture
            batch.append((image, turn))
            if self.device.type != "cuda":
                yield from self._predict(batch)
                batch = []
        if batch:
            yield from self._predict(batch)

    def _predict(self, batch: Sequence[Job]) -> list[Tensor]:
        return predict(self.denoiser, batch, self._forward)

    def _fits(self, batch: Sequence[Job], image: Tensor, turn: int, room: float) -> bool:
        """Return whether a job can join the batch: same shape, and no more than `room` pixels."""
        first, first_turn = batch[0]
        same = (first.shape, first_turn % 2) == (image.shape, turn % 2)
        if image.shape[2] == image.shape[3]:
            same = first.shape == image.shape
        pixels = len(image) * image.shape[2] * image.shape[3]
        return same and (len(batch) + 1) * pixels <= room

    def _room(self) -> float:
        """Return the largest number of pixels for a call."""
        if self.device.type != "cuda":
            return float("inf")
        measured = self.memory.measured.get((self.device, self.cast))
        if measured is None:
            return 0.0  # a first call with one image, to measure
        return min(self.memory.room, SHARE * free_memory(self.device) / max(measured[0], 1.0))

    def _forward(self, seen: Tensor) -> Tensor:
        """Return the network's output for (N, C, h, w), in as many calls as memory requires."""
        outputs, first = [], 0
        while first < len(seen):
            number = min(self._room() / (seen.shape[2] * seen.shape[3]), len(seen) - first)
            part = seen[first : first + max(int(number), 1)]
            output = self._call_or_none(part)
            if output is None:
                self.memory.room = max(len(part) // 2, 1) * seen.shape[2] * seen.shape[3]
                torch.cuda.empty_cache()
                continue
            outputs.append(output)
            first += len(part)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _call_or_none(self, part: Tensor) -> Tensor | None:
        """Return the output; None if memory ran out and fewer images can be tried."""
        try:
            return self._call_and_measure(part)
        except torch.cuda.OutOfMemoryError:
            if len(part) == 1:
                raise
            return None

    def _call_and_measure(self, part: Tensor) -> Tensor:
        key, pixels = (self.device, self.cast), len(part) * part.shape[2] * part.shape[3]
        known = self.memory.measured.get(key, (0.0, 0))[1]
        if self.device.type != "cuda" or known >= min(pixels, TELLING):
            return self._call(part)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        output = self._call(part)
        taken = torch.cuda.max_memory_allocated(self.device) - before
        self.memory.measured[key] = taken / pixels, pixels
        return output

    def _call(self, part: Tensor) -> Tensor:
        with self._autocast():
            if not self.compile:
                return self.network(part)  # type: ignore[no-any-return]
            if self.memory.compiled is None:
                self.memory.compiled = CompiledOrPlain(
                    self.network, "the network runs without compile=True"
                )
            return self.memory.compiled(part)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.cast is None:
            return nullcontext()
        kind = self.device.type
        if self.cast == torch.float32:
            return torch.autocast(kind, enabled=False)
        return torch.autocast(kind, dtype=self.cast)


def cast_of(precision: str, device: torch.device, weights: torch.dtype) -> torch.dtype | None:
    """Return the autocast dtype: float32 for no autocast, None to leave the caller's state.

    >>> cast_of("bf16", torch.device("cpu"), torch.float32)
    torch.bfloat16
    """
    if precision == "auto":
        leave = weights != torch.float32 or torch.is_autocast_enabled(device.type)
        fast = device.type != "cpu" and computes_bf16(device)
        return torch.bfloat16 if fast and not leave else None
    if precision not in PRECISIONS:
        raise SettingError(
            f"precision is {precision!r}; 'auto', {', '.join(map(repr, PRECISIONS))} is needed"
        )
    return PRECISIONS[precision]


def computes_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic: some GPUs, and CPUs with AVX-512 or AMX.

    Features that this version of PyTorch cannot query count as missing.
    """
    if device.type == "cpu":
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not before PyTorch 2.5
        return any(getattr(torch.cpu, name, bool)() for name in asked)
    if device.type != "cuda":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a GPU, including those cached by PyTorch."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def predict(
    denoiser: AsymmetricMaskDenoiser, jobs: Sequence[Job], network: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Return the prediction for each filled image: the network's, or z + net(z).

    Args:
        denoiser: its traits and `residual` are used.
        jobs: all of one shape (n, C, h, w) once turned.
        network: maps (N, C, h', w') to the same shape, with sides that are multiples of the
            network's size multiple.

    Raises:
        BackboneError: the network does not keep the shape.
    """
    multiple = denoiser.traits.size_multiple
    layout = torch.channels_last if denoiser.traits.channels_last else torch.contiguous_format
    dtype = next(denoiser.backbone.parameters(), jobs[0][0]).dtype
    padded = [
        reflect_pad(image, -image.shape[2] % multiple, -image.shape[3] % multiple)
        for image, _ in jobs
    ]
    views = [  # first converted to the network's layout, in which turning is cheaper
        turned(image.contiguous(memory_format=layout), turn)
        for image, (_, turn) in zip(padded, jobs, strict=True)
    ]
    if len(views) == 1:
        seen = views[0].to(dtype).contiguous(memory_format=layout)
        if seen.data_ptr() == padded[0].data_ptr():  # a network may modify its input
            seen = seen.clone()
    else:
        number, *rest = views[0].shape
        seen = torch.empty(
            (number * len(views), *rest), dtype=dtype, device=views[0].device, memory_format=layout
        )
        for part, view in zip(torch.split(seen, number), views, strict=True):
            part.copy_(view)
    output = network(seen)
    if not isinstance(output, Tensor):
        raise BackboneError(
            f"the backbone returned a {type(output).__name__}; a tensor of the shape of its input "
            "is needed, in training, too (wrap the network in a small nn.Module that picks it)"
        )
    if output.shape != seen.shape:
        raise BackboneError(
            f"the backbone turned {tuple(seen.shape)} into {tuple(output.shape)}; the shape must "
            "stay as it is"
        )
    predictions = []
    parts = torch.split(output, len(views[0])) if len(views) > 1 else [output]
    for image, (filled, turn), part in zip(padded, jobs, parts, strict=True):
        back = turned(part, turn, back=True).to(filled.dtype)
        back = image + back if denoiser.residual else back
        predictions.append(back[:, :, : filled.shape[2], : filled.shape[3]])
    return predictions


def turned(image: Tensor, turn: int, *, back: bool = False) -> Tensor:
    """Return the image in orientation `turn`: quarter turns, + 4 if mirrored; or turned back.

    Each orientation is a flip of rows, columns or both, which copies once, and a transposition,
    which does not copy.
    """
    flips, transposed = _TURNS[turn]
    if back and transposed:
        flips = tuple(5 - dim for dim in flips)
    image = image.flip(flips) if flips else image
    return image.mT if transposed else image

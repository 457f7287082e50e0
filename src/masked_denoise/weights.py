"""model.safetensors: read without running code, checked, and loaded into a network."""

from __future__ import annotations

import hashlib
import math
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .config import one_line
from .errors import MaskedDenoiseError, WeightsError

WEIGHTS = "model.safetensors"
Made = TypeVar("Made")
Shapes = Mapping[str, tuple[int, ...]]

_PICKLES = (b"PK\x03\x04", b"\x80\x02\x8a\n")  # torch.save: zip archive, and legacy format
_SPARE_ELEMENTS, _SPARE_TENSORS = 2**24, 1000  # that a network may create without storing them


class WeightsFile:
    """A safetensors file, whose SHA-256 digest is computed in the background.

    Args:
        path: the file.
        sha256: the expected digests, for `check_digest`; without any, nothing is computed.

    Attributes:
        shapes: shape of each tensor, by name.

    Raises:
        WeightsError: the file is missing, damaged, or not of the safetensors format.
    """

    def __init__(self, path: Path, sha256: Iterable[str] = ()) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        self.needed = set(sha256)
        self.came: str | OSError | None = None
        self.hashing: threading.Thread | None = None
        _check_kind(path)
        try:
            self._file = cast(Any, safe_open(path, framework="pt"))
            self.shapes = {
                name: tuple(self._file.get_slice(name).get_shape())
                for name in self._file.keys()  # noqa: SIM118
            }
        except (SafetensorError, OSError, ValueError, KeyError, OverflowError) as error:
            raise WeightsError(f"cannot read {path}: {one_line(error)}") from error
        if self.needed:
            self.hashing = threading.Thread(target=self._hash, daemon=True)
            self.hashing.start()

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, on the CPU."""
        from safetensors import SafetensorError

        try:
            return {name: self._file.get_tensor(name) for name in self.shapes}
        except (SafetensorError, RuntimeError, ValueError, KeyError, AttributeError) as error:
            raise WeightsError(f"cannot read {self.path}: {one_line(error)}") from error

    def check_digest(self) -> None:
        """Raise WeightsError if the digest is not the expected one."""
        if self.hashing is None:
            return
        self.hashing.join()
        if isinstance(self.came, OSError):
            raise WeightsError(f"cannot read {self.path}: {self.came}") from self.came
        if self.needed != {self.came}:
            raise WeightsError(
                f"{self.path} is damaged, or is not the file that was saved: its SHA-256 is "
                f"{self.came}, {' and '.join(sorted(self.needed))} is needed. Save the model again "
                "(or remove weights_sha256 from config.json, if you changed the weights); load "
                "one from the Hub with force_download=True"
            )

    def _hash(self) -> None:
        try:
            self.came = sha256_of(self.path)
        except OSError as error:
            self.came = error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 digest of a file, as 64 hexadecimal digits."""
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def make_empty(make: Callable[[], Made], shapes: Shapes) -> Made:
    """Return the result of `make`, a network or an object that holds one, with parameters unset.

    Drawing initial weights takes longer than reading the stored ones, which replace them anyway.
    The network must not be much larger than the stored weights.

    Args:
        make: creates the network; the global random state is preserved.
        shapes: of the stored tensors.

    Raises:
        WeightsError: the network is far larger than its weights.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with _Making(shapes, set_parameters=False):
                return make()
        except MaskedDenoiseError:
            raise
        except Exception:  # it may read its initial weights: try again with these
            with _Making(shapes, set_parameters=True):
                return make()


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: object) -> None:
    """Load weights into a network.

    Raises:
        WeightsError: a name, shape or kind of dtype does not fit.
    """
    own = network.state_dict()
    for name in own.keys() & weights.keys():
        here, there = own[name], weights[name]
        if isinstance(here, Tensor) and _kind(here) != _kind(there):
            raise WeightsError(
                f"the weights in {where} do not fit the backbone: '{name}' is {there.dtype} there "
                f"and {here.dtype} in the network"
            )
    try:
        left = network.load_state_dict(dict(weights), strict=True)
    except Exception as error:  # a network may have its own loader
        raise WeightsError(
            f"the weights in {where} do not fit the backbone: {one_line(error)}"
        ) from error
    missing, unknown = getattr(left, "missing_keys", ()), getattr(left, "unexpected_keys", ())
    if missing or unknown:
        raise WeightsError(
            f"the weights in {where} do not fit the backbone: missing "
            f"{one_line(', '.join(missing) or 'none')}; unknown "
            f"{one_line(', '.join(unknown) or 'none')}"
        )


def _check_kind(path: Path) -> None:
    """Raise WeightsError if a path is no regular file, or a file of torch.save."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"cannot read {path}: it is no file")
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        others = sorted(path.parent.glob("*.bin")) + sorted(path.parent.glob("*.pt*"))
        hint = f" ({others[0].name} is not read: such files can run code)" if others else ""
        raise WeightsError(f"cannot read {path}: there is no such file{hint}") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    if start.startswith(_PICKLES):
        raise WeightsError(
            f"cannot read {path}: it is a file of torch.save, which can run code, under another "
            "name; only the safetensors format is read"
        )


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "float"
    return "complex" if tensor.is_complex() else "bool" if tensor.dtype == torch.bool else "whole"


_SIZED = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}
_FACTORIES = _SIZED | {
    torch.full, torch.randint, torch.randperm, torch.arange, torch.linspace, torch.eye,
    torch.empty_strided,
}  # fmt: skip
_SETTERS = {
    "uniform_", "normal_", "zero_", "fill_", "erfinv_", "mul_", "add_", "clamp_",
    "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "trunc_normal_",
    "constant_", "ones_", "zeros_",
}  # fmt: skip


class _Making(TorchFunctionMode):
    """Mode that skips the setting of parameters, and counts memory before it is allocated."""

    def __init__(self, shapes: Shapes, *, set_parameters: bool) -> None:
        super().__init__()
        self.set_parameters = set_parameters
        stored = sum(math.prod(shape) for shape in shapes.values())
        self.elements = 4 * stored + _SPARE_ELEMENTS
        self.tensors = 20 * len(shapes) + _SPARE_TENSORS

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func in _FACTORIES and kwargs.get("out") is None:
            self._count(func, args, kwargs)
        elif not self.set_parameters and name in _SETTERS:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        elif not self.set_parameters and name == "to" and _is_new_layout(args, kwargs):
            return torch.empty_like(args[0], **kwargs)  # its values are unset, so none are copied
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        sizes = args if len(args) != 1 or isinstance(args[0], int) else args[0]
        if func in _SIZED and sizes and all(type(size) is int for size in sizes):
            self.elements -= math.prod(sizes)
        else:
            self.elements -= func(*args, **{**kwargs, "device": "meta"}).numel()
        self.tensors -= 1
        if self.elements < 0 or self.tensors < 0:
            raise WeightsError(
                "the backbone's arguments make a network far larger than the weights stored with "
                "them"
            )


def _is_new_layout(args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether a call of `to` changes only the memory layout of a parameter."""
    nothing_else = all(one is None or one is False for one in args[1:])
    return set(kwargs) == {"memory_format"} and nothing_else and isinstance(args[0], nn.Parameter)

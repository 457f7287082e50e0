"""Convert the trainer checkpoints that the paper's authors published to model folders."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError, SettingError, WeightsError, first_line
from .published import BRANCH, Recognised, name_some, recognise
from .table import PretrainedModel

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

PRESET = "amsnet"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A trainer checkpoint that was read and recognised.

    Attributes:
        path: the file.
        sha256: of the file.
        network: what it holds.
        weights: of the network, under its own names.
        left_out: what else is in the file and is not kept, in words.
    """

    path: Path
    sha256: str
    network: Recognised
    weights: Mapping[str, Tensor]
    left_out: tuple[str, ...]

    @property
    def published(self) -> PretrainedModel | None:
        """Return the named model that the file is, None if that is not certain.

        The network must be of the published size, and the file's name must contain the score in the
        name of the published file: others may have trained the same network.
        """
        model = self.network.published
        return model if model and f"{model.file_psnr:.2f}" in self.path.name else None


def convert_checkpoint(
    path: str | Path, folder: str | Path, *, license: str | None = None, overwrite: bool = False
) -> Path:
    """Convert a published trainer checkpoint to a model folder, and return the folder.

    The file is read without running code in it. Which of the published networks it holds, and of
    what size, is inferred from the names and shapes in it. The model denoises by the recipe of the
    paper (`preset="amsnet"`). Name and SHA-256 of the file are stored with it.

    Args:
        path: the checkpoint.
        folder: a new or empty one.
        license: of the weights; default what is known of the published file, else "unknown".
        overwrite: replace the model that is in the folder.

    Raises:
        WeightsError: the file is not a checkpoint of a published network, is damaged, or would run
            code.
        SettingError: the folder is not empty.
        CheckpointError: the folder cannot be written; nothing is left behind.
    """
    return write_converted(read_checkpoint(path), folder, license=license, overwrite=overwrite)


def read_checkpoint(path: str | Path) -> PublishedCheckpoint:
    """Return what a published trainer checkpoint holds, every name of it accounted for.

    Of the trainer's state, only the weights are kept. Branches after the first are left out if they
    are copies of it, as one network serves all; if they differ, that is an error.

    Raises:
        WeightsError: see `convert_checkpoint`.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size, sha256 = _digest(file)
            content = _load(file, path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        found = name_some(content) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(
            f"{path} is not a trainer checkpoint: it holds {found}; weights under 'state_dict' "
            "are needed"
        )
    _check_tensors(state, path)
    first = BRANCH.format(0)
    weights = {name.removeprefix(first): v for name, v in state.items() if name.startswith(first)}
    if not weights:
        raise WeightsError(
            f"{path} is not a checkpoint of the published trainer: no name begins with '{first}'; "
            f"found {name_some(state)}"
        )
    network = recognise({name: tuple(value.shape) for name, value in weights.items()}, path)
    kept = {name: value for name, value in weights.items() if name not in network.unread}
    _check_values(kept, size, path)
    left_out = _copies(state, weights, path)
    if network.unread:
        left_out.append(f"{len(network.unread)} weights that {network.backbone} never reads")
    if others := sorted(str(key) for key in content if key != "state_dict"):
        left_out.append(f"what the trainer kept beside the weights: {', '.join(others)}")
    return PublishedCheckpoint(path, sha256, network, kept, tuple(left_out))


def build_denoiser(checkpoint: PublishedCheckpoint) -> AsymmetricMaskDenoiser:
    """Return the denoiser of a checkpoint, with its weights, ready to denoise."""
    from ..denoiser import AsymmetricMaskDenoiser

    network = checkpoint.network
    with torch.random.fork_rng(devices=[]):
        denoiser = AsymmetricMaskDenoiser(
            network.backbone,
            channels=network.channels,
            backbone_args=dict(network.arguments),
            preset=PRESET,
        )
    denoiser.backbone.load_state_dict(dict(checkpoint.weights), strict=True)
    denoiser.card["source"] = _origin(checkpoint)
    return denoiser.eval()


def write_converted(
    checkpoint: PublishedCheckpoint,
    folder: str | Path,
    *,
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model of a checkpoint into a folder, and return the folder.

    It is first written beside the folder, and moved once it is complete.

    Raises:
        SettingError, CheckpointError: see `convert_checkpoint`.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"{folder} is a file; give a folder for the model")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise SettingError(f"{folder} is not empty; give another folder, or overwrite=True")
    model = checkpoint.published
    described: dict[str, Any] = {
        "license": license or (model.license if model else "unknown"),
        "training_data": model.training_data if model else None,
        "metrics": model.published_numbers() if model else None,
    }
    denoiser = build_denoiser(checkpoint)
    staged = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.part"
    try:
        denoiser.save_pretrained(staged, **described)
        _move(staged, folder)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _move(staged: Path, folder: Path) -> None:
    """Move the files of a folder into another: at once if that is new, else one by one."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if not folder.exists():
        os.rename(staged, folder)
        return
    for file in sorted(staged.rglob("*")):
        target = folder / file.relative_to(staged)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(file, target)


def _origin(checkpoint: PublishedCheckpoint) -> dict[str, Any]:
    """Return the origin of the weights, as it is stored with them."""
    model = checkpoint.published
    origin: dict[str, Any] = {"file": checkpoint.path.name, "sha256": checkpoint.sha256}
    if model is not None:
        origin |= {"name": model.name, "published at": model.source, "licence": model.license_note}
    return origin


def _digest(file: BinaryIO) -> tuple[int, str]:
    """Return size and SHA-256 of an open file, and rewind it."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    file.seek(0)
    return size, digest.hexdigest()


def _load(file: BinaryIO, path: Path) -> Any:
    """Return the content of the file, with tensors on the CPU.

    Raises:
        WeightsError: it cannot be read, or not without running code.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything on a damaged file
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise WeightsError(
                f"{path} is refused: to read it, {asked[1]} would have to be called, and a file "
                "of weights must not run code"
            ) from error
        raise WeightsError(
            f"cannot read {path}: damaged, cut off or of another kind ({first_line(error)})"
        ) from error


def _check_tensors(state: Mapping[Any, Any], path: Path) -> None:
    """Raise unless all values are named, dense float tensors on the CPU."""
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path} holds {name!r}, a {type(value).__name__}, among the weights; only tensors "
                "under names are read"
            )
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.dtype not in _DTYPES:
            raise WeightsError(
                f"{path}: '{name}' is {value.dtype}, {value.layout}, on {value.device}; dense "
                "float values are needed"
            )


def _check_values(weights: Mapping[str, Tensor], size: int, path: Path) -> None:
    """Raise if there are more values than the file has room for, or some are not finite."""
    needed = sum(value.numel() * value.element_size() for value in weights.values())
    if needed > size:
        raise WeightsError(
            f"{path} has {size} bytes and claims {needed} bytes of weights; it is damaged or made "
            "to fill the memory"
        )
    bad = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise WeightsError(f"{path} holds weights that are NaN or infinite: {name_some(bad)}")


def _copies(state: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path) -> list[str]:
    """Return in words which branches are copies of the first.

    Raises:
        WeightsError: a branch is not, or a name belongs to no branch.
    """
    branches: dict[int, dict[str, Tensor]] = {}
    left = []
    pattern = re.escape(BRANCH).replace(r"\{\}", r"(\d{1,4})")
    for name, value in state.items():
        if match := re.match(pattern, name):
            branches.setdefault(int(match[1]), {})[name[match.end() :]] = value
        else:
            left.append(name)
    if left:
        raise WeightsError(f"{path} holds more than the branches of a network: {name_some(left)}")
    for number, branch in branches.items():
        same = branch.keys() == weights.keys() and all(
            torch.equal(value, weights[name]) for name, value in branch.items()
        )
        if number and not same:
            raise WeightsError(
                f"{path}: branch {number} differs from branch 0, but one network serves all "
                "branches here; such a checkpoint cannot be converted"
            )
    return [f"branch {number}, a copy of branch 0" for number in sorted(branches) if number]

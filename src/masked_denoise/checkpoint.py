"""Models and training states on disk: written whole or not at all, read without running code.

A model is a folder with `config.json`, the arguments that make the denoiser again, and
`model.safetensors`, the weights of its backbone. A training state is one file of tensors and plain
values, `last.pt` or `best.pt`, from which a model can be loaded as well.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .denoiser import AsymmetricMaskDenoiser
from .errors import CheckpointError, MaskedDenoiseError
from .refine import Refinement
from .scheme import SCHEMES, MaskScheme, create_scheme

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_KEYS = {
    "format", "library_version", "backbone", "channels", "scheme", "train_stride", "stride",
    "refine", "passes", "observation", "chroma_radius", "turns", "residual", "value_range",
    "preset",
}  # fmt: skip
_OPTIONAL = {"training", "weights_sha256"}


def save_model(denoiser: AsymmetricMaskDenoiser, folder: str | Path) -> Path:
    """Write the denoiser into a folder, made where it is missing, and return the folder.

    Each file is replaced in one step; `load_model` notices a folder of which only one was.

    Raises:
        CheckpointError: the settings cannot be stored, or a file cannot be written; what stood
            there before is as it was.
    """
    from safetensors.torch import save

    folder = Path(folder)
    weights = {}
    for name, value in denoiser.backbone.state_dict().items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"the backbone's state holds '{name}', a {type(value).__name__}; only tensors can "
                "be stored"
            )
        weights[name] = value.detach().cpu().contiguous().clone()
    data = save(weights, metadata={"format": "pt"})
    config = recipe_of(denoiser)
    config["training"] = denoiser.fit_record
    config["weights_sha256"] = hashlib.sha256(data).hexdigest()
    text = _to_json(config)
    write_file(folder / WEIGHTS, data)
    write_file(folder / CONFIG, text.encode())
    return folder


def load_model(
    path: str | Path,
    *,
    backbone: nn.Module | None = None,
    scheme: MaskScheme | None = None,
) -> AsymmetricMaskDenoiser:
    """Return the denoiser that `save_model` or a training run wrote, on the CPU, ready to denoise.

    Args:
        path: a folder, or a training state (`last.pt`, `best.pt`), of which the averaged weights
            are taken.
        backbone: the network, where it was not made by name; its weights are replaced.
        scheme: the mask scheme, where it is a class of your own.

    Raises:
        CheckpointError: something is missing, damaged, unknown, or does not belong together.
    """
    path = Path(path)
    if path.is_file():
        state = load_state(path)
        config, weights = dict(state["recipe"]), state["average"] or state["backbone"]
        config["training"] = state.get("record", {})
    else:
        config, weights = _read_config(path / CONFIG), _read_weights(path)
        config.pop("weights_sha256", None)
    denoiser = _build(config, backbone, scheme, path)
    load_weights(denoiser.backbone, weights, path)
    denoiser.fit_record = config.get("training") or {}
    return denoiser.eval()


def recipe_of(denoiser: AsymmetricMaskDenoiser) -> dict[str, Any]:
    """Return what makes the denoiser again, weights apart, as values that JSON holds."""
    from . import __version__

    settings = denoiser.refinement
    return {
        "format": FORMAT,
        "library_version": __version__,
        "backbone": {
            "name": denoiser.backbone_name,
            "arguments": _plain(denoiser.backbone_args, "backbone_args"),
        },
        "channels": denoiser.channels,
        "scheme": _scheme_recipe(denoiser.scheme),
        "train_stride": list(denoiser.train_strides),
        "stride": denoiser.stride,
        "refine": None if settings is None else asdict(settings),
        "passes": denoiser.passes,
        "observation": denoiser.observation,
        "chroma_radius": denoiser.chroma_radius,
        "turns": denoiser.turns,
        "residual": denoiser.residual,
        "value_range": None if denoiser.value_range is None else list(denoiser.value_range),
        "preset": denoiser.preset,
    }


def load_weights(network: nn.Module, weights: dict[str, Tensor], where: object) -> None:
    """Put weights into a network, every name and shape of which must fit.

    Raises:
        CheckpointError: they do not.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {where} do not fit the backbone: {error}") from error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state of tensors and plain values in one step.

    Raises:
        CheckpointError: it cannot be written; an older file of that name is as it was.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_file(path, buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Return the training state in a file, its tensors on the CPU; no code in it is run.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind or version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except Exception as error:  # the unpickler raises anything on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"cannot read the checkpoint {path}: damaged, cut off or of another kind ({reason})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or "recipe" not in state:
        raise CheckpointError(f"{path} is not a training state of this version (format {FORMAT})")
    return state


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path` in one step; a failure leaves the older file and nothing else.

    Raises:
        CheckpointError: the disk is full, the folder cannot be written, and the like.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder"
        ) from error


def _scheme_recipe(scheme: MaskScheme) -> dict[str, Any]:
    """Return the name and settings of a scheme; of a user's class its Python name."""
    known = SCHEMES.get(scheme.name) is type(scheme)
    settings: dict[str, Any] = {}
    for name, value in scheme.settings().items():
        if isinstance(value, MaskScheme):
            settings[name] = _scheme_recipe(value)
        else:
            settings[name] = _plain(value, f"scheme.{name}")
    return {
        "name": scheme.name if known else None,
        "class": type(scheme).__name__,
        "settings": settings,
    }


def _make_scheme(recipe: dict[str, Any], given: MaskScheme | None, where: Path) -> MaskScheme:
    name = recipe["name"]
    if name is None:
        if given is None:
            raise CheckpointError(
                f"{where} was made with the mask scheme {recipe['class']}, which is not built in; "
                "pass scheme=..."
            )
        return given
    settings = {
        key: _make_scheme(value, None, where) if isinstance(value, dict) else value
        for key, value in recipe["settings"].items()
    }
    return create_scheme(name, **settings)


def _build(
    config: dict[str, Any], backbone: nn.Module | None, scheme: MaskScheme | None, where: Path
) -> AsymmetricMaskDenoiser:
    """Return a denoiser after a recipe, with weights that do not count."""
    unknown, missing = set(config) - _KEYS - _OPTIONAL, _KEYS - set(config)
    if unknown or missing or config["format"] != FORMAT:
        raise CheckpointError(
            f"{where} cannot be used by this version: format {config.get('format')!r} (needed: "
            f"{FORMAT}), unknown keys: {', '.join(sorted(unknown)) or 'none'}, missing keys: "
            f"{', '.join(sorted(missing)) or 'none'}"
        )
    name = config["backbone"]["name"]
    if name is None and backbone is None:
        raise CheckpointError(
            f"{where} was made with a network of your own; make it again and pass backbone=..."
        )
    value_range = config["value_range"]
    try:
        with torch.random.fork_rng(devices=[]):
            return AsymmetricMaskDenoiser(
                backbone if backbone is not None else name,
                backbone_args=None if backbone is not None else config["backbone"]["arguments"],
                channels=config["channels"],
                scheme=_make_scheme(config["scheme"], scheme, where),
                train_stride=config["train_stride"],
                stride=config["stride"],
                passes=config["passes"],
                refine=Refinement(**config["refine"]) if config["refine"] else False,
                residual=config["residual"],
                observation=config["observation"],
                chroma_radius=config["chroma_radius"],
                turns=config["turns"],
                value_range=None if value_range is None else (value_range[0], value_range[1]),
                preset=config["preset"],
            )
    except CheckpointError:
        raise
    except (MaskedDenoiseError, TypeError, KeyError, IndexError) as error:
        raise CheckpointError(f"the settings in {where} cannot be used: {error}") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no model in {path.parent}: {path.name} is missing"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no settings of a model")
    return config


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights in a model folder, checked against the digest in its settings."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    digest = _read_config(folder / CONFIG).get("weights_sha256")
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(
            f"{path} is damaged, or is not the file that {CONFIG} beside it was written with; save "
            f"the model again (or remove weights_sha256 from {CONFIG} if you changed the weights)"
        )
    try:
        weights: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    return weights


def _plain(value: object, what: str) -> Any:
    """Return a setting as JSON gives it back."""
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise CheckpointError(f"{what} cannot be stored: {error}") from error


def _to_json(config: dict[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

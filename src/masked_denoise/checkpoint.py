"""Models and training states on disk: written atomically, and read without running code.

A model is a folder with `config.json`, the arguments that recreate the denoiser, and
`model.safetensors`, the weights of its backbone. A training state is a single file of tensors and
plain values, `last.pt` or `best.pt`, from which a model can be loaded as well.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .atomic import write_whole
from .backbones import backbone_info
from .config import ABOUT, check_config, one_line, plain, read_config, to_json
from .config import CONFIG as CONFIG
from .config import FORMAT as FORMAT
from .denoiser import AsymmetricMaskDenoiser
from .errors import CheckpointError, MaskedDenoiseError, WeightsError, first_line
from .refine import Refinement
from .scheme import SCHEMES, MaskScheme, create_scheme
from .values import CountRange, ValueRange
from .weights import WEIGHTS as WEIGHTS
from .weights import WeightsFile, make_empty
from .weights import load_weights as load_weights


def save_model(denoiser: AsymmetricMaskDenoiser, folder: str | Path) -> Path:
    """Write the denoiser into a folder, created if missing, and return the folder.

    Each file is replaced in one step; `load_model` detects a folder with only one of them replaced.

    Raises:
        CheckpointError: the settings cannot be stored, or a file cannot be written, whose old
            version remains.
    """
    from safetensors.torch import save

    folder = Path(folder)
    network = getattr(denoiser.backbone, "_orig_mod", denoiser.backbone)  # without torch.compile
    network = network.module if isinstance(network, nn.DataParallel) else network
    weights = {}
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"the backbone's state holds '{name}', a {type(value).__name__}; only tensors can "
                "be stored"
            )
        weights[name] = value.detach().cpu().contiguous().clone()
    config = config_of(denoiser)
    data = save(weights, metadata={"format": "pt"})
    config["weights_sha256"] = hashlib.sha256(data).hexdigest()
    write_file(folder / WEIGHTS, data)
    write_file(folder / CONFIG, to_json(config).encode())
    return folder


def load_model(
    path: str | Path,
    *,
    backbone: nn.Module | None = None,
    scheme: MaskScheme | None = None,
    sha256: str | None = None,
) -> AsymmetricMaskDenoiser:
    """Return the denoiser saved by `save_model` or a training run, on the CPU, ready to denoise.

    Args:
        path: a folder, or a training state (`last.pt`, `best.pt`), whose averaged weights are used.
        backbone: the network, if it was not created by name; its weights are replaced.
        scheme: the mask scheme, if its class is your own.
        sha256: a digest that the weights file must have, in addition to the one in config.json.

    Raises:
        WeightsError: a part of the model is missing, damaged, unknown, or does not fit the others.
        CheckpointError: a training state cannot be read.
    """
    path = Path(path)
    if path.is_file():
        state = load_state(path)
        config, weights = _recipe_and_weights(state, path)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        denoiser = _build(config, backbone, scheme, path, shapes)
        load_weights(denoiser.backbone, weights, path)
    else:
        config = read_config(path / CONFIG)
        digests = [one for one in (config.get("weights_sha256"), sha256) if one is not None]
        file = WeightsFile(path / WEIGHTS, digests)  # hashed while the network is created
        try:
            denoiser = _build(config, backbone, scheme, path, file.shapes)
            load_weights(denoiser.backbone, file.tensors(), path)
        finally:
            file.check_digest()
    if denoiser.backbone_name is not None:  # any trial needs the network with its weights
        denoiser.traits = denoiser.find_traits(denoiser.traits.channels_last)
    denoiser.fit_record = config.get("training") or {}
    denoiser.card = {key: config[key] for key in ABOUT if config.get(key) is not None}
    return denoiser.eval()


def config_of(denoiser: AsymmetricMaskDenoiser) -> dict[str, Any]:
    """Return the contents of config.json without the digest: recipe, training record and card.

    Raises:
        WeightsError: a value cannot be stored or loaded again.
    """
    unknown = set(denoiser.card) - set(ABOUT)
    if unknown:
        raise WeightsError(
            f"denoiser.card has {', '.join(map(repr, sorted(unknown)))}; it may hold "
            f"{', '.join(ABOUT)}"
        )
    config = recipe_of(denoiser)
    if denoiser.backbone_name is not None:
        config["channels_last"] = denoiser.traits.channels_last
    if denoiser.undecided:  # the next `fit` decides all settings except these
        config["given"] = sorted(denoiser.given)
    config["training"] = plain(denoiser.fit_record, "fit_record")
    for key, value in denoiser.card.items():
        config[key] = plain(value, f"card[{key!r}]")
    check_config(config, "the denoiser")
    return config


def recipe_of(denoiser: AsymmetricMaskDenoiser) -> dict[str, Any]:
    """Return the settings that recreate the denoiser, without weights, as JSON values."""
    from . import __version__

    settings, levels = denoiser.refinement, denoiser.noise_level
    recipe = {
        "format": FORMAT,
        "library_version": __version__,
        "backbone": {
            "name": denoiser.backbone_name,
            "arguments": plain(denoiser.backbone_args, "backbone_args"),
        },
        "channels": denoiser.channels,
        "scheme": _scheme_recipe(denoiser.scheme),
        "train_stride": list(denoiser.train_strides),
        "stride": denoiser.stride,
        "refine": None if settings is None else asdict(settings),
        "passes": denoiser.passes,
        "observation": denoiser.observation,
        "chroma_radius": denoiser.chroma_radius,
        "dct_threshold": denoiser.dct_threshold,
        "turns": denoiser.turns,
        "residual": denoiser.residual,
        "value_range": None if denoiser.value_range is None else list(denoiser.value_range),
        "preset": denoiser.preset,
    }
    if isinstance(denoiser.value_range, CountRange):
        recipe["counts"] = True
    return recipe if levels is None else {**recipe, "noise_level": [list(one) for one in levels]}


def range_of_recipe(recipe: Mapping[str, Any]) -> ValueRange | None:
    """Return the value range stored in a recipe."""
    if recipe["value_range"] is None:
        return None
    low, high = recipe["value_range"]
    return CountRange(low, high) if recipe.get("counts") else (low, high)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state of tensors and plain values in one step.

    Raises:
        CheckpointError: it cannot be written; an older file of that name remains.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_file(path, buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Return the training state in a file, with tensors on the CPU; no code in it is run.

    Raises:
        CheckpointError: the file is missing, damaged, or of another type or version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except Exception as error:  # the unpickler raises anything on a damaged file
        raise CheckpointError(
            f"cannot read the checkpoint {path}: damaged, cut off or of another kind "
            f"({first_line(error)})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or "recipe" not in state:
        raise CheckpointError(f"{path} is not a training state of this version (format {FORMAT})")
    return state


def _recipe_and_weights(
    state: dict[str, Any], path: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the weights that a training state shares with a model folder."""
    weights = state.get("average") or state.get("backbone")
    tensors = isinstance(weights, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    )
    if not tensors or not isinstance(state["recipe"], dict):
        raise CheckpointError(f"{path} holds no recipe and weights of a denoiser")
    config = {**state["recipe"], "training": state.get("record", {})}
    check_config(config, path)
    return config, dict(weights)  # type: ignore[arg-type]


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` in one step; if that fails, an older file remains.

    Raises:
        CheckpointError: the disk is full, the folder cannot be written, or similar.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder"
        ) from error


def _scheme_recipe(scheme: MaskScheme) -> dict[str, Any]:
    """Return the name, class and settings of a scheme; the name is None if not registered."""
    known = SCHEMES.get(scheme.name) is type(scheme)
    settings: dict[str, Any] = {}
    for name, value in scheme.settings().items():
        if isinstance(value, MaskScheme):
            settings[name] = _scheme_recipe(value)
        else:
            settings[name] = plain(value, f"scheme.{name}")
    return {
        "name": scheme.name if known else None,
        "class": type(scheme).__name__,
        "settings": settings,
    }


def _make_scheme(recipe: dict[str, Any], given: MaskScheme | None, where: Path) -> MaskScheme:
    name = recipe["name"]
    if name is None:
        if given is None:
            raise WeightsError(
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
    config: dict[str, Any],
    backbone: nn.Module | None,
    scheme: MaskScheme | None,
    where: Path,
    shapes: Mapping[str, tuple[int, ...]],
) -> AsymmetricMaskDenoiser:
    """Return a denoiser built from a recipe, its weights unset unless the network was given."""
    name, arguments = config["backbone"]["name"], config["backbone"]["arguments"]
    if name is None and backbone is None:
        raise WeightsError(
            f"{where} was made with a network of your own; make it again and pass backbone=..."
        )
    settings = {
        key: config[key]
        for key in (
            "channels", "train_stride", "stride", "passes", "residual", "observation",
            "chroma_radius", "turns", "preset",
        )
    }  # fmt: skip
    try:
        settings |= {
            "scheme": _make_scheme(config["scheme"], scheme, where),
            "refine": Refinement(**config["refine"]) if config["refine"] else False,
            "value_range": range_of_recipe(config),
            "dct_threshold": config.get("dct_threshold", 0.0),
        }
        if backbone is not None:
            denoiser = AsymmetricMaskDenoiser(backbone, **settings)
        else:
            backbone_info(name)
            if "pretrained" in arguments:  # the weights of an encoder are in the file
                arguments = {**arguments, "pretrained": False}
            settings |= {"backbone_args": arguments, "channels_last": config.get("channels_last")}
            denoiser = make_empty(lambda: AsymmetricMaskDenoiser(name, **settings), shapes)
        denoiser.found_level(config.get("noise_level"))
        if "given" in config:
            given = denoiser.given.items()
            denoiser.given = {name: value for name, value in given if name in config["given"]}
            denoiser.undecided = True
        return denoiser
    except WeightsError:
        raise
    except Exception as error:  # a network may fail in any way on arguments it cannot take
        kind = "" if isinstance(error, MaskedDenoiseError) else f"{type(error).__name__}: "
        raise WeightsError(
            f"the settings in {where} cannot be used: {kind}{one_line(error)}"
        ) from error

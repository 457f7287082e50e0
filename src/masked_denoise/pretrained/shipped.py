"""Models that are bundled with the package, and load without a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import SettingError

if TYPE_CHECKING:
    from torch import Tensor

    from ..denoiser import AsymmetricMaskDenoiser

DEFAULT_MODEL = "camera-small"
"""The model that `masked-denoise denoise` uses where none is named."""


@dataclass(frozen=True)
class ShippedModel:
    """A model that is bundled with the package.

    Attributes:
        name: for `from_pretrained`.
        backbone: name of its network.
        license: of the weights, as the Hub spells it.
        training_data: what the weights were trained on.
        note: what pictures it is for.
    """

    name: str
    backbone: str
    license: str
    training_data: str
    note: str

    @property
    def folder(self) -> Path:
        """The folder that it is in."""
        return Path(__file__).parent / "models" / self.name


_MODELS = (
    ShippedModel(
        name=DEFAULT_MODEL,
        backbone="fast-student",
        license="apache-2.0",
        training_data=(
            "22 of the 24 pictures of the Kodak lossless true colour image suite (released for "
            "unrestricted use), with simulated camera noise; no real noisy picture."
        ),
        note="photographs as they come out of cameras and phones, 8 or 16 bits, colour or grey",
    ),
)

SHIPPED: Mapping[str, ShippedModel] = MappingProxyType({model.name: model for model in _MODELS})
"""The models that are bundled with the package, by name."""


def load_shipped(name: str = DEFAULT_MODEL) -> AsymmetricMaskDenoiser:
    """Return a model that is bundled with the package, for three channels."""
    from ..checkpoint import load_model

    return load_model(SHIPPED[name].folder)


def as_grey(model: AsymmetricMaskDenoiser) -> AsymmetricMaskDenoiser:
    """Return the model for grey pictures: the mean of its output for three equal channels.

    This is exact, and no slower than a network for one channel: the first layer's weights are
    summed over the colours, the last layer's averaged.

    Args:
        model: a student of three channels, with the network "fast-student".

    Raises:
        SettingError: it has another network or number of channels.

    >>> import torch
    >>> from masked_denoise import AsymmetricMaskDenoiser
    >>> colour = AsymmetricMaskDenoiser("fast-student", preset="student")
    >>> as_grey(colour).denoise(torch.rand(1, 33, 40)).shape
    torch.Size([1, 33, 40])
    """
    import torch

    from ..denoiser import AsymmetricMaskDenoiser

    if model.backbone_name != "fast-student" or model.channels != 3:
        raise SettingError(
            f"the model has the network {model.backbone_name} and {model.channels} channels; "
            "'fast-student' and 3 are needed to make one for grey pictures"
        )
    weights = dict(model.backbone.state_dict())
    weights["stem.weight"] = _by_colour(weights["stem.weight"], 1).sum(1)
    for name in ("head.weight", "head.bias"):
        weights[name] = _by_colour(weights[name], 0).mean(0)
    with torch.random.fork_rng(devices=[]):
        grey = AsymmetricMaskDenoiser(
            "fast-student", preset="student", channels=1, backbone_args=model.backbone_args,
            value_range=model.value_range, dct_threshold=model.dct_threshold, turns=model.turns,
            passes=model.passes, observation=model.observation,
        )  # fmt: skip
    grey.backbone.load_state_dict(weights)
    grey.fit_record, grey.card = dict(model.fit_record), dict(model.card)
    return grey.to(model.device).train(model.training)


def _by_colour(weight: Tensor, dim: int) -> Tensor:
    """Return weights whose dimension of (3 colours x 4 phases) is split in two, colours first."""
    return weight.reshape(*weight.shape[:dim], 3, 4, *weight.shape[dim + 1 :])

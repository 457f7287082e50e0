"""Models loaded by spandrel, as backbones."""

from __future__ import annotations

import sys
from typing import Protocol, TypeAlias

from torch import nn

from ..errors import BackboneError, SettingError


class ImageModel(Protocol):
    """The attributes used of a `spandrel.ImageModelDescriptor`."""

    scale: int
    input_channels: int
    output_channels: int

    @property
    def model(self) -> nn.Module:
        """The network itself."""
        ...


Backbone: TypeAlias = "nn.Module | ImageModel"


def unwrap(backbone: Backbone, channels: int) -> nn.Module:
    """Return the network of a spandrel model; any other network is returned unchanged.

    Args:
        backbone: a network, or a model from `spandrel.ModelLoader`, of scale 1, with an image as
            its only input.
        channels: C of the images.

    Raises:
        BackboneError: the model changes the size or the number of channels, or needs more than
            an image.
        SettingError: it is neither a network nor a spandrel model.
    """
    if isinstance(backbone, nn.Module):
        return backbone
    spandrel = sys.modules.get("spandrel")  # imported if there is such a model
    if spandrel is None or not isinstance(backbone, spandrel.ModelBase):
        raise SettingError(
            f"the backbone is a {type(backbone).__name__}; a torch.nn.Module, the name of a "
            "registered backbone, or a model loaded by spandrel is needed"
        )
    network: nn.Module = backbone.model
    kind = type(network).__name__
    if not isinstance(backbone, spandrel.ImageModelDescriptor):
        raise BackboneError(
            f"the spandrel model {kind} needs a mask beside the image; choose another"
        )
    if backbone.scale != 1:
        raise BackboneError(
            f"the spandrel model {kind} makes images {backbone.scale} times as large; one of scale "
            "1 is needed, such as a restoration model"
        )
    if (backbone.input_channels, backbone.output_channels) != (channels, channels):
        raise BackboneError(
            f"the spandrel model {kind} turns {backbone.input_channels} channels into "
            f"{backbone.output_channels}, the images have {channels}; choose another model, or "
            f"pass channels={backbone.input_channels}"
        )
    return network

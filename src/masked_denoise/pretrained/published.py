"""Recognise the networks in published trainer checkpoints by the names and shapes in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..backbones import create_backbone
from ..errors import MaskedDenoiseError, WeightsError
from .table import PRETRAINED, PretrainedModel

BRANCH = "net.dn.branches.{}."
"""Prefix of the names of a branch's network in a trainer checkpoint."""

Shapes = Mapping[str, tuple[int, ...]]
_LISTED = 6  # most names in a message, beside their number


@dataclass(frozen=True)
class Recognised:
    """A network that was recognised by the names and shapes of its weights.

    Attributes:
        backbone: name of the network.
        channels: C of the pictures.
        arguments: of the network.
        unread: names in the published file that the network never reads.
    """

    backbone: str
    channels: int
    arguments: Mapping[str, Any]
    unread: frozenset[str] = frozenset()

    @property
    def published(self) -> PretrainedModel | None:
        """Return the named model that is this very network, None if none has its size."""
        for model in PRETRAINED.values():
            same = model.backbone == self.backbone and dict(model.arguments) == self.arguments
            if same and self.channels == 3:
                return model
        return None


def recognise(shapes: Shapes, where: object = "the checkpoint") -> Recognised:
    """Return the network that weights of these names and shapes belong to, all accounted for.

    Args:
        shapes: shape by name, without the trainer's prefix.
        where: what error messages call them.

    Raises:
        WeightsError: they belong to no published network, or names are missing, left over, or of
            another shape.

    >>> from ..backbones import create_backbone
    >>> weights = create_backbone("unet", width=4).state_dict()
    >>> recognise({name: tuple(value.shape) for name, value in weights.items()}).arguments
    {'width': 4}
    """
    key = next((one for one in _NETWORKS if one in shapes), None)
    if key is None:
        raise WeightsError(
            f"{where} holds no network that is known here: found {name_some(shapes)}. Needed are "
            f"the weights of {', '.join(name for name, _ in _NETWORKS.values())} under their "
            "published names"
        )
    backbone, infer = _NETWORKS[key]
    try:
        channels, arguments = infer(shapes)
        with torch.device("meta"):
            network = create_backbone(backbone, channels=channels, **arguments)
    except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        told = str(error) if isinstance(error, MaskedDenoiseError) else f"'{key}' stands alone"
        raise WeightsError(
            f"{where} begins like a {backbone}, but its sizes cannot be told: {told}"
        ) from error
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    unread = _unread(backbone, shapes)
    _compare(expected, {n: s for n, s in shapes.items() if n not in unread}, backbone, where)
    return Recognised(backbone, channels, arguments, unread)


def name_some(names: Any) -> str:
    """Return how many names there are, and the first of them.

    >>> name_some({"b": 1, "a": 2}), name_some([])
    ('2 names (a, b)', 'nothing')
    """
    known = sorted(map(str, names))
    if not known:
        return "nothing"
    dots = ", ..." if len(known) > _LISTED else ""
    return f"{len(known)} name{'s' * (len(known) > 1)} ({', '.join(known[:_LISTED])}{dots})"


def _compare(expected: Shapes, found: Shapes, backbone: str, where: object) -> None:
    """Raise unless both have the same names and shapes."""
    told = []
    if missing := expected.keys() - found.keys():
        told.append(f"missing: {name_some(missing)}")
    if left := found.keys() - expected.keys():
        told.append(f"left over: {name_some(left)}")
    shared = sorted(expected.keys() & found.keys())
    if other := [name for name in shared if expected[name] != found[name]]:
        first = other[0]
        told.append(
            f"of another shape: {name_some(other)}, the first {found[first]} instead of "
            f"{expected[first]}"
        )
    if told:
        raise WeightsError(f"{where} is a {backbone} that does not fit: {'; '.join(told)}")


def _count(shapes: Shapes, beginning: str) -> int:
    """Return the number of modules in a list: `beginning`.0, `beginning`.1, and so on."""
    found = (re.match(rf"{re.escape(beginning)}\.(\d+)\.", name) for name in shapes)
    return len({match[1] for match in found if match})


def _unet(shapes: Shapes) -> tuple[int, dict[str, Any]]:
    width, channels = shapes["enc_conv0.weight"][:2]
    return channels, {"width": width}


def _deamnet(shapes: Shapes) -> tuple[int, dict[str, Any]]:
    width, channels = shapes["transform_function.ext.conv2d.weight"][:2]
    return channels, {"width": width}


def _nafnet(shapes: Shapes) -> tuple[int, dict[str, Any]]:
    width, channels = shapes["intro.weight"][:2]
    levels = range(_count(shapes, "downs"))
    block = next((name for name in shapes if name.endswith(".conv1.weight")), "")
    wide, narrow = shapes[block][:2]
    return channels, {
        "width": width,
        "encoder_blocks": tuple(_count(shapes, f"encoders.{level}") for level in levels),
        "middle_blocks": _count(shapes, "middle_blks"),
        "decoder_blocks": tuple(_count(shapes, f"decoders.{level}") for level in levels),
        "expand": wide // narrow,
        "hidden": shapes[block.replace("conv1", "conv4")][0] // narrow,
    }


def _restormer(shapes: Shapes) -> tuple[int, dict[str, Any]]:
    dim, channels = shapes["patch_embed.proj.weight"][:2]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    inner = [shapes[f"{level}.0.ffn.project_out.weight"][:2] for level in levels]
    return channels, {
        "dim": dim,
        "blocks": tuple(_count(shapes, level) for level in levels),
        "refinement_blocks": _count(shapes, "refinement"),
        "heads": tuple(shapes[f"{level}.0.attn.temperature"][0] for level in levels),
        "expansion": _expansion(inner),
        "bias": "encoder_level1.0.attn.qkv.bias" in shapes,
        "norm_bias": "encoder_level1.0.norm1.body.bias" in shapes,
    }


def _expansion(widths: list[tuple[int, ...]]) -> float:
    """Return the shortest number for which int(width · number) is the inner width at all levels."""
    low = max(inner / width for width, inner in widths)
    high = min((inner + 1) / width for width, inner in widths)
    for digits in range(1, 12):
        number = round((low + high) / 2, digits)
        if all(int(width * number) == inner for width, inner in widths):
            return number
    return low


def _unread(backbone: str, shapes: Shapes) -> frozenset[str]:
    """Return the names in a published file that its network never reads."""
    if backbone != "deamnet":
        return frozenset()
    from ..backbones.deamnet import UNUSED

    return frozenset(name for name in shapes if name.startswith(UNUSED))


_NETWORKS: dict[str, tuple[str, Callable[[Shapes], tuple[int, dict[str, Any]]]]] = {
    "patch_embed.proj.weight": ("restormer", _restormer),
    "transform_function.ext.conv2d.weight": ("deamnet", _deamnet),
    "intro.weight": ("nafnet", _nafnet),
    "enc_conv0.weight": ("unet", _unet),
}
"""By a name that only one network has: the network, and how its sizes are inferred."""

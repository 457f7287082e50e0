"""A U-Net around any encoder of timm with a pyramid of feature maps."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from ..errors import SettingError, UnknownNameError

_LARGEST = 8  # largest number of features of the decoder, as a multiple of `width`
_STEPS = (1, 2, 4, 8, 16)  # reduction from one map to the next; 1 for the first map only
_WORKS = "for example 'convnext_atto', 'resnet18' or 'efficientnet_lite0'"


class TimmUNet(nn.Module):
    """U-Net with an encoder from timm, which predicts a correction that is initially zero.

    (B, C, H, W) in, (B, C, H, W) out; H and W multiples of the encoder's largest reduction; no
    global skip. Encoders of timm start at half or a quarter of the resolution: convolutions on the
    image itself add the maps above. The decoder adds skips instead of concatenating them.

    Args:
        encoder: name of a timm model, with or without a tag of pretrained weights.
        channels: C.
        pretrained: download the encoder's weights from the Hub, as timm does.
        width: number of features of the decoder at full resolution, doubled whenever the resolution
            is halved, up to eight times the width.
        out_indices: indices of the encoder's maps to use, as in timm; None for all. Fewer maps make
            a smaller network with a shorter reach.

    Raises:
        UnknownNameError: timm has no such model.
        SettingError: the encoder has no pyramid of maps for images of any size.
    """

    def __init__(
        self,
        encoder: str,
        channels: int = 3,
        *,
        pretrained: bool = False,
        width: int = 32,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise SettingError(f"width is {width!r}; 1 feature or more is needed")
        features, reductions = pyramid(encoder, _indices(out_indices))
        self.encoder = _make_encoder(encoder, channels, _indices(out_indices), pretrained)
        mean, std = _statistics(self.encoder, channels)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

        added = [2**level for level in range(reductions[0].bit_length() - 1)]  # [1] or [1, 2]
        places = [*added, *reductions]
        sizes = [width * min(place, _LARGEST) for place in places]
        self.scales = [below // place for place, below in pairwise(places)]
        self.stem = nn.ModuleList(
            _conv(before, size, stride=min(place, 2))
            for before, size, place in zip((channels, *sizes), sizes, added, strict=False)
        )
        self.lateral = nn.ModuleList(
            nn.Sequential(LayerNorm2d(count), nn.Conv2d(count, size, 1))
            for count, size in zip(features, sizes[len(added) :], strict=True)
        )
        self.reduce = nn.ModuleList(nn.Conv2d(deep, size, 1) for size, deep in pairwise(sizes))
        self.decoder = nn.ModuleList(
            nn.Sequential(_conv(size, size), _conv(size, size)) for size in sizes[:-1]
        )
        self.head = nn.Conv2d(sizes[0], channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    mean: Tensor
    std: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        maps, x = [], image
        for conv in self.stem:
            x = conv(x)
            maps.append(x)
        features = self.encoder((image - self.mean) / self.std)
        maps += [project(one) for project, one in zip(self.lateral, features, strict=True)]
        x = maps.pop()
        for level in reversed(range(len(self.scales))):
            x = F.interpolate(self.reduce[level](x), scale_factor=float(self.scales[level]))
            x = self.decoder[level](x + maps.pop())
        return self.head(x)  # type: ignore[no-any-return]


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution with an activation; a norm would lose the brightness."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
    )


def find_encoder(name: str) -> dict[str, Any]:
    """Return the registry entry of the U-Net around an encoder.

    Raises:
        UnknownNameError: timm has no such model; the nearest are suggested.
    """
    _check_name(name)

    def size_multiple(arguments: dict[str, Any]) -> int:
        return pyramid(name, _indices(arguments["out_indices"]))[1][-1]

    return {
        "build": functools.partial(TimmUNet, name),
        "size_multiple": size_multiple,
        "global_skip": False,
        "license": "Apache-2.0",
        "source": "timm; Ronneberger et al. 2015 (arXiv:1505.04597)",
        "note": "a U-Net around an encoder of timm; its pretrained weights have their own licence",
    }


@functools.lru_cache(maxsize=64)
def pyramid(
    encoder: str, out_indices: tuple[int, ...] | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the number of features and the reduction of each map of an encoder.

    They are found by a trial on the "meta" device, which needs neither memory nor computation, if
    the model can be created there.

    Raises:
        UnknownNameError: timm has no such model.
        SettingError: the model has no such maps, or not for images of any size.
    """
    _check_name(encoder)
    try:
        try:
            features, reductions, shapes = _trial(encoder, out_indices, "meta")
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error):
                raise
            features, reductions, shapes = _trial(encoder, out_indices, "cpu")
    except SettingError:
        raise
    except Exception as error:  # models fail in many ways on unsuitable input
        raise _no_pyramid(encoder, f"{type(error).__name__}: {error}") from error
    side = reductions[-1]
    needed = [(n, side // r, 2 * side // r) for n, r in zip(features, reductions, strict=True)]
    if shapes != needed:
        raise _no_pyramid(encoder, f"its maps are {shapes}, {needed} were expected")
    return features, reductions


def _trial(
    encoder: str, out_indices: tuple[int, ...] | None, device: str
) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, ...]]]:
    """Return an encoder's features, reductions, and the shapes of its maps for a small image."""
    with torch.device(device), torch.random.fork_rng(devices=[]), torch.no_grad():
        model = _make_encoder(encoder, 3, out_indices).eval()
        reductions = tuple(model.feature_info.reduction())
        steps = [below / above for above, below in pairwise((1, *reductions))]
        if steps[0] not in _STEPS or not {*steps[1:]} <= {*_STEPS[1:]}:
            raise _no_pyramid(encoder, f"it divides the sides by {', '.join(map(str, reductions))}")
        maps = model(torch.zeros(1, 3, reductions[-1], 2 * reductions[-1]))
    return tuple(model.feature_info.channels()), reductions, [tuple(one.shape[1:]) for one in maps]


def _no_pyramid(encoder: str, reason: str) -> SettingError:
    return SettingError(
        f"'timm:{encoder}' cannot be the encoder of a U-Net, which needs maps (B, C, H, W) of "
        f"halving size for images of any size; {reason.rstrip('.')}. Choose a convolutional one, "
        f"{_WORKS}"
    )


def _make_encoder(
    name: str, channels: int, out_indices: tuple[int, ...] | None, pretrained: bool = False
) -> Any:
    chosen: dict[str, Any] = {} if out_indices is None else {"out_indices": out_indices}
    model: Any = timm.create_model(
        name, pretrained=pretrained, features_only=True, in_chans=channels, **chosen
    )
    stage = model.feature_info.get_dicts()[-1].get("stage")
    if stage is not None and isinstance(getattr(model, "blocks", None), nn.Sequential):
        del model.blocks[stage:]  # efficientnets would also run those beyond the last map
    return model


def _check_name(name: str) -> None:
    """Raise UnknownNameError unless timm has a model of that name."""
    known = timm.list_models()
    if name.partition(".")[0] in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(f'{one!r}' for one in near)}? " if near else ""
    raise UnknownNameError(
        f"unknown timm encoder '{name}'; {hint}timm.list_models() has all {len(known)} names"
    )


def _indices(out_indices: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return indices as a tuple, which is hashable; from JSON they come as a list."""
    if out_indices is None:
        return None
    indices = tuple(out_indices)
    if not indices or not all(isinstance(one, int) for one in indices):
        raise SettingError(
            f"out_indices is {out_indices!r}; whole numbers are needed, as (0, 1, 2)"
        )
    return indices


def _statistics(encoder: Any, channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the encoder's training images: (C, 1, 1) each."""
    config = getattr(encoder, "pretrained_cfg", None) or {}
    values = []
    for key, default in (("mean", 0.5), ("std", 0.25)):
        known = torch.tensor(config.get(key) or (default,) * 3, device="cpu")
        known = known if len(known) == channels else known.mean().expand(channels)
        values.append(known.clone()[:, None, None])
    return values[0], values[1]

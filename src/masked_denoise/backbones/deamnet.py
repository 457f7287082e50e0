"""DeamNet for real noise: four rounds of one shared sub-network, each blended with the input.

Written from the paper (Ren et al. 2021, arXiv:2103.08147) and the recorded names, shapes and
outputs of the published AMSNet weights. Parameter names follow those weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .registry import register_backbone

UNUSED = ("net2.conv_dila1.", "net2.conv_dila2.", "net2.conv_dila3.", "net2.cat1.")
"""Prefixes of parameters in the published weights that the network does not use."""


class Conv(nn.Module):
    """A convolution that keeps height and width, 3 x 3 by default."""

    def __init__(self, in_channels: int, out_channels: int, size: int = 3) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H, W)."""
        return self.conv2d(x)  # type: ignore[no-any-return]


class ConvReLU(nn.Module):
    """A 3 x 3 convolution and a ReLU."""

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=stride, padding=1), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H / stride, W / stride)."""
        return self.block(x)  # type: ignore[no-any-return]


class UpConv(nn.Module):
    """Nearest-neighbour upsampling by 2, then a 3 x 3 convolution and a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv2d = ConvReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, 2H, 2W)."""
        return self.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


def _share(width: int) -> nn.Sequential:
    """Return layers that compute a share in (0, 1) for every pixel and channel."""
    return nn.Sequential(Conv(width, 4), nn.ReLU(inplace=True), Conv(4, width), nn.Sigmoid())


class Share(nn.Module):
    """The layers of `_share` under the published parameter name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_du = _share(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H, W) in (0, 1)."""
        return self.conv_du(x)  # type: ignore[no-any-return]


class Blend(nn.Module):
    """The blend of a round's result with the transformed input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.C = Conv(width, width)
        self.cat = Conv(2 * width, width, 1)
        self.weight = Share(width)

    def forward(self, round: Tensor, first: Tensor) -> Tensor:
        """Return (1-d)·round + d·first, with d computed from both."""
        share = self.weight(self.cat(torch.cat([self.C(first), round], 1)))
        return torch.lerp(round, first, share)


class SkipBlend(nn.Module):
    """The blend of a skip connection with the upsampled deeper map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ConvTranspose = UpConv(width)
        self.C = Conv(width, width)
        self.cat = Conv(2 * width, width, 1)
        self.conv_du = _share(width)

    def forward(self, skip: Tensor, deeper: Tensor) -> Tensor:
        """Return (1-w)·up + w·skip, with w computed from both."""
        up = self.ConvTranspose(deeper)
        share = self.conv_du(self.cat(torch.cat([self.C(skip), up], 1)))
        return torch.lerp(up, skip, share)


class Encoder(nn.Module):
    """Two convolutions, whose result is the skip, then one of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvReLU(width), ConvReLU(width), ConvReLU(width, stride=2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the skip (B, width, H, W) and the deeper map (B, width, H/2, W/2)."""
        skip = self.body[1](self.body[0](x))
        return skip, self.body[2](skip)


class Join(nn.Module):
    """The concatenation of the attended skip and the deeper map, then a 1 x 1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ConvTranspose = UpConv(width)
        self.conv1 = ConvReLU(width)
        self.cat = Conv(2 * width, width, 1)

    def forward(self, attended: Tensor, deeper: Tensor) -> Tensor:
        """Return (B, width, H, W)."""
        return self.cat(torch.cat([self.conv1(attended), self.ConvTranspose(deeper)], 1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A `Join`, then two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upsample = Join(width)
        self.body = nn.Sequential(ConvReLU(width), ConvReLU(width))

    def forward(self, attended: Tensor, deeper: Tensor) -> Tensor:
        """Return (B, width, H, W)."""
        return self.body(self.upsample(attended, deeper))  # type: ignore[no-any-return]


class SubNetwork(nn.Module):
    """A four-level U-Net with blended skips that adds its input to its output."""

    LEVELS = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        for level in range(self.LEVELS):
            self.add_module(f"e{level}", Encoder(width))
            self.add_module(f"attention{level}", SkipBlend(width))
            self.add_module(f"de{level}", Decoder(width))
        self.mid = nn.Sequential(ConvReLU(width), ConvReLU(width))
        self.final = Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H, W)."""
        layers: dict[str, nn.Module] = self._modules  # type: ignore[assignment]
        deeper, skips = x, []
        for level in range(self.LEVELS):
            skip, deeper = layers[f"e{level}"](deeper)
            skips.append(skip)
        deeper = self.mid(deeper)
        for level in reversed(range(self.LEVELS)):
            attended = layers[f"attention{level}"](skips.pop(), deeper)
            deeper = layers[f"de{level}"](attended, deeper)
        return self.final(deeper) + x  # type: ignore[no-any-return]


class Transform(nn.Module):
    """Colours to features, or back: one convolution `ext`, and a residual pair `pre`."""

    def __init__(self, width: int, ext: Conv) -> None:
        super().__init__()
        self.ext = ext
        self.pre = nn.Sequential(Conv(width, width), nn.ReLU(inplace=True), Conv(width, width))


@register_backbone(
    "deamnet",
    size_multiple=16,
    global_skip=False,
    trains_in_bf16=True,
    license="Apache-2.0",
    source="Ren et al. 2021 (arXiv:2103.08147)",
    note="four rounds of one shared U-Net, blended with the input by attention",
)
class DeamNet(nn.Module):
    """Four rounds of a shared sub-network in feature space, which predict the image itself.

    (B, C, H, W) in, (B, C, H, W) out; H and W multiples of 16. The published weights contain a few
    parameters that the network does not use (`UNUSED`); they are skipped on loading.

    Args:
        channels: C.
        width: number of features; the published network has 64.
    """

    ROUNDS = ("line11", "line22", "line33", "line44")

    def __init__(self, channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        self.transform_function = Transform(width, Conv(channels, width))
        self.net2 = SubNetwork(width)
        for name in self.ROUNDS:
            self.add_module(name, Blend(width))
        self.inverse_transform_function = Transform(width, Conv(width, channels))
        self.register_load_state_dict_pre_hook(_leave_out_unused)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        into, back = self.transform_function, self.inverse_transform_function
        x = into.ext(image.contiguous(memory_format=torch.channels_last))
        x = first = x + into.pre(x)
        for name in self.ROUNDS:
            x = self._modules[name](self.net2(x), first)  # type: ignore[misc]
        return back.ext(x + back.pre(x))  # type: ignore[no-any-return]


def _leave_out_unused(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Drop the unused parameters of published weights."""
    for name in [name for name in weights if name.startswith(tuple(prefix + u for u in UNUSED))]:
        del weights[name]

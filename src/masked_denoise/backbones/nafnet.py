"""NAFNet's baseline: a U-Net of small convolutional blocks (Chen et al. 2022).

Written from the paper (arXiv:2204.04676) and the recorded names, shapes and outputs of the
published AMSNet weights. Parameter names follow those weights. All maps are in channels-last
layout; the scales beta and gamma of a block are multiplied into the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .layers import gelu, pixel_shuffle, pointwise
from .registry import register_backbone


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise convolution with channel attention, then two 1 x 1 convolutions; both residual.

    Args:
        channels: of the map.
        expand: width of the depthwise convolution, as a multiple of `channels`.
        hidden: width between the two 1 x 1 convolutions, as a multiple of `channels`.
    """

    def __init__(self, channels: int, *, expand: int, hidden: int) -> None:
        super().__init__()
        wide = channels * expand
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, wide // 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide // 2, wide, 1),
            nn.Sigmoid(),
        )
        self.conv3 = nn.Conv2d(wide, channels, 1)
        self.norm2 = ChannelNorm(channels)
        self.conv4 = nn.Conv2d(channels, channels * hidden, 1)
        self.conv5 = nn.Conv2d(channels * hidden, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        y = pointwise(self.norm1(x), self.conv1.weight, self.conv1.bias)
        y = gelu(self.conv2(y))
        x = x + _scaled(self.conv3, self.beta, y * self.se(y))
        y = gelu(pointwise(self.norm2(x), self.conv4.weight, self.conv4.bias))
        return x + _scaled(self.conv5, self.gamma, y)


def _scaled(conv: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """Return scale · conv(x), with one scale per output channel."""
    bias = None if conv.bias is None else conv.bias * scale.flatten()
    return pointwise(x, conv.weight * scale.view(-1, 1, 1, 1), bias)


@register_backbone(
    "nafnet",
    size_multiple=lambda arguments: 2 ** len(arguments["encoder_blocks"]),
    global_skip=True,
    trains_in_bf16=True,
    license="Apache-2.0",
    source="Chen et al. 2022 (arXiv:2204.04676)",
    note="the baseline block with GELU and channel attention, five levels",
)
class NAFNet(nn.Module):
    """U-Net of NAFNet's baseline blocks with additive skips, and a global skip.

    (B, C, H, W) in, (B, C, H, W) out. Sides that are not multiples of 2^levels are padded with
    zeros, and the output is cropped.

    Args:
        channels: C.
        width: number of features at full resolution, doubled at every level.
        encoder_blocks: number of blocks at each level of the encoder.
        middle_blocks: number of blocks at the lowest resolution.
        decoder_blocks: number of blocks at each level of the decoder, lowest resolution first.
        expand: width of a block's depthwise convolution, as a multiple of its level's width.
        hidden: width inside the second half of a block, as a multiple of its level's width.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 32,
        encoder_blocks: Sequence[int] = (2, 2, 4, 8),
        middle_blocks: int = 12,
        decoder_blocks: Sequence[int] = (2, 2, 2, 2),
        expand: int = 1,
        hidden: int = 2,
    ) -> None:
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks):
            raise SettingError(
                f"encoder_blocks has {len(encoder_blocks)} levels, decoder_blocks "
                f"{len(decoder_blocks)}; they must be as many"
            )

        def level(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(
                *(Block(width, expand=expand, hidden=hidden) for _ in range(count))
            )

        levels = len(encoder_blocks)
        widths = [width << number for number in range(levels + 1)]
        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.encoders = nn.ModuleList(map(level, widths, encoder_blocks))
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.middle_blks = level(widths[-1], middle_blocks)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, 2 * w, 1, bias=False)) for w in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(map(level, widths[-2::-1], decoder_blocks))
        self.ending = nn.Conv2d(width, channels, 3, padding=1)
        self.size_multiple = 2**levels

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % self.size_multiple, 0, -height % self.size_multiple))
        x = self.intro(padded.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, down in zip(self.encoders, self.downs, strict=True):
            skips.append(level(x))
            x = down(skips[-1])
        x = self.middle_blks(x)
        for level, up in zip(self.decoders, self.ups, strict=True):
            x = level(pixel_shuffle(up(x)) + skips.pop())
        return self.ending(x)[:, :, :height, :width] + image  # type: ignore[no-any-return]

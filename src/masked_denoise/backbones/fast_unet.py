"""The default backbone: a small U-Net that trains and runs fast on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .registry import register_backbone


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3 x 3 convolutions, each followed by a leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
    )


@register_backbone(
    "fast-unet",
    size_multiple=lambda arguments: 2 ** (len(arguments["widths"]) - 1),
    global_skip=False,
    trains_in_bf16=True,
    license="Apache-2.0",
    source="after Ronneberger et al. 2015 (arXiv:1505.04597)",
    note="the default: additive skips, most of the width at low resolution",
)
class FastUNet(nn.Module):
    """Small U-Net with additive skips, which predicts a correction that is initially zero.

    (B, C, H, W) in, (B, C, H, W) out; H and W multiples of 2^(levels-1); no global skip.

    Args:
        channels: C.
        widths: feature channels at full resolution, half, quarter, and so on.
    """

    def __init__(self, channels: int = 3, *, widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise SettingError(f"widths is {widths!r}; one positive width a level is needed")
        widths = tuple(widths)
        self.encoder = nn.ModuleList(
            _pair(before, width) for before, width in zip((channels, *widths), widths, strict=False)
        )
        levels = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.reduce = nn.ModuleList(nn.Conv2d(deep, width, 1) for deep, width in levels)
        self.decoder = nn.ModuleList(_pair(width, width) for _, width in levels)
        self.head = nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        skips: list[Tensor] = []
        x = image
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for reduce, block in zip(self.reduce, self.decoder, strict=True):
            x = block(F.interpolate(reduce(x), scale_factor=2.0, mode="nearest") + skips.pop())
        return self.head(x)  # type: ignore[no-any-return]

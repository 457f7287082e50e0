"""The student's network: plain convolutions, fast on a CPU, with a reach of over 100 pixels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingError
from .layers import pixel_shuffle, pixel_unshuffle
from .registry import register_backbone


class Block(nn.Module):
    """x + conv(ReLU(conv(x))), both 3 x 3; the second is initialised to zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H, W)."""
        return x + self.second(F.relu(self.first(x), inplace=True))  # type: ignore[no-any-return]


def _blocks(count: int, width: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(count)))


@register_backbone(
    "fast-student",
    size_multiple=lambda arguments: 2 ** len(arguments["widths"]),
    global_skip=False,
    trains_in_bf16=True,
    license="Apache-2.0",
    source="after Ronneberger et al. 2015 (arXiv:1505.04597) and He et al. 2016 (arXiv:1603.05027)",
    note="for `distill`: residual blocks from half resolution down, one pass",
)
class FastStudent(nn.Module):
    """U-Net of residual blocks from half resolution down; its output is initially zero.

    (B, C, H, W) in, (B, C, H, W) out; H and W multiples of 2^levels; no global skip. The image is
    split into its four phases (pixel unshuffle), so that the top level costs a quarter and reaches
    twice as far. Levels are connected by 2 x 2 convolutions of stride 2 downwards, and by 1 x 1
    convolutions, nearest-neighbour upsampling and sums upwards.

    Args:
        channels: C.
        widths: feature channels at half resolution, a quarter, an eighth, and so on.
        blocks: number of residual blocks at each of these levels, in the encoder and again in the
            decoder; the last level has them once.

    Attributes:
        reach: distance in pixels of the image up to which an output pixel depends on the input.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        widths: Sequence[int] = (40, 72, 96, 112),
        blocks: Sequence[int] = (1, 2, 1, 1),
    ) -> None:
        super().__init__()
        if not widths or min(*widths, *blocks) < 1 or len(widths) != len(blocks):
            raise SettingError(
                f"widths {widths!r} and blocks {blocks!r}: one positive number a level is needed"
            )
        steps = list(itertools.pairwise(widths))
        self.stem = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(fine, deep, 2, stride=2) for fine, deep in steps)
        self.encoder = nn.ModuleList(map(_blocks, blocks, widths))
        self.up = nn.ModuleList(nn.Conv2d(deep, fine, 1) for fine, deep in steps[::-1])
        self.decoder = nn.ModuleList(map(_blocks, blocks[-2::-1], widths[-2::-1]))
        self.head = nn.Conv2d(widths[0], 4 * channels, 3, padding=1)
        ends = [block.second for block in self.modules() if isinstance(block, Block)]
        for layer in (*ends, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.reach = _reach(blocks)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        x = self.stem(pixel_unshuffle(image))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            x = blocks(self.down[level - 1](x) if level else x)
            skips.append(x)
        skips.pop()
        for up, blocks in zip(self.up, self.decoder, strict=True):
            x = blocks(F.interpolate(up(x), scale_factor=2.0, mode="nearest") + skips.pop())
        return pixel_shuffle(self.head(x))


def _reach(blocks: Sequence[int]) -> int:
    """Return the distance in pixels up to which an output pixel depends on the input."""
    last = len(blocks)
    convolutions = 4  # stem and head, one pixel of half resolution each
    for level, count in enumerate(blocks, start=1):
        convolutions += (2 if level == last else 4) * (count << level)
    return convolutions + (1 << last) - 1

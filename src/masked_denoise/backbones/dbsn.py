"""The dilated blind-spot network of AP-BSN (Lee et al. 2022), after Wu et al. 2020.

With `dilated=True` (D_A in Table 3 of the AMSNet paper) no output pixel depends on the input pixel
at the same place: the first convolution of each branch leaves out its centre, and the 3 x 3
convolutions after it are dilated such that they never reach that pixel again. With `dilated=False`
(D_AS) they are ordinary convolutions, and that pixel leaks back in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .registry import register_backbone


class CentreMaskedConv(nn.Conv2d):
    """A convolution that does not see the central pixel of its window."""

    mask: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__(channels, channels, size, padding=size // 2)
        mask = torch.ones_like(self.weight)
        mask[:, :, size // 2, size // 2] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class DilatedBlock(nn.Module):
    """x plus a 3 x 3 and a 1 x 1 convolution of it."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        return x + self.body(x)  # type: ignore[no-any-return]


class Branch(nn.Module):
    """One centre-masked convolution, followed by blocks with dilation `stride`, 2 or 3."""

    def __init__(self, channels: int, stride: int, blocks: int, *, dilated: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            CentreMaskedConv(channels, 2 * stride - 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(inplace=True),
            *(DilatedBlock(channels, stride if dilated else 1) for _ in range(blocks)),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        return self.body(x)  # type: ignore[no-any-return]


@register_backbone(
    "dbsn",
    size_multiple=1,
    global_skip=False,
    blind=lambda arguments: bool(arguments["dilated"]),
    license="Apache-2.0",
    source="Lee et al. 2022 (arXiv:2203.11799); Wu et al. 2020 (arXiv:2008.13711)",
    note="dilated blind-spot network; dilated=False lets the centre leak back in",
)
class DBSN(nn.Module):
    """Blind-spot network of two dilated branches, which predicts the image itself.

    (B, C, H, W) in, (B, C, H, W) out, of any size. Parameter names follow the published weights.

    Args:
        channels: C.
        width: number of features of the branches.
        blocks: number of dilated blocks of each branch.
        dilated: True for the blind-spot network (D_A), False for ordinary convolutions (D_AS).
    """

    def __init__(
        self, channels: int = 3, *, width: int = 128, blocks: int = 9, dilated: bool = True
    ) -> None:
        super().__init__()
        half = width // 2
        self.head = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True))
        self.branch1 = Branch(width, 2, blocks, dilated=dilated)
        self.branch2 = Branch(width, 3, blocks, dilated=dilated)
        self.tail = nn.Sequential(
            nn.Conv2d(2 * width, width, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, half, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, channels, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        x = self.head(image.contiguous(memory_format=torch.channels_last))
        return self.tail(torch.cat([self.branch1(x), self.branch2(x)], 1))  # type: ignore[no-any-return]

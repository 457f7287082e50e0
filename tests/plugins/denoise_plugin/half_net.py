"""A network at half resolution."""

from __future__ import annotations

from torch import Tensor, nn

from masked_denoise import register_backbone


@register_backbone(
    "half-net", size_multiple=2, license="MIT", source="this package", note="half the resolution"
)
class HalfNet(nn.Module):
    """Three convolutions; the last one starts at zero."""

    def __init__(self, channels: int = 3, *, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 2, stride=2),
        )
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        return self.body(image)

"""DnCNN: a plain stack of convolutions that predicts the noise (Zhang et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import SettingError
from .registry import register_backbone


@register_backbone(
    "dncnn",
    global_skip=True,
    size_multiple=1,
    license="Apache-2.0",
    source="Zhang et al. 2017 (arXiv:1608.03981)",
    note="17 convolutions with batch normalisation at full resolution",
)
class DnCNN(nn.Module):
    """Convolutions with batch normalisation, whose output is subtracted from the input.

    (B, C, H, W) in, (B, C, H, W) out, of any size. Parameter names number the layers of
    arXiv:1608.03981 as one flat sequence.

    Args:
        channels: C.
        width: number of features of every layer except the last.
        depth: number of convolutions.
    """

    def __init__(self, channels: int = 3, *, width: int = 64, depth: int = 17) -> None:
        super().__init__()
        if depth < 2:
            raise SettingError(f"depth is {depth}; at least 2 convolutions are needed")
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [
                nn.Conv2d(width, width, 3, padding=1),
                nn.BatchNorm2d(width, eps=1e-4, momentum=0.9),
                nn.ReLU(inplace=True),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        return image - self.model(image)  # type: ignore[no-any-return]

"""The U-Net in Table 4 of the AMSNet paper: Ronneberger et al. 2015, as used by Laine et al."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .registry import register_backbone

HEAD = 96


class Upsample(nn.Module):
    """Upsampling by 2 with a 2 x 2 transposed convolution, without activation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, 2H, 2W)."""
        y: Tensor = self.deconv(x)
        return y


def _conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


@register_backbone(
    "unet",
    size_multiple=32,
    global_skip=False,
    trains_in_bf16=True,
    license="Apache-2.0",
    source="Ronneberger et al. 2015 (arXiv:1505.04597); Laine et al. 2019 (arXiv:1901.10277)",
    note="five levels, concatenation skips, 1x1 head; the published AMSNet U-Net",
)
class UNet(nn.Module):
    """Five-level U-Net with concatenation skips; parameter names follow the published weights.

    (B, C, H, W) in, (B, C, H, W) out; H and W multiples of 32; no global skip.

    Args:
        channels: C.
        width: F, the encoder's width; the decoder has 2F. Published networks have 48 or 128.
    """

    def __init__(self, channels: int = 3, *, width: int = 48) -> None:
        super().__init__()
        self.enc_conv0 = _conv(channels, width)
        for level in range(1, 7):
            self.add_module(f"enc_conv{level}", _conv(width, width))
        self.up5 = Upsample(width, width)
        for level in range(5, 1, -1):
            # At level 5 the deeper map has F channels, above it 2F; the skip always has F.
            deeper = width if level == 5 else 2 * width
            self.add_module(f"dec_conv{level}a", _conv(deeper + width, 2 * width))
            self.add_module(f"dec_conv{level}b", _conv(2 * width, 2 * width))
            self.add_module(f"up{level - 1}", Upsample(2 * width, 2 * width))
        self.dec_conv1a = _conv(2 * width + channels, HEAD)
        self.dec_conv1b = _conv(HEAD, HEAD)
        self.nin_a = _conv(HEAD, HEAD, 1)
        self.nin_b = _conv(HEAD, HEAD, 1)
        self.nin_c = _conv(HEAD, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        layers: dict[str, nn.Module] = self._modules  # type: ignore[assignment]
        skips = [image]
        x = _act(self.enc_conv0(image))
        for level in range(1, 6):
            x = F.max_pool2d(_act(layers[f"enc_conv{level}"](x)), 2)
            skips.append(x)
        skips.pop()
        x = _act(layers["enc_conv6"](x))
        for level in range(5, 0, -1):
            x = torch.cat([layers[f"up{level}"](x), skips.pop()], dim=1)
            x = _act(layers[f"dec_conv{level}a"](x))
            x = _act(layers[f"dec_conv{level}b"](x))
        x = _act(self.nin_b(_act(self.nin_a(x))))
        return self.nin_c(x)  # type: ignore[no-any-return]

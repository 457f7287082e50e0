"""Restormer, a transformer whose attention runs across channels (Zamir et al. 2022).

Written from the paper (arXiv:2111.09881) and the recorded names, shapes and outputs of the
published AMSNet weights. Parameter names follow those weights.

All maps are in channels-last layout. Three computations are reordered compared with the paper, with
the same result: instead of queries and keys, their small product is normalised; attention and the
projection after it are combined into one matrix per image; and the weight of a norm is multiplied
into the convolution after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import SettingError
from .layers import gelu, pixel_shuffle, pixel_unshuffle, pointwise
from .registry import register_backbone

EPSILON = 1e-5


class _Scale(nn.Module):
    """The weight, and optionally the bias, of a norm over channels."""

    bias: Tensor | None

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if bias else None)


class _InverseDeviation(torch.autograd.Function):
    """1 / sqrt(variance over the last dimension + epsilon), computed by the layer_norm kernel.

    On a CPU this is several times faster than `Tensor.var`.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> Tensor:
        _, mean, inverse = torch.native_layer_norm(pixels, pixels.shape[-1:], None, None, EPSILON)
        ctx.save_for_backward(pixels, mean, inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        pixels, mean, inverse = ctx.saved_tensors
        grad_input = grad * inverse**3 / -pixels.shape[-1]
        return grad_input * (pixels - mean)  # type: ignore[no-any-return]


class ChannelNorm(nn.Module):
    """Norm over the channels of each pixel.

    With a bias it is LayerNorm. Without one, pixels are divided by their standard deviation over
    channels and keep their mean.
    """

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.body = _Scale(channels, bias)

    def forward(self, x: Tensor, after: nn.Conv2d) -> Tensor:
        """Return after(norm(x)) for a 1 x 1 convolution `after` of the normalised map."""
        weight, bias = self.body.weight, self.body.bias
        pixels = x.permute(0, 2, 3, 1)
        if bias is not None:
            normed = F.layer_norm(pixels, weight.shape, weight, bias, EPSILON)
            return pointwise(normed.permute(0, 3, 1, 2), after.weight, after.bias)
        inverse: Tensor = _InverseDeviation.apply(pixels)
        normed = (pixels * inverse).permute(0, 3, 1, 2)
        return pointwise(normed, after.weight * weight[:, None, None], after.bias)


class Attention(nn.Module):
    """Self-attention across the channels of each head, after a depthwise 3 x 3 convolution."""

    def __init__(self, channels: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias
        )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor, norm: ChannelNorm) -> Tensor:
        """Return the attended map (B, C, H, W) of norm(x)."""
        batch, channels, height, width = x.shape
        heads = self.heads
        mixed = self.qkv_dwconv(norm(x, self.qkv)).permute(0, 2, 3, 1).flatten(1, 2)
        q, k, v = mixed.split(channels, 2)  # each (B, H·W, C)
        each = channels // heads
        products = [
            q_head.mT @ k_head
            for q_head, k_head in zip(q.split(each, 2), k.split(each, 2), strict=True)
        ]
        wide = torch.promote_types(mixed.dtype, torch.float32)  # half precision would underflow
        product = torch.stack(products, 1).to(wide)  # (B, heads, C/heads, C/heads)
        length = torch.linalg.vector_norm(mixed[..., : 2 * channels], dim=1, dtype=wide)
        length = length.clamp_min(1e-12).view(batch, 2, heads, each)
        cosine = product / length[:, 0, :, :, None] / length[:, 1, :, None, :]
        share = (cosine * self.temperature).softmax(3)
        project = self.project_out.weight.view(channels, heads, each)
        joined = torch.einsum("ohc,bhcd->bhdo", project.to(wide), share)
        out: Tensor = v @ joined.flatten(1, 2).to(v.dtype)
        if self.project_out.bias is not None:
            out = out + self.project_out.bias
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


class FeedForward(nn.Module):
    """Two 1 x 1 convolutions around a depthwise one, half of whose output gates the other half."""

    def __init__(self, channels: int, expansion: float, *, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor, norm: ChannelNorm) -> Tensor:
        """Return the map (B, C, H, W) computed from norm(x)."""
        gate, value = self.dwconv(norm(x, self.project_in)).chunk(2, 1)
        return pointwise(gelu(gate) * value, self.project_out.weight, self.project_out.bias)


class Block(nn.Module):
    """x + attention(norm1 x), then x + feed-forward(norm2 x)."""

    def __init__(self, channels: int, heads: int, expansion: float, *, bias: bool, norm_bias: bool):
        super().__init__()
        self.norm1 = ChannelNorm(channels, bias=norm_bias)
        self.attn = Attention(channels, heads, bias=bias)
        self.norm2 = ChannelNorm(channels, bias=norm_bias)
        self.ffn = FeedForward(channels, expansion, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        x = x + self.attn(x, self.norm1)
        return x + self.ffn(x, self.norm2)  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    """The first 3 x 3 convolution."""

    def __init__(self, channels: int, dim: int, *, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 3, padding=1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, dim, H, W)."""
        return self.proj(image)  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Half the height and width, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2C, H/2, W/2)."""
        return pixel_unshuffle(self.body(x))


class Upsample(nn.Module):
    """Twice the height and width, half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C/2, 2H, 2W)."""
        return pixel_shuffle(self.body(x))


@register_backbone(
    "restormer",
    size_multiple=8,
    global_skip=True,
    trains_in_bf16=True,
    license="Apache-2.0",
    source="Zamir et al. 2022 (arXiv:2111.09881)",
    note="the AMSNet paper's default: attention across channels, four levels",
)
class Restormer(nn.Module):
    """Four-level encoder and decoder of transformer blocks, with a global skip.

    (B, C, H, W) in, (B, C, H, W) out; H and W multiples of 8.

    Args:
        channels: C.
        dim: width at full resolution, even, doubled at every level. The width of each level must be
            a multiple of its `heads`.
        blocks: number of transformer blocks of each level.
        refinement_blocks: number of blocks at full resolution after the decoder.
        heads: number of attention heads of each level.
        expansion: hidden width of the feed-forward part, as a multiple of the level's width.
        bias: whether convolutions have a bias.
        norm_bias: whether norms subtract the mean and have a bias.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        dim: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        bias: bool = False,
        norm_bias: bool = False,
    ) -> None:
        super().__init__()
        if len(blocks) != 4 or len(heads) != 4:
            raise SettingError(
                f"blocks={tuple(blocks)} and heads={tuple(heads)}: four numbers each are needed"
            )
        if dim < 2 or dim % 2 or any((dim << level) % heads[level] for level in range(4)):
            raise SettingError(f"dim {dim} must be even and a multiple of the heads {tuple(heads)}")

        def level(width: int, count: int, heads: int) -> nn.Sequential:
            return nn.Sequential(
                *(Block(width, heads, expansion, bias=bias, norm_bias=norm_bias)
                  for _ in range(count))
            )  # fmt: skip

        self.patch_embed = PatchEmbed(channels, dim, bias=bias)
        self.encoder_level1 = level(dim, blocks[0], heads[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = level(2 * dim, blocks[1], heads[1])
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = level(4 * dim, blocks[2], heads[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = level(8 * dim, blocks[3], heads[3])
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = level(4 * dim, blocks[2], heads[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = level(2 * dim, blocks[1], heads[1])
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = level(2 * dim, blocks[0], heads[0])
        self.refinement = level(2 * dim, refinement_blocks, heads[0])
        self.output = nn.Conv2d(2 * dim, channels, 3, padding=1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        image = image.contiguous(memory_format=torch.channels_last)
        level1 = self.encoder_level1(self.patch_embed(image))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.latent(self.down3_4(level3))
        x = self.reduce_chan_level3(torch.cat([self.up4_3(x), level3], 1))
        x = self.decoder_level3(x)
        x = self.reduce_chan_level2(torch.cat([self.up3_2(x), level2], 1))
        x = self.decoder_level2(x)
        x = self.decoder_level1(torch.cat([self.up2_1(x), level1], 1))
        return self.output(self.refinement(x)) + image  # type: ignore[no-any-return]

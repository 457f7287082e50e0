"""Restormer, NAFNet, DnCNN and U-Net in straightforward form, to compare speed and output with.

Module by module as in the papers, channels first: normalise, then convolve; rearrange to rows of
pixels and back where a norm or attention needs it; scale the result.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from masked_denoise.backbones import dncnn, nafnet, restormer


def plain_form(network: nn.Module) -> nn.Module:
    """Return a copy of a built-in backbone that computes the same in the straightforward way."""
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in plain.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return plain


class RestormerNorm(restormer.ChannelNorm):
    def forward(self, x: Tensor, after: nn.Conv2d) -> Tensor:
        height, width = x.shape[2:]
        rows = rearrange(x, "b c h w -> b (h w) c")
        variance = rows.var(-1, keepdim=True, unbiased=False)
        rows = rows / torch.sqrt(variance + 1e-5) * self.body.weight
        normed: Tensor = after(rearrange(rows, "b (h w) c -> b c h w", h=height, w=width))
        return normed


class RestormerAttention(restormer.Attention):
    def forward(self, x: Tensor, norm: restormer.ChannelNorm) -> Tensor:
        height, width = x.shape[2:]
        parts = self.qkv_dwconv(norm(x, self.qkv)).chunk(3, dim=1)
        q, k, v = (rearrange(p, "b (head c) h w -> b head c (h w)", head=self.heads) for p in parts)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        share = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        out = rearrange(share @ v, "b head c (h w) -> b (head c) h w", h=height, w=width)
        projected: Tensor = self.project_out(out)
        return projected


class RestormerDown(restormer.Downsample):
    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.body(x), 2)


class RestormerUp(restormer.Upsample):
    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.body(x), 2)


class Restormer(restormer.Restormer):
    def forward(self, image: Tensor) -> Tensor:
        one = self.encoder_level1(self.patch_embed(image))
        two = self.encoder_level2(self.down1_2(one))
        three = self.encoder_level3(self.down2_3(two))
        x = self.up4_3(self.latent(self.down3_4(three)))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([x, three], 1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), two], 1)))
        x = self.decoder_level1(torch.cat([self.up2_1(x), one], 1))
        out: Tensor = self.output(self.refinement(x)) + image
        return out


class NAFNetNorm(nafnet.ChannelNorm):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        normed = (x - mean) / (variance + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * normed + self.bias.view(1, -1, 1, 1)


class NAFNetBlock(nafnet.Block):
    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv2(self.conv1(self.norm1(x))))
        y = self.conv3(y * self.se(y))
        x = x + y * self.beta
        y = self.conv5(F.gelu(self.conv4(self.norm2(x))))
        out: Tensor = x + y * self.gamma
        return out


class NAFNet(nafnet.NAFNet):
    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % self.size_multiple, 0, -height % self.size_multiple))
        x = self.intro(padded)
        skips = []
        for level, down in zip(self.encoders, self.downs, strict=True):
            x = level(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for level, up in zip(self.decoders, self.ups, strict=True):
            x = level(F.pixel_shuffle(up(x), 2) + skips.pop())
        out: Tensor = self.ending(x)[:, :, :height, :width] + image
        return out


class DnCNN(dncnn.DnCNN):
    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = image - self.model(image)
        return out


PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    restormer.ChannelNorm: RestormerNorm,
    restormer.Attention: RestormerAttention,
    restormer.Downsample: RestormerDown,
    restormer.Upsample: RestormerUp,
    restormer.Restormer: Restormer,
    nafnet.ChannelNorm: NAFNetNorm,
    nafnet.Block: NAFNetBlock,
    nafnet.NAFNet: NAFNet,
    dncnn.DnCNN: DnCNN,
}

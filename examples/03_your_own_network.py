"""Denoise with a network and a mask scheme of your own.

    python examples/03_your_own_network.py [OUT] [MINUTES]

Any module that keeps the shape of (B, C, H, W) can be the backbone, and a scheme needs one method.
Writes OUT/before_after.png to look at: the sample, denoised with the default random masks and with
the scheme below.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from masked_denoise import AsymmetricMaskDenoiser, MaskScheme, register_backbone
from masked_denoise.hashing import Key, hash_key
from masked_denoise.images import ImageFile, read_image, write_image
from masked_denoise.metrics import score
from masked_denoise.pixels import Grid
from masked_denoise.report.panel import side_by_side
from masked_denoise.samples import sample_path


@register_backbone("dilated-cnn", note="example: a few dilated convolutions", license="Apache-2.0")
class DilatedCNN(nn.Module):
    """Seven convolutions that look further and further; no downsampling, so any size will do."""

    def __init__(self, channels: int = 3, *, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for reach in (1, 2, 4, 2, 1):
            layers += [nn.Conv2d(width, width, 3, padding=reach, dilation=reach), nn.ReLU()]
        last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(last.weight)  # the first guess is the filled image: no correction
        self.layers = nn.Sequential(*layers, last)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class Stripes(MaskScheme):
    """Three branches; each hides every third row of a sub-image. The draw says which is first."""

    branches = 3

    def label(self, grid: Grid, key: Key) -> Tensor:
        first = hash_key(key)  # 32 random bits, the same on every device and in every run
        return ((grid.sub_row + first) % 3).expand(grid.shape).to(torch.uint8)


def main(out: Path = Path("out"), minutes: float = 1.0) -> None:
    noisy = read_image(sample_path("parrot")).pixels
    truth = read_image(sample_path("parrot", clean=True)).pixels
    pictures = [("noisy", noisy)]
    for name, scheme in (("random masks", None), ("stripes", Stripes())):
        torch.manual_seed(0)  # the first weights
        denoiser = AsymmetricMaskDenoiser("dilated-cnn", scheme=scheme)
        denoiser.fit(noisy, minutes=minutes)
        clean = denoiser.denoise(noisy)
        print(f"{name}: {score(clean, truth)['psnr']:.2f} dB")
        pictures.append((name, clean))
    write_image(out / "before_after.png", ImageFile(side_by_side([pictures])))
    print(f"look at {out / 'before_after.png'}")


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((Path, float), sys.argv[1:3], strict=False)))

"""Draw eight PolyU crops of all five cameras: noisy, denoised by camera-small, and clean.

The data set may be used, but is not part of this repository, nor are pictures made of it:

    python docs/figures/photographs.py NOISY CLEAN photographs.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sheet import sheet
from torch import Tensor

from masked_denoise import from_pretrained
from masked_denoise.images import read_image
from masked_denoise.images.pairs import find_pairs, pair_name
from masked_denoise.metrics import psnr

CROPS = (
    "Canon5D2_5_160_3200_plug_11",
    "Canon5D2_5_160_6400_reciever_4",
    "Canon600D_4-5_125_1600_toy_2",
    "Canon80D_8_8_12800_printer_14",
    "NikonD800_5-6_160_6400_wall_6",
    "NikonD800_8_100_6400_bulletin_5",
    "Sony_4-5_125_3200_plant_10",
    "Sony_4_200_3200_door_10",
)


def main() -> None:
    """Denoise the eight crops, and put the middle of each side by side."""
    noisy, clean, target = sys.argv[1:]
    pairs = {pair_name(pair.image): pair for pair in find_pairs(noisy, clean).pairs}
    denoiser = from_pretrained("camera-small")
    rows = []
    for name in CROPS:
        before, truth = image(pairs[name].image), image(pairs[name].clean)
        after = denoiser.denoise(before)
        gain = [float(psnr(x, truth, eight_bit=True)) for x in (before, after)]
        camera = name.split("_")[0]
        rows.append(
            {
                f"{camera}: {gain[0]:.1f} dB": before,
                f"denoised: {gain[1]:.1f} dB": after,
                "mean of many shots": truth,
            }
        )
    sheet(rows).save(target)
    print(f"wrote {target}")


def image(path: Path) -> Tensor:
    """Return a picture (3, H, W) on the 0..1 scale."""
    return torch.from_numpy(read_image(path).pixels.copy()).permute(2, 0, 1).float() / 255


if __name__ == "__main__":
    main()

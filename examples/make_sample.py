"""Turn a clean picture into what a camera delivers at high ISO: a JPEG with coloured noise.

    python examples/make_sample.py INPUT.png -o noisy.jpg --clean clean.png --gain 50 --seed 1

The picture is converted back to the light that reaches a sensor, and passes through a camera again:

    sRGB -> linear light -> lens -> camera colours -> RGGB mosaic -> photon and read noise
         -> white balance -> demosaicing -> colour matrix -> sRGB -> 8 bit -> JPEG 4:2:0

The noise is independent from pixel to pixel only on the mosaic. Demosaicing, the colour matrix and
JPEG spread it over neighbours and channels, which makes camera noise harder than white Gaussian
noise. The clean picture of `--clean` passes through the same steps without noise and JPEG: it is
what infinitely many such exposures would average to.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]

FULL_WELL = 30_000.0
"""Electrons that white collects in one pixel at base ISO (gain 1)."""
READ_NOISE = 3.0
"""Standard deviation of the electronics' noise, in electrons."""
GAIN = 50.0
"""Exposure cut and amplification: 50 is ISO 5000 on a camera whose base is ISO 100."""
WHITE_BALANCE = np.array([2.0, 1.0, 1.6])
"""Gains of red, green and blue in daylight; green is the most sensitive."""
LENS_BLUR = 0.2
"""Share of the light that lens and low-pass filter move to each of the two next pixels."""
COLOUR_MATRIX = np.array([[1.65, -0.53, -0.12], [-0.18, 1.46, -0.28], [-0.01, -0.48, 1.49]])
"""White-balanced camera colours to linear sRGB. Rows add up to 1, so that grey stays grey."""


def to_linear(srgb: Floats) -> Floats:
    """Return linear light in [0, 1] for sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Floats) -> Floats:
    """Return sRGB values in [0, 1] for linear light, which is clipped to [0, 1] first."""
    light = np.clip(linear, 0.0, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def through_lens(light: Floats, blur: float) -> Floats:
    """Return the (H, W, C) light with the share `blur` moved to each neighbour, along both axes."""
    for axis in (0, 1):
        ends = [(1, 1) if i == axis else (0, 0) for i in range(3)]
        padded = np.moveaxis(np.pad(light, ends, mode="reflect"), axis, 0)
        mixed = (1 - 2 * blur) * padded[1:-1] + blur * (padded[:-2] + padded[2:])
        light = np.moveaxis(mixed, 0, axis)
    return light


def bayer_masks(height: int, width: int) -> NDArray[np.bool_]:
    """Return (H, W, 3) booleans: which colour each pixel of an RGGB sensor sees."""
    row, column = np.arange(height)[:, None] % 2, np.arange(width)[None] % 2
    red, blue = (row == 0) & (column == 0), (row == 1) & (column == 1)
    return np.stack([red, row != column, blue], axis=2)


def expose(signal: Floats, electrons: float, read_noise: float, seed: int) -> Floats:
    """Return the signal with photon and read noise, in the same scale; it may fall below 0.

    `signal` is 1 where the sensor collects `electrons`. The variance is signal / electrons +
    (read_noise / electrons)^2: photons arrive independently (Poisson), the electronics add a
    normal error. Exposure is taken to leave headroom, so nothing clips at the top.
    """
    rng = np.random.default_rng(seed)
    counted = rng.poisson(signal * electrons) + rng.normal(0.0, read_noise, signal.shape)
    return np.asarray(counted / electrons, dtype=np.float64)


def shifted(plane: Floats, down: int, right: int) -> Floats:
    """Return the (H, W) plane seen `down` and `right` pixels further on (at most 2), mirrored."""
    padded = np.pad(plane, 2, mode="reflect")
    height, width = plane.shape
    return padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]


def demosaic(mosaic: Floats) -> Floats:
    """Return (H, W, 3) colours of an RGGB mosaic (H, W), both sides at least 3.

    Green is interpolated along the direction in which the picture changes least and corrected by
    the other colour's second difference (Hamilton and Adams, 1997); red and blue follow by linear
    interpolation of their difference to green.

    >>> demosaic(np.ones((6, 7))).shape
    (6, 7, 3)
    """
    masks = bayer_masks(*mosaic.shape)
    guesses, changes = [], []
    for down, right in ((0, 1), (1, 0)):
        before, after = shifted(mosaic, -down, -right), shifted(mosaic, down, right)
        far = shifted(mosaic, -2 * down, -2 * right) + shifted(mosaic, 2 * down, 2 * right)
        bend = 2 * mosaic - far
        guesses.append((before + after) / 2 + bend / 4)
        changes.append(np.abs(before - after) + np.abs(bend))
    interpolated = np.where(changes[0] < changes[1], guesses[0], guesses[1])
    green = np.where(masks[..., 1], mosaic, interpolated)
    red, blue = (
        green + spread(np.where(masks[..., c], mosaic - green, 0.0), masks[..., c]) for c in (0, 2)
    )
    return np.stack([red, green, blue], axis=2)


def spread(sparse: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return the plane with unknown pixels interpolated linearly from the known ones in 3x3."""
    total, weight = np.zeros_like(sparse), np.zeros_like(sparse)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            share = 0.5 ** (abs(down) + abs(right))
            total += share * shifted(sparse, down, right)
            weight += share * shifted(known.astype(np.float64), down, right)
    return total / weight


def simulate_camera(
    image: NDArray[np.uint8],
    *,
    gain: float = GAIN,
    full_well: float = FULL_WELL,
    read_noise: float = READ_NOISE,
    blur: float = LENS_BLUR,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Return the uint8 (H, W, 3) sRGB picture that a camera makes of the clean one; no JPEG yet.

    `gain` divides the electrons that white collects (`full_well` / `gain`); 0 stands for an
    endless exposure, whose result has no noise. `read_noise` is in electrons, `blur` is the share
    of light that goes to each next pixel. The same `seed` gives the same noise. Raises ValueError
    for another shape or dtype, or for a setting out of its range.

    >>> grey = np.full((8, 8, 3), 128, np.uint8)
    >>> bool((simulate_camera(grey, gain=0) == grey).all())
    True
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 3:
        raise ValueError(f"need a uint8 (H, W, 3) picture, got {image.dtype} {image.shape}")
    if gain < 0 or read_noise < 0 or full_well <= 0 or not 0 <= blur <= 0.25:
        raise ValueError(
            f"need gain and read_noise of 0 or more, full_well above 0 and blur in [0, 0.25], "
            f"got {gain=}, {read_noise=}, {full_well=}, {blur=}"
        )
    light = through_lens(to_linear(image / 255.0), blur)
    light = light @ np.linalg.inv(COLOUR_MATRIX).T / WHITE_BALANCE
    masks = bayer_masks(*image.shape[:2])
    mosaic = (light * masks).sum(axis=2).clip(min=0.0)
    if gain > 0:
        mosaic = expose(mosaic, full_well / gain, read_noise, seed)
    colours = demosaic(mosaic * (WHITE_BALANCE * masks).sum(axis=2))
    return np.rint(255 * to_srgb(colours @ COLOUR_MATRIX.T)).astype(np.uint8)


def jpeg_bytes(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Return the picture as a JPEG file with halved chroma (4:2:0), as cameras write it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return stream.getvalue()


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio of two 8-bit pictures in dB."""
    mse = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def crop_box(text: str) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) for the text "LEFT,TOP,WIDTH,HEIGHT"."""
    left, top, width, height = (int(part) for part in text.split(","))
    return left, top, left + width, top + height


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("input", type=Path, help="a clean picture")
    ask.add_argument("-o", "--output", type=Path, required=True, help="the noisy JPEG to write")
    ask.add_argument("--clean", type=Path, help="also write the noise-free picture, as PNG")
    ask.add_argument("--crop", type=crop_box, help="LEFT,TOP,WIDTH,HEIGHT in pixels")
    ask.add_argument("--gain", type=float, default=GAIN, help="1 = base ISO (default %(default)g)")
    ask.add_argument(
        "--full-well", type=float, default=FULL_WELL, help="electrons of white at gain 1"
    )
    ask.add_argument("--read-noise", type=float, default=READ_NOISE, help="in electrons")
    ask.add_argument("--blur", type=float, default=LENS_BLUR, help="of the lens, 0 to 0.25")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--quality", type=int, default=90, help="of the JPEG (default %(default)d)")
    return ask


def main(argv: list[str] | None = None) -> int:
    """Write the noisy picture, and the clean one if asked; return the exit code."""
    args = arguments().parse_args(argv)
    with Image.open(args.input) as picture:
        image = np.asarray(picture.crop(args.crop).convert("RGB"))
    clean = simulate_camera(image, gain=0, blur=args.blur)
    shot = simulate_camera(
        image,
        gain=args.gain,
        full_well=args.full_well,
        read_noise=args.read_noise,
        blur=args.blur,
        seed=args.seed,
    )
    encoded = jpeg_bytes(shot, args.quality)
    args.output.write_bytes(encoded)
    if args.clean:
        Image.fromarray(clean).save(args.clean, optimize=True)
    noisy = np.asarray(Image.open(io.BytesIO(encoded)))
    print(f"{args.output}: {noisy.shape[1]} x {noisy.shape[0]}, {psnr(noisy, clean):.2f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

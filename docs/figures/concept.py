"""Draw docs/images/concept.png: what happens to the pixels in training and in denoising.

    python docs/figures/concept.py [OUTPUT.png] [STEPS]

Every panel is computed: a network is fitted on a shipped sample with the default strides, and the
picture shows what the library's own functions make of one corner of it. Needs matplotlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import NDArray
from torch import Tensor

from masked_denoise import AsymmetricMaskDenoiser, PixelDownsample
from masked_denoise.hashing import Key
from masked_denoise.images import read_image
from masked_denoise.ops import fill_hidden, merge_branches
from masked_denoise.samples import sample_path

TRAIN_STRIDE, STRIDE, STEPS = 2, 1, 400
SAMPLE, TOP, LEFT, SIDE = "parrot", 84, 148, 48  # its eye; multiples of both strides
HIDDEN, NOTHING = "#1c7ed6", "#e4e8ea"
INK, SOFT = "#263238", "#607d8b"
PANEL = 1.5  # side of a panel in inches
WIDTH, HEIGHT = 13.9, 7.6


def main() -> None:
    """Fit, draw, save."""
    output = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "images/concept.png"
    )
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
    torch.manual_seed(0)
    noisy = read_image(sample_path(SAMPLE)).pixels
    denoiser = AsymmetricMaskDenoiser(train_stride=TRAIN_STRIDE, stride=STRIDE)
    denoiser.fit(noisy, steps=steps, batch_size=4, progress=False)
    image = torch.from_numpy(noisy.copy()).permute(2, 0, 1)[None] / 255
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=110)
    draw_training(figure, denoiser, image)
    draw_denoising(figure, denoiser, image)
    figure.savefig(output, pil_kwargs={"optimize": True})
    print(f"wrote {output}")


class Branch:
    """What one branch does at one stride: sub-images, hidden pixels, the network's output."""

    def __init__(self, denoiser: AsymmetricMaskDenoiser, image: Tensor, stride: int) -> None:
        pixels = PixelDownsample(stride)
        self.sub_images = pixels.down(image)
        grid = pixels.grid(1, (image.shape[2], image.shape[3]))
        label = denoiser.scheme.label(grid, Key(seed=2))
        self.hidden = [denoiser.scheme.hidden(label, branch) for branch in (0, 1)]
        self.filled = [fill_hidden(self.sub_images, hidden, "mean") for hidden in self.hidden]
        with torch.no_grad():
            self.output = [filled + denoiser.backbone(filled) for filled in self.filled]
        self.merged = merge_branches(self.output, self.hidden)
        self.stride = stride

    def tiles(self, values: Tensor, hidden: Tensor | None = None, colour: str = HIDDEN) -> Picture:
        """Return the corner of all sub-images side by side, hidden pixels in one colour."""
        s, h = self.stride, SIDE // self.stride
        corner = (slice(TOP // s, TOP // s + h), slice(LEFT // s, LEFT // s + h))
        picture = shown(values)[:, corner[0], corner[1]]
        if hidden is not None:
            mask = hidden.expand(len(values), 1, -1, -1)[:, 0, corner[0], corner[1]].numpy()
            picture[mask] = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        gap = 2 if s < 4 else 1
        picture = np.pad(picture, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1)
        rows = picture.reshape(s, s, h + gap, h + gap, 3).swapaxes(1, 2)
        return rows.reshape(s * (h + gap), s * (h + gap), 3)[:-gap, :-gap]


Picture = NDArray[np.float32]


def shown(values: Tensor) -> Picture:
    """Return (N, H, W, 3) in [0, 1] of (N, 3, H, W)."""
    return np.ascontiguousarray(values.clamp(0, 1).permute(0, 2, 3, 1).numpy())


def corner(image: Tensor) -> Picture:
    """Return the part of an image (1, 3, H, W) that is shown."""
    return shown(image)[0, TOP : TOP + SIDE, LEFT : LEFT + SIDE]


def draw_training(figure: Figure, denoiser: AsymmetricMaskDenoiser, image: Tensor) -> None:
    """Draw the upper row."""
    at, y = Branch(denoiser, image, TRAIN_STRIDE), 5.3
    reason = "neighbours with unlike noise"
    what = f"one branch a step, which is cheap; larger stride (here {TRAIN_STRIDE}): {reason}"
    title(figure, 0.35, 7.2, "Training", what)
    panel(figure, 0.35, y, corner(image), "noisy image")
    arrow(figure, 1.95, y, "down")
    panel(figure, 2.75, y, at.tiles(at.sub_images), "4 sub-images")
    arrow(figure, 4.35, y, "hide")
    panel(figure, 5.15, y, at.tiles(at.sub_images, at.hidden[0]), "half the pixels hidden")
    arrow(figure, 6.75, y, "fill")
    network(figure, 7.55, y, "any\nnetwork")
    arrow(figure, 8.95, y)
    panel(figure, 9.55, y, at.tiles(at.output[0], ~at.hidden[0], NOTHING), "predicted there")
    text(figure, 11.35, y + PANEL / 2, "↔", size=24)
    panel(figure, 11.65, y, at.tiles(at.sub_images, ~at.hidden[0], NOTHING), "measured there")
    text(figure, 11.35, y - 0.55, "mask loss: the mean difference (Eq. 4)")


def draw_denoising(figure: Figure, denoiser: AsymmetricMaskDenoiser, image: Tensor) -> None:
    """Draw the lower rows."""
    at, y, high, low = Branch(denoiser, image, STRIDE), 1.4, 2.35, 0.45
    reason = "pixels from the branch that did not see them"
    what = f"all branches; smaller stride (here {STRIDE}); {reason}"
    title(figure, 0.35, 4.15, "Denoising", what)
    panel(figure, 0.35, y, corner(image), "noisy image")
    arrow(figure, 1.95, y, "down")
    panel(figure, 2.75, y, at.tiles(at.sub_images), "1 sub-image")
    for branch, height in enumerate((high, low)):
        arrow(figure, 4.35, y, to=height, length=0.7)
        masked = at.tiles(at.sub_images, at.hidden[branch])
        panel(figure, 5.15, height, masked, f"branch {branch + 1}")
        arrow(figure, 6.75, height, "fill")
        network(figure, 7.55, height, "the same\nnetwork")
        arrow(figure, 8.95, height)
        kept = at.tiles(at.output[branch], ~at.hidden[branch], NOTHING)
        panel(figure, 9.55, height, kept, "predicted")
        arrow(figure, 11.15, height, to=y, length=0.7)
    text(figure, 4.6, high + PANEL / 2, "hide")
    text(figure, 11.6, high + PANEL / 2 + 0.05, "merge, up")
    denoised = denoiser.denoise(image)
    panel(figure, 11.95, y, corner(denoised), "denoised image")
    text(figure, 12.7, y - 0.6, "(Eq. 6 to 8; the mean\nof several draws)")


def title(figure: Figure, x: float, y: float, name: str, what: str) -> None:
    """Write the heading of a row."""
    figure.text(x / WIDTH, y / HEIGHT, name, fontsize=17, weight="bold", color=INK)
    figure.text((x + 1.55) / WIDTH, y / HEIGHT, what, fontsize=12.5, color=SOFT)


def text(figure: Figure, x: float, y: float, words: str, *, size: float = 11) -> None:
    """Write words around a place."""
    place = (x / WIDTH, y / HEIGHT)
    figure.text(*place, words, fontsize=size, color=INK, ha="center", va="center")


def panel(figure: Figure, x: float, y: float, picture: Picture, label: str) -> None:
    """Draw a picture with its label."""
    axes = figure.add_axes((x / WIDTH, y / HEIGHT, PANEL / WIDTH, PANEL / HEIGHT))
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    text(figure, x + PANEL / 2, y - 0.19, label)


def arrow(
    figure: Figure,
    x: float,
    y: float,
    label: str = "",
    *,
    to: float | None = None,
    length: float = 0,
) -> None:
    """Draw an arrow from the middle of a panel at height y to that of one at height `to`."""
    length = length or (0.7 if label else 0.5)
    start, end = y + PANEL / 2, (y if to is None else to) + PANEL / 2
    ends = [(x / WIDTH, start / HEIGHT), ((x + length) / WIDTH, end / HEIGHT)]
    style = {"arrowstyle": "-|>", "mutation_scale": 14, "color": INK, "linewidth": 1.4}
    figure.add_artist(FancyArrowPatch(*ends, transform=figure.transFigure, **style))
    text(figure, x + length / 2, start + 0.2, label)


def network(figure: Figure, x: float, y: float, label: str) -> None:
    """Draw the box that stands for the network."""
    corner, width, height = (x / WIDTH, (y + 0.3) / HEIGHT), 1.3 / WIDTH, 0.9 / HEIGHT
    box = FancyBboxPatch(
        corner, width, height, boxstyle="round,pad=0,rounding_size=0.01",
        facecolor="#fff3bf", edgecolor="#f08c00", transform=figure.transFigure,
    )  # fmt: skip
    figure.add_artist(box)
    text(figure, x + 0.65, y + PANEL / 2, label, size=12)


if __name__ == "__main__":
    main()

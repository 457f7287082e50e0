"""Pixel downsampling into sub-images, its inverse, and the coordinates of sub-image pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from einops import rearrange
from torch import Tensor

from .checks import whole
from .errors import SettingError, SizeError


@dataclass(frozen=True)
class Grid:
    """Coordinates of every pixel of a batch of sub-images, from which masks are computed.

    All tensors are int64 and broadcast to (N, 1, h, w): B images at stride S give N = B·S·S
    sub-images of h x w pixels.

    Attributes:
        sample: (N, 1, 1, 1) index of the image of a sub-image, unique in a training run.
        row: (N, 1, h, 1) row of the pixel in the whole image.
        col: (N, 1, 1, w) column of the pixel in the whole image.
        sub_row: (1, 1, h, 1) row in the sub-image.
        sub_col: (1, 1, 1, w) column in the sub-image.
        stride: S.
        rows: (first, end) of the rows of the whole image that the sub-images cover.
        columns: (first, end) of the columns.
    """

    sample: Tensor
    row: Tensor
    col: Tensor
    sub_row: Tensor
    sub_col: Tensor
    stride: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 1, h, w), the shape of a mask on this grid."""
        return (self.row.shape[0], 1, self.row.shape[2], self.col.shape[3])

    @property
    def device(self) -> torch.device:
        """Device of the coordinates, and so of masks computed from them."""
        return self.row.device

    @cached_property
    def bits_of_columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """Position of each column's bit, when 32 neighbouring columns share a 32-bit word.

        int64 (1, 1, 1, M): indices of the words, in the whole image; int64 (N, 1, 1, w): position
        of a column's word among these; int32 (N, 1, 1, w): its bit in that word.
        """
        first, end = self.columns[0] >> 5, (self.columns[1] + 31) >> 5
        block = torch.arange(first, end, device=self.device).view(1, 1, 1, -1)
        return block, (self.col >> 5) - first, (self.col & 31).to(torch.int32)


class PixelDownsample:
    """Pixel downsampling P_s and its inverse (paper Sec. 3.2, Eq. 8), for images of any size.

    It takes every S-th pixel in both directions, starting at each of the S·S offsets. Neighbours in
    a sub-image are S pixels apart, so that noise correlated over fewer pixels becomes independent.
    Sub-image b·S² + r·S + s holds the pixels of image b at rows r, r+S, ... and columns s, s+S, ...

    Args:
        stride: S >= 1; 1 leaves the image unchanged.

    Raises:
        SettingError: the stride is not a whole number of 1 or more.

    >>> pd = PixelDownsample(2)
    >>> image = torch.arange(12.0).view(1, 1, 3, 4)
    >>> pd.down(image).shape
    torch.Size([4, 1, 2, 2])
    >>> torch.equal(pd.up(pd.down(image), size=(3, 4)), image)
    True
    """

    def __init__(self, stride: int) -> None:
        self.stride = whole("stride", stride)
        if self.stride < 1:
            raise SettingError(f"stride is {stride}; 1 pixel or more is needed")

    def __repr__(self) -> str:
        return f"PixelDownsample({self.stride})"

    def down(self, image: Tensor) -> Tensor:
        """Return the sub-images (B·S·S, C, ceil(H/S), ceil(W/S)) of an image batch.

        Args:
            image: (B, C, H, W), any dtype. Sides that are not multiples of S are padded by
                reflection at the bottom and right.

        Raises:
            SizeError: the input is not four-dimensional, or a side is shorter than S.
        """
        s = self.stride
        if image.ndim != 4:
            raise SizeError(f"image has shape {tuple(image.shape)}; (B, C, H, W) is needed")
        if min(image.shape[2:]) < s:
            h, w = image.shape[2:]
            raise SizeError(f"image is {h} x {w}; sides of at least the stride, {s}, are needed")
        if s == 1:
            return image
        image = reflect_pad(image, -image.shape[2] % s, -image.shape[3] % s)
        return rearrange(image, "b c (h r) (w s) -> (b r s) c h w", r=s, s=s)

    def up(self, sub_images: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Return the images (B, C, H, W) reassembled from sub-images; the exact inverse of `down`.

        Args:
            sub_images: (B·S·S, C, h, w), any dtype.
            size: (H, W) of the images, without the padding of `down`. Default: h·S, w·S.

        Raises:
            SizeError: the input is not four-dimensional, the number of sub-images is not a
                multiple of S·S, or `size` does not fit.
        """
        s = self.stride
        if sub_images.ndim != 4:
            raise SizeError(
                f"sub-images have shape {tuple(sub_images.shape)}; (B·S·S, C, h, w) is needed"
            )
        n, _, h, w = sub_images.shape
        if n % (s * s):
            raise SizeError(f"{n} sub-images came; a multiple of stride² = {s * s} is needed")
        height, width = size or (h * s, w * s)
        if (-(-height // s), -(-width // s)) != (h, w):
            raise SizeError(
                f"size {height} x {width} does not belong to sub-images of {h} x {w} at stride {s}"
            )
        if s == 1:
            return sub_images
        image = rearrange(sub_images, "(b r s) c h w -> b c (h r) (w s)", r=s, s=s)
        return image[:, :, :height, :width]

    def grid(
        self,
        batch: int,
        size: tuple[int, int],
        *,
        sample: Tensor | int = 0,
        origin: tuple[int, int] = (0, 0),
        device: torch.device | str | None = None,
    ) -> Grid:
        """Return the coordinates of the sub-images of `batch` images of the given size.

        Args:
            batch: B.
            size: (H, W) in pixels.
            sample: index of the first image, or an int64 tensor (B,) with the index of each.
            origin: row and column of the first pixel in a larger image; multiples of S.
            device: of the coordinates.

        Raises:
            SettingError: the origin is not a multiple of the stride.
            SizeError: `sample` is a tensor whose length is not `batch`.
        """
        s = self.stride
        if origin[0] % s or origin[1] % s:
            raise SettingError(f"origin {origin} must be a multiple of the stride, {s}")
        place = torch.empty(0, device=device).device
        if not isinstance(sample, Tensor):
            return _places(batch, size, whole("sample", sample), origin, s, place)
        if sample.shape != (batch,):
            raise SizeError(f"{sample.numel()} sample indices came for {batch} images")
        sample = sample.to(place, torch.int64).repeat_interleave(s * s).view(-1, 1, 1, 1)
        return replace(_places(batch, size, 0, origin, s, place), sample=sample)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _places(
    batch: int,
    size: tuple[int, int],
    sample: int,
    origin: tuple[int, int],
    stride: int,
    device: torch.device,
) -> Grid:
    """Return the grid of images with consecutive indices; cached, as every step needs one."""
    s = stride
    samples = torch.arange(sample, sample + batch, device=device)
    offset = torch.arange(s * s, device=device).repeat(batch)
    sub_row = torch.arange(-(-size[0] // s), device=device).view(1, 1, -1, 1)
    sub_col = torch.arange(-(-size[1] // s), device=device).view(1, 1, 1, -1)
    sub_row, sub_col = sub_row + origin[0] // s, sub_col + origin[1] // s
    return Grid(
        sample=samples.repeat_interleave(s * s).view(-1, 1, 1, 1),
        row=sub_row * s + (offset // s).view(-1, 1, 1, 1),
        col=sub_col * s + (offset % s).view(-1, 1, 1, 1),
        sub_row=sub_row,
        sub_col=sub_col,
        stride=s,
        rows=(origin[0], origin[0] + s * sub_row.shape[2]),
        columns=(origin[1], origin[1] + s * sub_col.shape[3]),
    )


def outside(grid: Grid, end: tuple[int, int]) -> Tensor | None:
    """Return bool (N, 1, h, w), True for pixels that are padding; None if there are none.

    Padding copies pixels that may be hidden, so no branch may see it.

    Args:
        grid: of the padded sub-images.
        end: row and column, in the whole image, where the piece without padding ends.
    """
    if (grid.rows[1], grid.columns[1]) == end:
        return None
    return (grid.row >= end[0]) | (grid.col >= end[1])


def reflect_pad(image: Tensor, bottom: int, right: int, *, top: int = 0, left: int = 0) -> Tensor:
    """Return (B, C, top+H+bottom, left+W+right): the image padded by reflection.

    Works for any dtype and for pads longer than the image, which is then reflected repeatedly.
    """
    for dim, before, after in ((2, top, bottom), (3, left, right)):
        if before or after:
            length = image.shape[dim]
            image = image.index_select(dim, _reflected(length, before, after, image.device))
    return image


def _reflected(length: int, before: int, after: int, device: torch.device) -> Tensor:
    """Return int64 indices (before + length + after,) that run from 0 to length-1 and back."""
    period = max(2 * (length - 1), 1)
    phase = torch.arange(-before, length + after, device=device) % period
    return torch.where(phase < length, phase, period - phase)

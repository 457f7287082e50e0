"""Calls of the Triton kernels: tensors and plain numbers in, tensors out.

Each function has the arguments of the operator of the same name in `library`, and computes the
same. On a CPU they work where TRITON_INTERPRET=1 was set before triton was imported.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .plan import MaskPlan, Origin

PIXELS = 1024  # of a tile
CHUNK = 4096  # numbers that `finish` adds at a time
MEAN_ROWS, MEAN_COLUMNS = 16, 64  # of a warp: two columns a thread hide each other's latency
MEAN_PLANES = 4  # channels that share their masks, at most: their sums must stay in registers
MEAN_PROGRAMS = 1024  # below so many the rows are cut shorter: they would not fill a large GPU
ALL_COLUMNS, ALL_PARTS = 256, 16  # of `hide_mean_of_all`


def hide_down(
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    bad: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    scored: bool,
    mean: bool,
    value: float,
    channels_last: bool,
) -> Tensor:
    """Return the filled sub-images of one branch."""
    s, (b, c, height, width) = place[0], image.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (b * s * s, c, -(-height // s), -(-width // s))
    out = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=layout)
    if not out.numel():
        return out
    masks = _masks(image, sample, draw, mask, plan, place, branch)
    masks |= {"image": image, "out": out, "bad": _bytes(image, bad), "HAS_BAD": bad is not None}
    masks |= _strides("image_b image_c image_h image_w", image)
    masks |= _strides("out_n out_c out_h out_w", out)
    masks |= _strides("bad_b _ bad_h bad_w", bad)
    kernels = _kernels("hide")
    with _device(image):
        if not mean:
            rounded = float(torch.tensor(value, dtype=image.dtype))
            (bits,) = struct.unpack("q", struct.pack("d", rounded))
            grid, tiles = _tiles(b, s * shape[2], s * shape[3])
            kernels.hide[grid](**masks, **tiles, value=bits, C=c, SCORED=scored)
            return out
        empty = torch.zeros(shape[0], dtype=torch.int32, device=image.device)
        masks |= {"empty": empty, "C": c, "WIDE": _wide(image)}
        planes = next(n for n in range(MEAN_PLANES, 0, -1) if c % n == 0)
        grid, tiles = _mean_tiles(b * s * c // planes, shape[2], s * shape[3])
        kernels.hide_mean[grid](**masks, **tiles, PLANES=planes, CHANNELS=_power(planes, 1))
        across = min(_power(shape[3], 64), ALL_COLUMNS)
        parts = min(_power(shape[2] // 8, 1), ALL_PARTS)
        kernels.hide_mean_of_all[(shape[0] * parts,)](
            **masks, PARTS=parts, BX=across, CHANNELS=_power(c, 1)
        )
    return out


def merge_up(
    outputs: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    label: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    height: int,
    width: int,
) -> Tensor:
    """Return the images that K branches make together."""
    branches, n, c = outputs.shape[:3]
    b = n // place[0] ** 2
    out = outputs.new_empty((b, c, height, width))
    if not out.numel():
        return out
    masks = _masks(out, sample, draw, label, plan, place, 0) | {"K": branches}
    del masks["OTHERS"], masks["RADIUS"]
    masks |= _strides("outputs_k outputs_n outputs_c outputs_h outputs_w", outputs)
    masks |= _strides("out_b out_c out_h out_w", out)
    grid, tiles = _tiles(b, height, width)
    with _device(outputs):
        _kernels("merge").merge[grid](outputs=outputs, out=out, C=c, **masks, **tiles)
    return out


def replace(
    noisy: Tensor,
    denoised: Tensor,
    sample: Tensor | None,
    bad: Tensor | None,
    states: Sequence[int],
    turns: Sequence[int],
    threshold: int,
    place: Sequence[int],
) -> Tensor:
    """Return the denoised images with noisy pixels put back, one copy a state."""
    b, c, height, width = noisy.shape
    out = noisy.new_empty((len(states) * b, c, height, width))
    if not out.numel():
        return out
    grid, tiles = _tiles(b, height, width)
    masks = _masks(noisy, sample, None, None, MaskPlan(0, 0, 0), place, 0)
    masks = {name: masks[name] for name in ("sample", "first", "top", "left", "HAS_SAMPLE")}
    masks |= {"noisy": noisy, "denoised": denoised, "C": c, "threshold": threshold, "H": height}
    masks |= {"bad": _bytes(noisy, bad), "HAS_BAD": bad is not None, "W": width}
    masks |= _strides("bad_b _ bad_h bad_w", bad)
    masks |= _strides("noisy_b noisy_c noisy_h noisy_w", noisy)
    masks |= _strides("denoised_b denoised_c denoised_h denoised_w", denoised)
    masks |= _strides("out_b out_c out_h out_w", out)
    with _device(noisy):
        for copy, state, turn in zip(torch.split(out, b), states, turns, strict=True):
            masks |= {"out": copy, "state": _signed(state), "turn": _signed(turn)}
            _kernels("merge").replace[grid](**masks, **tiles)
    return out


def masked_distance(
    output: Tensor,
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    squared: bool,
) -> tuple[Tensor, Tensor]:
    """Return the mean distance over scored pixels and channels, and one over their number."""
    b, c = image.shape[:2]
    wide = torch.promote_types(torch.promote_types(output.dtype, image.dtype), torch.float32)
    grid, tiles = _tiles(b if c else 0, place[0] * output.shape[2], place[0] * output.shape[3])
    totals = torch.empty(grid, dtype=wide, device=image.device)
    counts = torch.empty(grid, dtype=torch.int32, device=image.device)
    with _device(image):
        if grid[0]:
            _kernels("losses").distance[grid](
                **_distance(output, image, sample, draw, mask, plan, place, branch, squared),
                **tiles,
                totals=totals,
                counts=counts,
            )
        return _finish(totals, counts, each=c)


def masked_distance_backward(
    grad: Tensor,
    scale: Tensor,
    output: Tensor,
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    squared: bool,
) -> Tensor:
    """Return the gradient to the output, in its memory layout."""
    grad_input = torch.empty_like(output)
    if grad_input.numel():
        height, width = place[0] * output.shape[2], place[0] * output.shape[3]
        grid, tiles = _tiles(len(image), height, width)
        with _device(image):
            _kernels("losses").distance_backward[grid](
                **_distance(output, image, sample, draw, mask, plan, place, branch, squared),
                **_strides("back_n back_c back_h back_w", grad_input),
                **tiles,
                grad_input=grad_input,
                grad=grad,
                scale=scale,
            )
    return grad_input


def smoothness(image: Tensor, epsilon: float) -> Tensor:
    """Return the mean length of the gradient."""
    (b, c, height, width), numel = image.shape, image.numel()
    grid, tiles = _tiles(b * c, height, width)
    totals = torch.empty(grid, dtype=torch.float32, device=image.device)
    with _device(image):
        if numel:
            _kernels("losses").smoothness[grid](
                image=image,
                totals=totals,
                epsilon=epsilon,
                squared_epsilon=epsilon**2,
                C=c,
                H=height,
                W=width,
                **_strides("image_b image_c image_h image_w", image),
                **tiles,
            )
        return _finish(totals, None, number=numel)[0]


def smoothness_backward(grad: Tensor, image: Tensor, epsilon: float) -> Tensor:
    """Return the gradient of `smoothness` to the image, in its memory layout."""
    grad_input = torch.empty_like(image)
    b, c, height, width = image.shape
    grid, tiles = _tiles(b * c, height, width)
    if grad_input.numel():
        with _device(image):
            _kernels("losses").smoothness_backward[grid](
                image=image,
                grad_input=grad_input,
                grad=grad,
                squared_epsilon=epsilon**2,
                scale=1 / image.numel(),
                C=c,
                H=height,
                W=width,
                **_strides("image_b image_c image_h image_w", image),
                **_strides("back_b back_c back_h back_w", grad_input),
                **tiles,
            )
    return grad_input


def _distance(
    output: Tensor,
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
    squared: bool,
) -> dict[str, Any]:
    """Return the arguments that the kernels of the distance share."""
    return {
        **_masks(image, sample, draw, mask, plan, place, branch),
        **_strides("output_n output_c output_h output_w", output),
        **_strides("image_b image_c image_h image_w", image),
        "output": output,
        "image": image,
        "C": image.shape[1],
        "SQUARED": squared,
        "WIDE": _wide(output, image),
    }


def _finish(
    totals: Tensor, counts: Tensor | None, *, each: int = 0, number: int = 0
) -> tuple[Tensor, Tensor]:
    mean = torch.empty((), dtype=torch.float32, device=totals.device)
    scale = torch.empty_like(mean)
    _kernels("losses").finish[(1,)](
        totals=totals,
        counts=totals if counts is None else counts,
        mean=mean,
        scale=scale,
        programs=len(totals),
        each=each,
        number=number,
        COUNTED=counts is not None,
        BX=CHUNK,
        num_warps=8,
    )
    return mean, scale


def _masks(
    image: Tensor,
    sample: Tensor | None,
    draw: Tensor | None,
    mask: Tensor | None,
    plan: Sequence[int],
    place: Sequence[int],
    branch: int,
) -> dict[str, Any]:
    """Return what every kernel must know of the mask; `image` stands in for absent tensors."""
    spec, where = MaskPlan(*plan), Origin(*place)
    return {
        "map": _bytes(image, mask),
        "sample": image if sample is None else sample.contiguous(),
        "draw": image if draw is None else draw,
        "state": _signed(spec.state),
        "branch": branch,
        "first": where.sample,
        "top": where.row,
        "left": where.col,
        "H": image.shape[2],
        "W": image.shape[3],
        **_strides("map_n _ map_h map_w", mask),
        "KIND": spec.kind if mask is None else 0,
        "K": spec.branches,
        "OTHERS": bool(spec.others),
        "SIZE": spec.size,
        "RADIUS": spec.radius,
        "S": where.stride,
        "HAS_DRAW": draw is not None,
        "HAS_SAMPLE": sample is not None,
    }


def _strides(names: str, x: Tensor | None) -> dict[str, int]:
    steps = x.stride() if x is not None else (0,) * len(names.split())
    return {name: step for name, step in zip(names.split(), steps, strict=True) if name != "_"}


def _mean_tiles(count: int, height: int, width: int) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid of `hide_mean` and its tiles: rows of one phase, columns of the image.

    Args:
        count: of images, phases and groups of channels.
        height: in rows of a sub-image.
        width: in columns of the image, the sub-images side by side.
    """
    tiles_x = -(-width // MEAN_COLUMNS)
    down = min(_power(height, 1), MEAN_ROWS)
    while down > 4 and count * -(-height // down) * tiles_x < MEAN_PROGRAMS:
        down //= 2
    tiles_y = -(-height // down)
    tiles = {"tiles_y": tiles_y, "tiles_x": tiles_x, "BY": down, "BX": MEAN_COLUMNS}
    return (count * tiles_y * tiles_x,), tiles | {"num_warps": 1}


def _tiles(planes: int, height: int, width: int) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid and the arguments of kernels that cut planes into tiles."""
    across = min(_power(width, 32), PIXELS)
    down = PIXELS // across
    tiles_y, tiles_x = -(-height // down), -(-width // across)
    shape = {"tiles_y": tiles_y, "tiles_x": tiles_x, "BY": down, "BX": across}
    return (planes * tiles_y * tiles_x,), shape


def _power(number: int, least: int) -> int:
    """Return the power of two that is neither under the number nor under `least`."""
    return max(1 << max(number - 1, 0).bit_length(), least)


def _bytes(image: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return image
    return mask.view(torch.uint8) if mask.dtype == torch.bool else mask


def _signed(word: int) -> int:
    """Return a 32-bit word as a signed number, so that all words have one type in a kernel."""
    return word - 2**32 if word >= 2**31 else word


def _wide(*images: Tensor) -> Any:
    """Return the type in which a kernel adds up: float32, or float64 for float64."""
    language = import_module("triton.language")
    double = any(image.dtype == torch.float64 for image in images)
    return language.float64 if double else language.float32


def _kernels(file: str) -> Any:
    """Return the module of some kernels; triton is imported here, and nowhere before."""
    return import_module(f".triton_{file}", __package__)


def _device(x: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()

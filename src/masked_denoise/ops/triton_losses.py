"""Triton kernels of the losses: sums of each program, their mean, and gradients."""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from .triton_masks import DRAWN, draw_start, is_picked, sub_offset, tile_of


@triton.jit(do_not_specialize=DRAWN)
def distance(
    output, image, totals, counts, map, sample, draw,
    state, branch, first, top, left, C, H, W, tiles_y, tiles_x,
    output_n, output_c, output_h, output_w, image_b, image_c, image_h, image_w,
    map_n, map_h, map_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    SQUARED: tl.constexpr, WIDE: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """One sum and one number of scored pixels a program; `finish` adds them up."""
    b, y, x = tile_of(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, chosen = draw_start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    scored = is_picked(
        y, x, here, start, chosen, top, left, map + number * (S * S) * map_n, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, True,
    )  # fmt: skip
    ours = output + number * (S * S) * output_n + sub_offset(y, x, output_n, output_h, output_w, S)
    theirs = image + number * image_b + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
    total = tl.zeros((BY, BX), WIDE)
    for _ in range(C):
        error = tl.load(ours, mask=here, other=0).to(WIDE)
        error = tl.where(scored, error - tl.load(theirs, mask=here, other=0).to(WIDE), 0.0)
        total += error * error if SQUARED else tl.abs(error)
        ours += output_c
        theirs += image_c
    program = tl.program_id(0)
    tl.store(totals + program, tl.sum(tl.sum(total, axis=1), axis=0))
    tl.store(counts + program, tl.sum(tl.sum(scored.to(tl.int32), axis=1), axis=0))


@triton.jit
def finish(
    totals, counts, mean, scale, programs, each, number, COUNTED: tl.constexpr, BX: tl.constexpr
):
    """Write the mean, and one over the number of values, from the sums of all programs."""
    total = tl.zeros((BX,), tl.float64)
    count = tl.zeros((BX,), tl.int64)
    for first in range(0, programs, BX):
        place = first + tl.arange(0, BX)
        total += tl.load(totals + place, mask=place < programs, other=0).to(tl.float64)
        if COUNTED:
            count += tl.load(counts + place, mask=place < programs, other=0).to(tl.int64)
    values = tl.sum(count, axis=0) * each + number
    values = tl.maximum(values, 1).to(tl.float64)
    tl.store(mean, (tl.sum(total, axis=0) / values).to(tl.float32))
    tl.store(scale, (1.0 / values).to(tl.float32))


@triton.jit(do_not_specialize=DRAWN)
def distance_backward(
    output, image, grad_input, grad, scale, map, sample, draw,
    state, branch, first, top, left, C, H, W, tiles_y, tiles_x,
    output_n, output_c, output_h, output_w, image_b, image_c, image_h, image_w,
    back_n, back_c, back_h, back_w, map_n, map_h, map_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    SQUARED: tl.constexpr, WIDE: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """The gradient of the mean to the output; 0 where nothing is scored."""
    b, y, x = tile_of(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, chosen = draw_start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    scored = is_picked(
        y, x, here, start, chosen, top, left, map + number * (S * S) * map_n, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, True,
    )  # fmt: skip
    ours = output + number * (S * S) * output_n + sub_offset(y, x, output_n, output_h, output_w, S)
    theirs = image + number * image_b + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
    target = grad_input + number * (S * S) * back_n + sub_offset(y, x, back_n, back_h, back_w, S)
    inside = (y < (H + S - 1) // S * S) & (x < (W + S - 1) // S * S)
    factor = tl.load(grad).to(WIDE) * tl.load(scale).to(WIDE)
    for _ in range(C):
        error = tl.load(ours, mask=here, other=0).to(WIDE)
        error = tl.where(scored, error - tl.load(theirs, mask=here, other=0).to(WIDE), 0.0)
        if SQUARED:
            step = 2 * error * factor
        else:
            step = tl.where(error > 0, factor, tl.where(error < 0, -factor, error * 0))
        tl.store(target, step.to(grad_input.dtype.element_ty), mask=inside)
        ours += output_c
        theirs += image_c
        target += back_c


@triton.jit
def _slopes(plane, y, x, H, W, image_h, image_w, squared_epsilon):
    """Return forward differences down and across, and the length of the gradient, in float32."""
    here = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    place = plane + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
    value = tl.load(place, mask=here, other=0).to(tl.float32)
    below = tl.load(place + image_h, mask=here & (y + 1 < H), other=0).to(tl.float32)
    right = tl.load(place + image_w, mask=here & (x + 1 < W), other=0).to(tl.float32)
    dy = tl.where(here & (y + 1 < H), below - value, 0.0)
    dx = tl.where(here & (x + 1 < W), right - value, 0.0)
    return dy, dx, tl.sqrt_rn(dy * dy + dx * dx + squared_epsilon)


@triton.jit
def smoothness(
    image, totals, epsilon, squared_epsilon, C, H, W, tiles_y, tiles_x,
    image_b, image_c, image_h, image_w, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """One sum of gradient lengths a program; `finish` adds them up."""
    number, y, x = tile_of(tiles_y, tiles_x, BY, BX)
    number = number.to(tl.int64)
    plane = image + number // C * image_b + number % C * image_c
    _, _, length = _slopes(plane, y, x, H, W, image_h, image_w, squared_epsilon)
    length = tl.where((y < H) & (x < W), length - epsilon, 0.0)
    tl.store(totals + tl.program_id(0), tl.sum(tl.sum(length, axis=1), axis=0))


@triton.jit
def smoothness_backward(
    image, grad_input, grad, squared_epsilon, scale, C, H, W, tiles_y, tiles_x,
    image_b, image_c, image_h, image_w, back_b, back_c, back_h, back_w,
    BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """The gradient: a pixel enters its own length, and those of the pixels above and left."""
    number, y, x = tile_of(tiles_y, tiles_x, BY, BX)
    number = number.to(tl.int64)
    plane = image + number // C * image_b + number % C * image_c
    dy, dx, length = _slopes(plane, y, x, H, W, image_h, image_w, squared_epsilon)
    step = -(dy + dx) / length
    dy, dx, length = _slopes(plane, y - 1, x, H, W, image_h, image_w, squared_epsilon)
    step += dy / length
    dy, dx, length = _slopes(plane, y, x - 1, H, W, image_h, image_w, squared_epsilon)
    step += dx / length
    step *= tl.load(grad).to(tl.float32) * scale
    target = grad_input + number // C * back_b + number % C * back_c
    target = target + y.to(tl.int64) * back_h + x.to(tl.int64) * back_w
    tl.store(target, step.to(grad_input.dtype.element_ty), mask=(y < H) & (x < W))

"""Triton kernels of hide-and-downsample: a value, or the mean of visible neighbours."""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from .triton_masks import DRAWN, draw_start, is_bad, is_picked, sub_offset, tile_of


@triton.jit(do_not_specialize=[*DRAWN, "value"])
def hide(
    image, out, map, bad, sample, draw,
    state, branch, first, top, left, value, C, H, W, tiles_y, tiles_x,
    image_b, image_c, image_h, image_w, out_n, out_c, out_h, out_w,
    map_n, map_h, map_w, bad_b, bad_h, bad_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    HAS_BAD: tl.constexpr, SCORED: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """Sub-images with one value at hidden pixels (or, where SCORED, at those not scored).

    `value` holds the bits of a double, so that no digit is lost on the way.
    """
    b, y, x = tile_of(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, chosen = draw_start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    picked = is_picked(
        y, x, here, start, chosen, top, left, map + number * (S * S) * map_n, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, SCORED,
    )  # fmt: skip
    keep = picked if SCORED else here & ~picked
    if HAS_BAD:
        keep = keep & ~is_bad(y, x, here, bad + number * bad_b, bad_h, bad_w)
    inside = (y < (H + S - 1) // S * S) & (x < (W + S - 1) // S * S)
    source = image + number * image_b + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
    target = out + number * (S * S) * out_n + sub_offset(y, x, out_n, out_h, out_w, S)
    other = value.to(tl.int64).to(tl.float64, bitcast=True)
    other = other.to(tl.float32) if image.dtype.element_ty != tl.float64 else other
    other = other.to(image.dtype.element_ty)
    for _ in range(C):  # the load knows nothing of the mask, so that it takes four pixels at once
        tl.store(target, tl.where(keep, tl.load(source, mask=here, other=0), other), mask=inside)
        source += image_c
        target += out_c


@triton.jit
def _visible(
    y, x, start, branch, top, left, map, bad, H, W, map_n, map_h, map_w, bad_h, bad_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_BAD: tl.constexpr,
):  # fmt: skip
    """Return whether pixels are in the image, and whether the branch sees them there."""
    here = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    visible = here & ~is_picked(
        y, x, here, start, branch, top, left, map, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, False,
    )  # fmt: skip
    if HAS_BAD:
        visible = visible & ~is_bad(y, x, here, bad, bad_h, bad_w)
    return here, visible


@triton.jit(do_not_specialize=DRAWN)
def hide_mean(
    image, out, map, bad, sample, draw, empty,
    state, branch, first, top, left, C, H, W, tiles_y, tiles_x,
    image_b, image_c, image_h, image_w, out_n, out_c, out_h, out_w,
    map_n, map_h, map_w, bad_b, bad_h, bad_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    HAS_BAD: tl.constexpr, WIDE: tl.constexpr, CHANNELS: tl.constexpr, PLANES: tl.constexpr,
    BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """Sub-images whose hidden pixels show the mean of the visible ones around them.

    A program takes BY rows of one phase and PLANES of the C channels. It goes down the rows, draws
    the mask of each pixel and of those left and right of it once for all planes, and keeps the sums
    of three rows. A pixel that sees none in its 3 x 3 is rare: it is noted, a bit a row, and gets
    its 7 x 7 read for itself in the end. Where there is none either, the sub-image is marked in
    `empty`, and `hide_mean_of_all` comes after.
    """
    number = tl.program_id(0)
    # One pixel a thread in turn, for loads and stores: wide loads would need a shuffle of the rest.
    x = number % tiles_x * BX + tl.max_contiguous(tl.arange(0, BX), 1)[None, :]
    number = number // tiles_x
    row = number % tiles_y * BY + tl.zeros((1, 1), tl.int32)
    number = number // tiles_y
    phase = number % S
    number = number // S
    plane = (number % (C // PLANES) * PLANES).to(tl.int64)
    b = number // (C // PLANES)
    start, chosen = draw_start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    b = b.to(tl.int64)
    image += b * image_b + plane * image_c
    out += b * (S * S) * out_n + plane * out_c
    map += b * (S * S) * map_n
    bad += b * bad_b
    empty += b * (S * S)
    height = (H + S - 1) // S * S
    width = (W + S - 1) // S * S
    across = tl.cast(S, tl.int64) * image_w
    above = (tl.zeros((1, BX), WIDE),) * PLANES
    middle = above
    center = above
    above_count = tl.zeros((1, BX), tl.int32)
    middle_count = above_count
    seen_before = above_count
    lonely = above_count
    for step in range(BY + 2):
        y = (row + step - 1) * S + phase
        _, west = _visible(
            y, x - S, start, chosen, top, left, map, bad, H, W, map_n, map_h, map_w, bad_h, bad_w,
            KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD,
        )  # fmt: skip
        _, seen = _visible(
            y, x, start, chosen, top, left, map, bad, H, W, map_n, map_h, map_w, bad_h, bad_w,
            KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD,
        )  # fmt: skip
        _, east = _visible(
            y, x + S, start, chosen, top, left, map, bad, H, W, map_n, map_h, map_w, bad_h, bad_w,
            KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD,
        )  # fmt: skip
        below_count = west.to(tl.int32) + seen.to(tl.int32) + east.to(tl.int32)
        count = above_count + middle_count + below_count
        share = 1.0 / tl.maximum(count, 1).to(WIDE)
        # The row in the middle is the one that is written.
        inside = (step >= 2) & (y < height + S) & (x < width)
        lonely |= (inside & (count == 0)).to(tl.int32) << tl.maximum(step - 1, 0)
        source = image + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
        target = out + sub_offset(y - S, x, out_n, out_h, out_w, S)
        sums = ()
        values = ()
        for c in tl.static_range(PLANES):
            here = tl.load(source, mask=seen, other=0).to(WIDE)
            below = here + tl.load(source - across, mask=west, other=0).to(WIDE)
            below += tl.load(source + across, mask=east, other=0).to(WIDE)
            mean = (above[c] + middle[c] + below) * share
            colour = tl.where(seen_before != 0, center[c], mean)
            tl.store(target, colour.to(out.dtype.element_ty), mask=inside & (count > 0))
            sums = sums + (below,)  # noqa: RUF005 (Triton unpacks no tuples)
            values = values + (here,)  # noqa: RUF005
            source += image_c
            target += out_c
        above = middle
        middle = sums
        center = values
        above_count = middle_count
        middle_count = below_count
        seen_before = seen.to(tl.int32)
    channel = tl.arange(0, CHANNELS)[:, None]
    while tl.max(tl.max(lonely, axis=1), axis=0) != 0:
        column = tl.min(tl.min(tl.where(lonely != 0, x, width), axis=1), axis=0)
        rows = tl.max(tl.max(tl.where(x == column, lonely, 0), axis=1), axis=0)
        lowest = rows & -rows
        step = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127  # its logarithm
        _fill_lonely(
            image, out, empty, (row + step - 1) * S + phase, column, channel, start, chosen,
            top, left, map, bad, PLANES, H, W, image_c, image_h, image_w, out_n, out_c, out_h,
            out_w, map_n, map_h, map_w, bad_h, bad_w,
            KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD, WIDE,
        )  # fmt: skip
        lonely = tl.where(x == column, lonely ^ lowest, lonely)


@triton.jit
def _fill_lonely(
    image, out, empty, y, x, channel, start, branch, top, left, map, bad, C, H, W,
    image_c, image_h, image_w, out_n, out_c, out_h, out_w, map_n, map_h, map_w, bad_h, bad_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_BAD: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write one pixel: the mean of the visible ones in its 5 x 5, else in its 7 x 7, else 0."""
    tap = tl.arange(0, 64)[None, :]
    dy = tap // 7 - 3
    dx = tap % 7 - 3
    _, seen = _visible(
        y + dy * S, x + dx * S, start, branch, top, left, map, bad, H, W,
        map_n, map_h, map_w, bad_h, bad_w, KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD,
    )  # fmt: skip
    seen = seen & (tap < 49)
    near = seen & (tl.abs(dy) < 3) & (tl.abs(dx) < 3)
    use = near | (seen & (tl.sum(near.to(tl.int32), axis=1)[:, None] == 0))
    count = tl.sum(use.to(tl.int32), axis=1)[:, None]
    source = image + (y + dy * S).to(tl.int64) * image_h + (x + dx * S).to(tl.int64) * image_w
    source = source + channel.to(tl.int64) * image_c
    colour = tl.load(source, mask=use & (channel < C), other=0).to(WIDE)
    total = tl.sum(colour, axis=1)[:, None]
    mean = total / tl.maximum(count, 1).to(WIDE)
    target = out + sub_offset(y, x, out_n, out_h, out_w, S) + channel.to(tl.int64) * out_c
    tl.store(target, mean.to(out.dtype.element_ty), mask=channel < C)
    tl.store(empty + (y % S * S + x % S), 1, mask=count == 0)


@triton.jit(do_not_specialize=DRAWN)
def hide_mean_of_all(
    image, out, map, bad, sample, draw, empty,
    state, branch, first, top, left, C, H, W,
    image_b, image_c, image_h, image_w, out_n, out_c, out_h, out_w,
    map_n, map_h, map_w, bad_b, bad_h, bad_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    HAS_BAD: tl.constexpr, WIDE: tl.constexpr, CHANNELS: tl.constexpr,
    PARTS: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """Where a sub-image is marked: its mean at the pixels that see nothing in their 7 x 7.

    PARTS programs share a sub-image; each takes the mean by itself, in the same order.
    """
    part = tl.program_id(0) % PARTS
    n = tl.program_id(0) // PARTS
    if tl.load(empty + n) != 0:
        b = n // (S * S)
        start, chosen = draw_start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
        b = b.to(tl.int64)
        image += b * image_b
        out += b * (S * S) * out_n
        map += b * (S * S) * map_n
        bad += b * bad_b
        rows = n % (S * S) // S
        columns = n % S
        height = (H + S - 1) // S
        width = (W + S - 1) // S
        tiles = (width + BX - 1) // BX
        channel = tl.arange(0, CHANNELS)[:, None]
        total = tl.zeros((CHANNELS, BX), WIDE)
        count = tl.zeros((1, BX), tl.int64)
        for tile in range(height * tiles):
            y = tile // tiles * S + rows + tl.zeros((1, 1), tl.int32)
            x = (tile % tiles * BX + tl.arange(0, BX)[None, :]) * S + columns
            _, seen = _visible(
                y, x, start, chosen, top, left, map, bad, H, W, map_n, map_h, map_w, bad_h, bad_w,
                KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD,
            )  # fmt: skip
            source = image + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
            source = source + channel.to(tl.int64) * image_c
            total += tl.load(source, mask=seen & (channel < C), other=0).to(WIDE)
            count += seen.to(tl.int64)
        number = tl.maximum(tl.sum(tl.sum(count, axis=1), axis=0), 1)
        mean = (tl.sum(total, axis=1)[:, None] / number.to(WIDE)).to(out.dtype.element_ty)
        for tile in range(part, height * tiles, PARTS):
            y = tile // tiles * S + rows + tl.zeros((1, 1), tl.int32)
            x = (tile % tiles * BX + tl.arange(0, BX)[None, :]) * S + columns
            around = tl.zeros((1, BX), tl.int32)
            for tap in range(49):
                _, seen = _visible(
                    y + (tap // 7 - 3) * S, x + (tap % 7 - 3) * S, start, chosen, top, left,
                    map, bad, H, W, map_n, map_h, map_w, bad_h, bad_w,
                    KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD,
                )  # fmt: skip
                around += seen.to(tl.int32)
            target = out + sub_offset(y, x, out_n, out_h, out_w, S) + channel.to(tl.int64) * out_c
            lonely = (around == 0) & (x < width * S)
            tl.store(target, mean, mask=lonely & (channel < C))

"""The masking operators as Triton kernels; `launch` calls them, `reference` defines them.

Import this module only where triton is installed. A program works on a tile of the image at full
resolution, whose pixels lie side by side in memory, and computes for each of them the sub-image it
belongs to: the image is read once, and both sides of every copy are contiguous runs. Masks are
computed from coordinates; a mask that a user's scheme made is read, one byte a pixel.

Names: y, x are places in the image, S is the stride; a pixel is at (y // S, x // S) of sub-image
y % S * S + x % S. Capital letters are compile-time constants. Offsets are 64 bits wide; the places
of a tile's pixels are not, since no side of an image is longer than 2**31.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .plan import Kind

MAP = tl.constexpr(Kind.MAP)
NOTHING = tl.constexpr(Kind.NOTHING)
COIN = tl.constexpr(Kind.COIN)
GROUPS = tl.constexpr(Kind.GROUPS)
BOARD = tl.constexpr(Kind.BOARD)
LATTICE = tl.constexpr(Kind.LATTICE)
SPARSE = tl.constexpr(Kind.SPARSE)
DRAWN = ["state", "branch", "first", "top", "left"]  # change from call to call: one kernel for all


# -- masks ----------------------------------------------------------------------------------------


@triton.jit
def _mix(word):
    word = word ^ (word >> 16)
    word = word * 0x21F0AAAD
    word = word ^ (word >> 15)
    word = word * 0x735A2D97
    return word ^ (word >> 15)


@triton.jit
def _word(start, row, col):
    """Return 32 random bits (uint32) of a pixel; all arithmetic wraps around at 32 bits."""
    word = _mix((start + row) ^ 0x68E31DA4)
    return _mix((word + col) ^ 0x35294E57)


@triton.jit
def _start(draw, sample, state, branch, first, b, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr):
    """Return the hash of key and image, and the branch."""
    number = first.to(tl.int64) + b
    if HAS_SAMPLE:
        number = tl.load(sample + b)
    if HAS_DRAW:
        word = tl.load(draw).to(tl.uint32)
        chosen = tl.load(draw + 1).to(tl.int32)
    else:
        word = state.to(tl.uint32)
        chosen = branch.to(tl.int32)
    high = _mix((number >> 32).to(tl.uint32))
    return _mix(number.to(tl.uint32) ^ high ^ word), chosen


@triton.jit
def _at(y, x, stride_n, stride_h, stride_w, S: tl.constexpr):
    """Return the offset of a pixel among the sub-images of its image."""
    down = (y % S * S).to(tl.int64) * stride_n + (y // S).to(tl.int64) * stride_h
    across = (x % S).to(tl.int64) * stride_n + (x // S).to(tl.int64) * stride_w
    return down + across


@triton.jit
def _label(
    y, x, start, top, left,
    KIND: tl.constexpr, K: tl.constexpr, SIZE: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Return the branch (int32) that scores each pixel."""
    row = (y + top).to(tl.uint32)
    col = (x + left).to(tl.uint32)
    if KIND == COIN:
        label = ((_word(start, row, col >> 5) >> (col & 31)) & 1).to(tl.int32)
    elif KIND == GROUPS:
        label = ((_word(start, row, col).to(tl.uint64) * K) >> 32).to(tl.int32)
    elif KIND == BOARD:
        first = _word(start, (y % S).to(tl.uint32), (x % S).to(tl.uint32)).to(tl.int32)
        label = ((y + top) // S + (x + left) // S + first) & 1
    elif KIND == LATTICE:
        label = (y + top) // S % SIZE * SIZE + (x + left) // S % SIZE
    elif KIND == SPARSE:
        label = tl.where(_word(start, row, col).to(tl.int64) < SIZE, 0, 255)
    else:
        label = y * 0 + x * 0
    return label


@triton.jit
def _picked(
    y, x, here, start, branch, top, left, map, map_n, map_h, map_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, SCORED: tl.constexpr,
):  # fmt: skip
    """Return True where the branch scores the pixel, or, unless SCORED, cannot see it."""
    if KIND == MAP:
        picked = tl.load(map + _at(y, x, map_n, map_h, map_w, S), mask=here, other=0) != 0
    else:
        label = _label(y, x, start, top, left, KIND, K, SIZE, S)
        if SCORED:
            picked = label == branch
        elif KIND == NOTHING:
            picked = label != label
        elif OTHERS:
            picked = label != (branch + 1) % K
        elif RADIUS > 0:
            dy = tl.abs(label // SIZE - branch // SIZE)
            dx = tl.abs(label % SIZE - branch % SIZE)
            picked = tl.minimum(dy, SIZE - dy) + tl.minimum(dx, SIZE - dx) <= RADIUS
        else:
            picked = label == branch
    return picked & here


@triton.jit
def _bad(y, x, here, bad, bad_h, bad_w):
    """Return True for pixels without a value."""
    return tl.load(bad + y.to(tl.int64) * bad_h + x.to(tl.int64) * bad_w, mask=here, other=0) != 0


@triton.jit
def _tile(tiles_y, tiles_x, BY: tl.constexpr, BX: tl.constexpr):
    """Return number of the image, rows (BY, 1) and columns (1, BX) of this program's tile."""
    number = tl.program_id(0)
    row = number // tiles_x
    y = row % tiles_y * BY + tl.arange(0, BY)[:, None]
    x = number % tiles_x * BX + tl.arange(0, BX)[None, :]
    return row // tiles_y, y, x


# -- hide and downsample --------------------------------------------------------------------------


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
    b, y, x = _tile(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, chosen = _start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    picked = _picked(
        y, x, here, start, chosen, top, left, map + number * (S * S) * map_n, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, SCORED,
    )  # fmt: skip
    keep = picked if SCORED else here & ~picked
    if HAS_BAD:
        keep = keep & ~_bad(y, x, here, bad + number * bad_b, bad_h, bad_w)
    inside = (y < (H + S - 1) // S * S) & (x < (W + S - 1) // S * S)
    source = image + number * image_b + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
    target = out + number * (S * S) * out_n + _at(y, x, out_n, out_h, out_w, S)
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
    visible = here & ~_picked(
        y, x, here, start, branch, top, left, map, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, False,
    )  # fmt: skip
    if HAS_BAD:
        visible = visible & ~_bad(y, x, here, bad, bad_h, bad_w)
    return here, visible


@triton.jit
def _three(plane, y, x, image_h, image_w, H, W, S: tl.constexpr):
    """Return the pixels left of, at and right of (y, x) in the sub-image; 0 outside the image."""
    here = (y >= 0) & (y < H)
    place = plane + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
    step = tl.cast(S, tl.int64) * image_w
    left = tl.load(place - step, mask=here & (x >= S) & (x < W + S), other=0)
    right = tl.load(place + step, mask=here & (x + S < W), other=0)
    return left, tl.load(place, mask=here & (x < W), other=0), right


@triton.jit(do_not_specialize=DRAWN)
def hide_mean(
    image, out, map, bad, sample, draw, empty,
    state, branch, first, top, left, C, H, W, tiles_y, tiles_x,
    image_b, image_c, image_h, image_w, out_n, out_c, out_h, out_w,
    map_n, map_h, map_w, bad_b, bad_h, bad_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    HAS_BAD: tl.constexpr, WIDE: tl.constexpr, CHANNELS: tl.constexpr,
    BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """Sub-images whose hidden pixels show the mean of the visible ones around them.

    A program takes BY rows of one phase. First it draws the mask: of every column, and of those
    left and right of it, one bit a row. Then it goes down the rows, plane by plane, and keeps the
    sums of three of them. A pixel that sees none in its 3 x 3 is rare: each gets its 7 x 7 read for
    itself. Where there is none either, the sub-image is marked in `empty`, and `hide_mean_of_all`
    comes after.
    """
    number = tl.program_id(0)
    # One pixel a thread in turn, for loads and stores: wide loads would need a shuffle of the rest.
    x = number % tiles_x * BX + tl.max_contiguous(tl.arange(0, BX), 1)[None, :]
    number = number // tiles_x
    row = number % tiles_y * BY + tl.zeros((1, 1), tl.int32)
    phase = number // tiles_y % S
    b = number // tiles_y // S
    start, chosen = _start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    b = b.to(tl.int64)
    image += b * image_b
    out += b * (S * S) * out_n
    map += b * (S * S) * map_n
    bad += b * bad_b
    empty += b * (S * S)
    height = (H + S - 1) // S * S
    width = (W + S - 1) // S * S
    west = tl.zeros((1, BX), tl.int32)
    seen = tl.zeros((1, BX), tl.int32)
    east = tl.zeros((1, BX), tl.int32)
    for step in range(BY + 2):
        y = (row + step - 1) * S + phase
        for side in tl.static_range(3):
            _, visible = _visible(
                y, x + (side - 1) * S, start, chosen, top, left, map, bad, H, W,
                map_n, map_h, map_w, bad_h, bad_w,
                KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD,
            )  # fmt: skip
            bit = visible.to(tl.int32) << step
            if side == 0:
                west |= bit
            elif side == 1:
                seen |= bit
            else:
                east |= bit
    around = west | seen | east
    around |= (around << 1) | (around >> 1)  # any in the 3 x 3
    plane = image
    target_plane = out
    for _ in range(C):
        above = tl.zeros((1, BX), WIDE)
        middle = tl.zeros((1, BX), WIDE)
        center = tl.zeros((1, BX), WIDE)
        above_count = tl.zeros((1, BX), tl.int32)
        middle_count = tl.zeros((1, BX), tl.int32)
        y = (row - 1) * S + phase
        left_next, here_next, right_next = _three(plane, y, x, image_h, image_w, H, W, S)
        for step in range(BY + 2):
            left_value = left_next  # the next row is on its way while this one is computed
            here_value = here_next
            right_value = right_next
            y += S
            left_next, here_next, right_next = _three(plane, y, x, image_h, image_w, H, W, S)
            under = tl.where((seen >> step) & 1 != 0, here_value.to(WIDE), 0.0)
            below = under + tl.where((west >> step) & 1 != 0, left_value.to(WIDE), 0.0)
            below += tl.where((east >> step) & 1 != 0, right_value.to(WIDE), 0.0)
            below_count = (west >> step & 1) + (seen >> step & 1) + (east >> step & 1)
            count = above_count + middle_count + below_count
            mean = (above + middle + below) / tl.maximum(count, 1).to(WIDE)
            last = tl.maximum(step - 1, 0)  # the row in the middle is the one that is written
            colour = tl.where((seen >> last) & 1 != 0, center, mean)
            inside = (step >= 2) & (y < height + 2 * S) & (x < width) & ((around >> last) & 1 != 0)
            target = target_plane + _at(y - 2 * S, x, out_n, out_h, out_w, S)
            tl.store(target, colour.to(out.dtype.element_ty), mask=inside)
            above = middle
            middle = below
            center = under
            above_count = middle_count
            middle_count = below_count
        plane += image_c
        target_plane += out_c
    channel = tl.arange(0, CHANNELS)[:, None]
    for step in range(1, BY + 1):
        y = (row + step - 1) * S + phase
        lonely = (y < height) & (x < width) & ((around >> step) & 1 == 0)
        for _ in range(tl.sum(tl.sum(lonely.to(tl.int32), axis=1), axis=0)):
            place = tl.min(tl.min(tl.where(lonely, x, width), axis=1), axis=0)
            _fill_lonely(
                image, out, empty, y, place, channel, start, chosen, top, left, map, bad, C, H, W,
                image_c, image_h, image_w, out_n, out_c, out_h, out_w,
                map_n, map_h, map_w, bad_h, bad_w,
                KIND, K, OTHERS, SIZE, RADIUS, S, HAS_BAD, WIDE,
            )  # fmt: skip
            lonely = lonely & (x != place)


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
    target = out + _at(y, x, out_n, out_h, out_w, S) + channel.to(tl.int64) * out_c
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
        start, chosen = _start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
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
            target = out + _at(y, x, out_n, out_h, out_w, S) + channel.to(tl.int64) * out_c
            lonely = (around == 0) & (x < width * S)
            tl.store(target, mean, mask=lonely & (channel < C))


# -- merge and upsample, replace ------------------------------------------------------------------


@triton.jit(do_not_specialize=DRAWN)
def merge(
    outputs, out, map, sample, draw,
    state, branch, first, top, left, C, H, W, tiles_y, tiles_x,
    outputs_k, outputs_n, outputs_c, outputs_h, outputs_w, out_b, out_c, out_h, out_w,
    map_n, map_h, map_w,
    KIND: tl.constexpr, K: tl.constexpr, SIZE: tl.constexpr, S: tl.constexpr,
    HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """Images whose every pixel comes from the branch that scores it; from the first if none."""
    b, y, x = _tile(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, _ = _start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    if KIND == MAP:
        place = map + number * (S * S) * map_n + _at(y, x, map_n, map_h, map_w, S)
        label = tl.load(place, mask=here, other=0).to(tl.int32)
    else:
        label = _label(y, x, start, top, left, KIND, K, SIZE, S)
    label = tl.where(label < K, label, 0)
    source = outputs + number * (S * S) * outputs_n + label.to(tl.int64) * outputs_k
    source = source + _at(y, x, outputs_n, outputs_h, outputs_w, S)
    target = out + number * out_b + y.to(tl.int64) * out_h + x.to(tl.int64) * out_w
    for _ in range(C):
        tl.store(target, tl.load(source, mask=here), mask=here)
        source += outputs_c
        target += out_c


@triton.jit(do_not_specialize=[*DRAWN, "threshold"])
def replace(
    noisy, denoised, out, bad, sample,
    state, first, top, left, threshold, C, H, W, tiles_y, tiles_x,
    noisy_b, noisy_c, noisy_h, noisy_w, denoised_b, denoised_c, denoised_h, denoised_w,
    out_b, out_c, out_h, out_w, bad_b, bad_h, bad_w,
    HAS_SAMPLE: tl.constexpr, HAS_BAD: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """The denoised images with noisy pixels put back at random."""
    b, y, x = _tile(tiles_y, tiles_x, BY, BX)
    start, _ = _start(noisy, sample, state, state, first, b, False, HAS_SAMPLE)
    b = b.to(tl.int64)
    here = (y < H) & (x < W)
    word = _word(start, (y + top).to(tl.uint32), (x + left).to(tl.uint32)).to(tl.int64)
    back = here & (word < threshold)
    if HAS_BAD:
        back = back & ~_bad(y, x, here, bad + b * bad_b, bad_h, bad_w)
    y = y.to(tl.int64)
    x = x.to(tl.int64)
    noise = noisy + b * noisy_b + y * noisy_h + x * noisy_w
    clean = denoised + b * denoised_b + y * denoised_h + x * denoised_w
    target = out + b * out_b + y * out_h + x * out_w
    for _ in range(C):
        value = tl.where(back, tl.load(noise, mask=here), tl.load(clean, mask=here))
        tl.store(target, value, mask=here)
        noise += noisy_c
        clean += denoised_c
        target += out_c


# -- losses ---------------------------------------------------------------------------------------


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
    b, y, x = _tile(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, chosen = _start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    scored = _picked(
        y, x, here, start, chosen, top, left, map + number * (S * S) * map_n, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, True,
    )  # fmt: skip
    ours = output + number * (S * S) * output_n + _at(y, x, output_n, output_h, output_w, S)
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
    output, image, slope, grad, scale, map, sample, draw,
    state, branch, first, top, left, C, H, W, tiles_y, tiles_x,
    output_n, output_c, output_h, output_w, image_b, image_c, image_h, image_w,
    slope_n, slope_c, slope_h, slope_w, map_n, map_h, map_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr,
    SQUARED: tl.constexpr, WIDE: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """The gradient of the mean to the output; 0 where nothing is scored."""
    b, y, x = _tile(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, chosen = _start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    scored = _picked(
        y, x, here, start, chosen, top, left, map + number * (S * S) * map_n, map_n, map_h, map_w,
        KIND, K, OTHERS, SIZE, RADIUS, S, True,
    )  # fmt: skip
    ours = output + number * (S * S) * output_n + _at(y, x, output_n, output_h, output_w, S)
    theirs = image + number * image_b + y.to(tl.int64) * image_h + x.to(tl.int64) * image_w
    target = slope + number * (S * S) * slope_n + _at(y, x, slope_n, slope_h, slope_w, S)
    inside = (y < (H + S - 1) // S * S) & (x < (W + S - 1) // S * S)
    factor = tl.load(grad).to(WIDE) * tl.load(scale).to(WIDE)
    for _ in range(C):
        error = tl.load(ours, mask=here, other=0).to(WIDE)
        error = tl.where(scored, error - tl.load(theirs, mask=here, other=0).to(WIDE), 0.0)
        if SQUARED:
            step = 2 * error * factor
        else:
            step = tl.where(error > 0, factor, tl.where(error < 0, -factor, error * 0))
        tl.store(target, step.to(slope.dtype.element_ty), mask=inside)
        ours += output_c
        theirs += image_c
        target += slope_c


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
    number, y, x = _tile(tiles_y, tiles_x, BY, BX)
    number = number.to(tl.int64)
    plane = image + number // C * image_b + number % C * image_c
    _, _, length = _slopes(plane, y, x, H, W, image_h, image_w, squared_epsilon)
    length = tl.where((y < H) & (x < W), length - epsilon, 0.0)
    tl.store(totals + tl.program_id(0), tl.sum(tl.sum(length, axis=1), axis=0))


@triton.jit
def smoothness_backward(
    image, slope, grad, squared_epsilon, scale, C, H, W, tiles_y, tiles_x,
    image_b, image_c, image_h, image_w, slope_b, slope_c, slope_h, slope_w,
    BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """The gradient: a pixel enters its own length, and those of the pixels above and left."""
    number, y, x = _tile(tiles_y, tiles_x, BY, BX)
    number = number.to(tl.int64)
    plane = image + number // C * image_b + number % C * image_c
    dy, dx, length = _slopes(plane, y, x, H, W, image_h, image_w, squared_epsilon)
    step = -(dy + dx) / length
    dy, dx, length = _slopes(plane, y - 1, x, H, W, image_h, image_w, squared_epsilon)
    step += dy / length
    dy, dx, length = _slopes(plane, y, x - 1, H, W, image_h, image_w, squared_epsilon)
    step += dx / length
    step *= tl.load(grad).to(tl.float32) * scale
    target = slope + number // C * slope_b + number % C * slope_c
    target = target + y.to(tl.int64) * slope_h + x.to(tl.int64) * slope_w
    tl.store(target, step.to(slope.dtype.element_ty), mask=(y < H) & (x < W))

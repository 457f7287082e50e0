"""What the Triton kernels share: tiles, offsets, and masks computed from coordinates.

Import these modules only where triton is installed; `launch` calls the kernels, `reference` defines
what they compute. A program works on a tile of the image at full resolution, whose pixels lie side
by side in memory, and finds for each of them its place in a sub-image: the image is read once, and
both sides of every copy are contiguous runs. Masks are computed from coordinates; one that a user's
scheme made is read, a byte a pixel.

Names: y, x are places in the image, S is the stride; a pixel is at (y // S, x // S) of sub-image
y % S * S + x % S. Capital letters are compile-time constants. Offsets are 64 bits wide; places are
not, since no side of an image is longer than 2**31.
"""

# mypy: ignore-errors

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


@triton.jit
def mix_word(word):
    """Return 32 well-mixed bits of a 32-bit word; see `hashing.mix`."""
    word = word ^ (word >> 16)
    word = word * 0x21F0AAAD
    word = word ^ (word >> 15)
    word = word * 0x735A2D97
    return word ^ (word >> 15)


@triton.jit
def random_word(start, row, col):
    """Return 32 random bits (uint32) of a pixel; all arithmetic wraps around at 32 bits."""
    word = mix_word((start + row) ^ 0x68E31DA4)
    return mix_word((word + col) ^ 0x35294E57)


@triton.jit
def draw_start(
    draw, sample, state, branch, first, b, HAS_DRAW: tl.constexpr, HAS_SAMPLE: tl.constexpr
):
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
    high = mix_word((number >> 32).to(tl.uint32))
    return mix_word(number.to(tl.uint32) ^ high ^ word), chosen


@triton.jit
def sub_offset(y, x, stride_n, stride_h, stride_w, S: tl.constexpr):
    """Return the offset of a pixel among the sub-images of its image."""
    down = (y % S * S).to(tl.int64) * stride_n + (y // S).to(tl.int64) * stride_h
    across = (x % S).to(tl.int64) * stride_n + (x // S).to(tl.int64) * stride_w
    return down + across


@triton.jit
def label_of(
    y, x, start, top, left,
    KIND: tl.constexpr, K: tl.constexpr, SIZE: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Return the branch (int32) that scores each pixel."""
    row = (y + top).to(tl.uint32)
    col = (x + left).to(tl.uint32)
    if KIND == COIN:
        label = (random_word(start, row, col >> 5) >> (col & 31)).to(tl.int32)
        if SIZE & 1:
            label = label ^ ((y + top) // S)
        if SIZE & 2:
            label = label ^ ((x + left) // S)
        label = label & 1
    elif KIND == GROUPS:
        label = ((random_word(start, row, col).to(tl.uint64) * K) >> 32).to(tl.int32)
    elif KIND == BOARD:
        first = random_word(start, (y % S).to(tl.uint32), (x % S).to(tl.uint32)).to(tl.int32)
        label = ((y + top) // S + (x + left) // S + first) & 1
    elif KIND == LATTICE:
        label = (y + top) // S % SIZE * SIZE + (x + left) // S % SIZE
    elif KIND == SPARSE:
        label = tl.where(random_word(start, row, col).to(tl.int64) < SIZE, 0, 255)
    else:
        label = y * 0 + x * 0
    return label


@triton.jit
def is_picked(
    y, x, here, start, branch, top, left, map, map_n, map_h, map_w,
    KIND: tl.constexpr, K: tl.constexpr, OTHERS: tl.constexpr, SIZE: tl.constexpr,
    RADIUS: tl.constexpr, S: tl.constexpr, SCORED: tl.constexpr,
):  # fmt: skip
    """Return True where the branch scores the pixel, or, unless SCORED, cannot see it."""
    if KIND == MAP:
        picked = tl.load(map + sub_offset(y, x, map_n, map_h, map_w, S), mask=here, other=0) != 0
    else:
        label = label_of(y, x, start, top, left, KIND, K, SIZE, S)
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
def is_bad(y, x, here, bad, bad_h, bad_w):
    """Return True for pixels without a value."""
    return tl.load(bad + y.to(tl.int64) * bad_h + x.to(tl.int64) * bad_w, mask=here, other=0) != 0


@triton.jit
def tile_of(tiles_y, tiles_x, BY: tl.constexpr, BX: tl.constexpr):
    """Return number of the image, rows (BY, 1) and columns (1, BX) of this program's tile."""
    number = tl.program_id(0)
    row = number // tiles_x
    y = row % tiles_y * BY + tl.arange(0, BY)[:, None]
    x = number % tiles_x * BX + tl.arange(0, BX)[None, :]
    return row // tiles_y, y, x

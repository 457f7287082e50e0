"""Triton kernels of merge-and-upsample, and of random replacement."""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from .triton_masks import DRAWN, MAP, draw_start, is_bad, label_of, random_word, sub_offset, tile_of


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
    b, y, x = tile_of(tiles_y, tiles_x, BY, BX)
    number = b.to(tl.int64)
    start, _ = draw_start(draw, sample, state, branch, first, b, HAS_DRAW, HAS_SAMPLE)
    here = (y < H) & (x < W)
    if KIND == MAP:
        place = map + number * (S * S) * map_n + sub_offset(y, x, map_n, map_h, map_w, S)
        label = tl.load(place, mask=here, other=0).to(tl.int32)
    else:
        label = label_of(y, x, start, top, left, KIND, K, SIZE, S)
    label = tl.where(label < K, label, 0)
    source = outputs + number * (S * S) * outputs_n + label.to(tl.int64) * outputs_k
    source = source + sub_offset(y, x, outputs_n, outputs_h, outputs_w, S)
    target = out + number * out_b + y.to(tl.int64) * out_h + x.to(tl.int64) * out_w
    for _ in range(C):
        tl.store(target, tl.load(source, mask=here), mask=here)
        source += outputs_c
        target += out_c


@triton.jit(do_not_specialize=[*DRAWN, "turn", "threshold"])
def replace(
    noisy, denoised, out, bad, sample,
    state, turn, first, top, left, threshold, C, H, W, tiles_y, tiles_x,
    noisy_b, noisy_c, noisy_h, noisy_w, denoised_b, denoised_c, denoised_h, denoised_w,
    out_b, out_c, out_h, out_w, bad_b, bad_h, bad_w,
    HAS_SAMPLE: tl.constexpr, HAS_BAD: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """The denoised images with noisy pixels put back at random."""
    b, y, x = tile_of(tiles_y, tiles_x, BY, BX)
    start, _ = draw_start(noisy, sample, state, state, first, b, False, HAS_SAMPLE)
    b = b.to(tl.int64)
    here = (y < H) & (x < W)
    word = random_word(start, (y + top).to(tl.uint32), (x + left).to(tl.uint32))
    back = here & ((word + turn.to(tl.uint32)).to(tl.int64) < threshold)
    if HAS_BAD:
        back = back & ~is_bad(y, x, here, bad + b * bad_b, bad_h, bad_w)
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

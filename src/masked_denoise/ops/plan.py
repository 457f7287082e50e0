"""What a kernel must know to draw a mask by itself, and the same masks in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..hashing import Key, hash_key, hash_words
from ..pixels import Grid
from ..scheme import (
    NOBODY,
    Checkerboard,
    Lattice,
    MaskScheme,
    Noise2Void,
    NothingHidden,
    RandomPartition,
)


class Kind:
    """Numbers of the masks that a kernel can draw; MAP stands for one that it reads."""

    MAP, NOTHING, COIN, GROUPS, BOARD, LATTICE, SPARSE = range(7)


class MaskPlan(NamedTuple):
    """All that a kernel needs, beside the coordinates of a pixel, to draw the masks of a scheme.

    Attributes:
        kind: one of `Kind`.
        branches: K.
        state: 32 bits, the hash of the key.
        others: 1 where a branch hides every group but one.
        size: period of a lattice; share of chosen pixels, times 2**32, of a sparse mask; of two
            random groups, bit 0 swaps them in every other row, bit 1 in every other column.
        radius: of a lattice.
    """

    kind: int
    branches: int
    state: int
    others: int = 0
    size: int = 0
    radius: int = 0


class Origin(NamedTuple):
    """Where the pixels lie: stride, row and column of the first one, index of the first image."""

    stride: int = 1
    row: int = 0
    col: int = 0
    sample: int = 0


READ = MaskPlan(Kind.MAP, 0, 0)


def plan_of(scheme: MaskScheme, key: Key, *, of_pass: bool = False) -> MaskPlan | None:
    """Return the plan of a built-in scheme at one draw; None for any other class, derived or not.

    >>> plan_of(Lattice(4, radius=1), Key())
    MaskPlan(kind=5, branches=16, state=1059465926, others=0, size=4, radius=1)
    """
    kind, state = type(scheme), hash_key(key)
    if isinstance(scheme, RandomPartition) and kind is RandomPartition:
        others = int(scheme.hide == "others")
        if scheme.branches != 2:
            return MaskPlan(Kind.GROUPS, scheme.branches, state, others=others)
        block, swap = divmod(key.draw, 4) if of_pass else (key.draw, 0)
        state = hash_key(Key(key.seed, key.purpose, block))
        return MaskPlan(Kind.COIN, 2, state, others=others, size=swap)
    if isinstance(scheme, Lattice) and kind is Lattice:
        return MaskPlan(
            Kind.LATTICE, scheme.branches, state, size=scheme.period, radius=scheme.radius
        )
    if isinstance(scheme, Noise2Void) and kind is Noise2Void:
        return MaskPlan(Kind.SPARSE, 1, state, size=int(scheme.share * 2**32))
    if kind is Checkerboard:
        return MaskPlan(Kind.BOARD, 2, state)
    return MaskPlan(Kind.NOTHING, 1, state) if kind is NothingHidden else None


def plan_label(plan: MaskPlan, grid: Grid, state: Tensor | int) -> Tensor:
    """Return uint8 (N, 1, h, w): the branch that scores each pixel, 255 for none.

    The same bits as the scheme's own `label`, in integer tensor operations alone.
    """
    row, col, p = grid.row, grid.col, plan.size
    if plan.kind == Kind.COIN:
        label = hash_words(state, grid.sample, row, col >> 5) >> (col & 31)
        label = (label ^ grid.sub_row * (p & 1) ^ grid.sub_col * (p >> 1)) & 1
    elif plan.kind == Kind.GROUPS:
        label = hash_words(state, grid.sample, row, col) * plan.branches >> 32
    elif plan.kind == Kind.BOARD:
        first = hash_words(
            state, grid.sample, row[:, :, :1] % grid.stride, col[..., :1] % grid.stride
        )
        label = (grid.sub_row + grid.sub_col + first) & 1
    elif plan.kind == Kind.LATTICE:
        label = (grid.sub_row % p * p + grid.sub_col % p).expand(grid.shape)
    elif plan.kind == Kind.SPARSE:
        chosen = hash_words(state, grid.sample, row, col) < p
        label = torch.where(chosen, 0, NOBODY)
    else:
        label = torch.zeros(grid.shape, dtype=torch.uint8, device=grid.device)
    return label.to(torch.uint8)


def plan_hidden(plan: MaskPlan, label: Tensor, branch: Tensor | int) -> Tensor:
    """Return bool (N, 1, h, w): the pixels that the branch cannot see."""
    if plan.kind == Kind.NOTHING:
        return torch.zeros_like(label, dtype=torch.bool)
    if plan.others:
        return label != (branch + 1) % plan.branches
    if plan.kind == Kind.LATTICE:
        p = plan.size
        dy = ((label // p).int() - branch // p).abs()
        dx = ((label % p).int() - branch % p).abs()
        return torch.minimum(dy, p - dy) + torch.minimum(dx, p - dx) <= plan.radius
    return label == branch

"""Masks: the hash is random enough, the same everywhere, and every scheme keeps its promises."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from masked_denoise import (
    AsymmetricMaskDenoiser,
    Checkerboard,
    Lattice,
    MaskScheme,
    Noise2Void,
    NothingHidden,
    PixelDownsample,
    RandomPartition,
)
from masked_denoise.errors import SettingError, UnknownNameError
from masked_denoise.hashing import Key, Purpose, hash_key, hash_pixels, mix
from masked_denoise.pixels import Grid
from masked_denoise.scheme import NOBODY, SCHEMES, create_scheme

SIDE = 512
KEYS = [Key(0, 0, 0), Key(1, 3, 0), Key(-7, 0, 123_456), Key(2**63 + 5, 16, 2**40)]
SCHEME_CASES = [
    *(RandomPartition(k) for k in range(1, 17)),
    *(RandomPartition(k, hide="others") for k in range(2, 9)),
    RandomPartition(255),
    Checkerboard(),
    *(Lattice(period) for period in (2, 3, 4, 15)),
    Lattice(3, radius=1),
    Lattice(4, radius=1),
    Lattice(7, radius=3),
    Noise2Void(),
    Noise2Void(0.5),
    NothingHidden(),
]


def plain_grid(side: int = SIDE, *, sample: int = 0, origin: tuple[int, int] = (0, 0)) -> Grid:
    return PixelDownsample(1).grid(1, (side, side), sample=sample, origin=origin)


def words(key: Key, *, side: int = SIDE, sample: int = 0) -> Tensor:
    return MaskScheme().bits(plain_grid(side, sample=sample), key)[0, 0]


def coins(key: Key, *, side: int = SIDE, sample: int = 0) -> Tensor:
    return MaskScheme().coin(plain_grid(side, sample=sample), key)[0, 0]


def rho(a: Tensor, b: Tensor) -> float:
    """Return the correlation of two arrays, in units of its standard deviation under chance."""
    pair = torch.stack([a.flatten().double(), b.flatten().double()])
    return float(torch.corrcoef(pair)[0, 1]) * math.sqrt(a.numel())


def slow_word(key: Key, sample: int, row: int, col: int) -> int:
    """Return the hash of one pixel in plain Python integers."""
    word_mask = 0xFFFFFFFF

    def scramble(x: int) -> int:
        x ^= x >> 16
        x = x * 0x21F0AAAD & word_mask
        x ^= x >> 15
        x = x * 0x735A2D97 & word_mask
        return x ^ (x >> 15)

    state = 0x9E3779B9
    for number in key:
        state = scramble(state ^ (number & word_mask))
        state = scramble(((state + 0x3C6EF35F) & word_mask) ^ ((number >> 32) & word_mask))
    state ^= (sample & word_mask) ^ scramble(sample >> 32 & word_mask)
    state = scramble(state)
    state = scramble(((state + row) & word_mask) ^ 0x68E31DA4)
    return scramble(((state + col) & word_mask) ^ 0x35294E57)


# -- the hash ---------------------------------------------------------------------------------


def test_masks_never_change_unnoticed() -> None:
    """These numbers are part of the contract: other ones give other masks to every user."""
    assert [mix(n) for n in (0, 1, 2**31, 2**32 - 1)] == [0, 2261973619, 3770504306, 2578835075]
    assert [hash_key(key) for key in KEYS] == [1059465926, 2782978628, 4103000558, 368265475]
    first, other = words(Key(), side=2), words(Key(5, Purpose.INFER, 9), side=2, sample=3)
    assert first.flatten().tolist() == [957578666, 1971495597, 2214080537, 1983436953]
    assert other.flatten().tolist() == [1170176773, 3267243262, 1967075178, 643849008]
    assert coins(Key(), side=16)[0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0]
    label = RandomPartition(3).label(plain_grid(4), Key(1, 2, 3)).flatten()
    assert label.tolist() == [1, 0, 1, 2, 2, 2, 2, 1, 1, 0, 2, 1, 2, 2, 1, 0]
    streams = ("TRAIN", "BRANCH", "STRIDE", "INFER", "REPLACE", "VALIDATE", "CROP", "REFINE")
    assert [getattr(Purpose, name) for name in streams] == list(range(8))


@pytest.mark.parametrize("key", KEYS)
def test_hash_equals_plain_integers(key: Key) -> None:
    places = [(0, 0, 0), (1, 2, 3), (2**32 + 1, 10**9, 10**9 + 7), (2**40, 5, 0), (2**62, 1, 2**31)]
    sample, row, col = torch.tensor(places).T
    expected = [slow_word(key, *place) for place in places]
    assert hash_pixels(key, sample, row, col).tolist() == expected


@pytest.mark.parametrize("groups", [2, 3, 4, 7, 16])
def test_every_group_gets_its_share(groups: int) -> None:
    scheme, n = RandomPartition(groups), SIDE * SIDE
    for key in KEYS:
        counts = torch.bincount(scheme.label(plain_grid(), key).flatten(), minlength=groups)
        assert len(counts) == groups
        share = 1 / groups
        assert (counts - n * share).abs().max() < 4.5 * math.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("key", KEYS)
def test_every_bit_is_fair_and_independent_of_the_others(key: Key) -> None:
    word = words(key).flatten()
    assert 0 <= int(word.min()) <= int(word.max()) < 2**32
    bits = ((word[None] >> torch.arange(32)[:, None]) & 1).double()
    n = word.numel()
    assert (bits.mean(1) - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(n)
    between = torch.corrcoef(bits) - torch.eye(32)
    assert between.abs().max() < 5 / math.sqrt(n)


@pytest.mark.parametrize("draw", [words, coins])
@pytest.mark.parametrize("lag", [1, 2, 3, 32])
def test_neighbours_are_not_correlated(draw: type, lag: int) -> None:
    for key in KEYS:
        field = draw(key)
        assert abs(rho(field[lag:], field[:-lag])) < 4
        assert abs(rho(field[:, lag:], field[:, :-lag])) < 4
        assert abs(rho(field[lag:, lag:], field[:-lag, :-lag])) < 4
        assert abs(rho(field[lag:, :-lag], field[:-lag, lag:])) < 4


@pytest.mark.parametrize("stride", [2, 5])
def test_neighbours_in_a_sub_image_are_not_correlated(stride: int) -> None:
    label = RandomPartition(2).label(PixelDownsample(stride).grid(1, (500, 500)), Key(4))
    assert abs(rho(label[..., 1:], label[..., :-1])) < 4
    assert abs(rho(label[:, :, 1:], label[:, :, :-1])) < 4
    assert abs(rho(label[1:], label[:-1])) < 4


@pytest.mark.parametrize("draw", [words, coins])
def test_other_keys_and_samples_give_other_masks(draw: type) -> None:
    keys = [
        *(Key(seed=seed) for seed in (0, 1, 2, 3, 256, -1, 2**31, 2**32, 2**32 + 1, 2**63)),
        *(Key(draw=number) for number in (1, 2, 3, 1000, 2**32)),
        *(Key(purpose=number) for number in (1, 2, 3, 16, 17)),
    ]
    fields = [draw(key) for key in keys]
    fields += [draw(Key(), sample=index) for index in (1, 2, 3, 2**20, 2**32, 2**33, 2**40 + 1)]
    flat = torch.stack(fields).flatten(1).double()
    between = torch.corrcoef(flat) - torch.eye(len(flat))
    assert between.abs().max() < 4.5 / SIDE


def test_one_flipped_bit_changes_half_of_the_word() -> None:
    base = Key(123, 3, 45)
    word = words(base, side=64)
    changed = [words(base._replace(seed=123 ^ 1 << bit), side=64) for bit in range(64)]
    changed += [words(base._replace(draw=45 ^ 1 << bit), side=64) for bit in range(64)]
    changed += [words(base, side=64, sample=1 << bit) for bit in range(62)]
    for other in changed:
        different = ((other ^ word)[..., None] >> torch.arange(32) & 1).double().mean()
        assert abs(float(different) - 0.5) < 0.02


def test_keys_hardly_collide() -> None:
    seen = {hash_key(Key(s, p, d)) for s in range(-10, 10) for p in range(8) for d in range(250)}
    assert len(seen) >= 20 * 8 * 250 - 2


def test_place_of_the_pixel_is_all_that_counts() -> None:
    """A stride or a tile sees the bits that the whole image has at the same pixels."""
    key, scheme = Key(3, 1, 4), MaskScheme()
    for draw in (scheme.bits, scheme.coin):
        whole = draw(PixelDownsample(1).grid(2, (84, 126), sample=5), key)
        for stride in (1, 2, 3, 7):
            pixels = PixelDownsample(stride)
            assert torch.equal(draw(pixels.grid(2, (84, 126), sample=5), key), pixels.down(whole))
            for top, left in ((0, 42), (42, 0), (42, 84)):
                tile = draw(pixels.grid(2, (42, 42), sample=5, origin=(top, left)), key)
                cut = whole[:, :, top : top + 42, left : left + 42]
                assert torch.equal(tile, pixels.down(cut))


@pytest.mark.parametrize("scheme", SCHEME_CASES, ids=repr)
@pytest.mark.parametrize("stride", [1, 3])
def test_labels_of_a_tile_are_those_of_the_whole(scheme: MaskScheme, stride: int) -> None:
    pixels = PixelDownsample(stride)
    whole = pixels.up(scheme.label(pixels.grid(2, (48, 60)), Key(8)))
    tile = scheme.label(pixels.grid(2, (18, 21), origin=(12, 33)), Key(8))
    assert torch.equal(tile, pixels.down(whole[:, :, 12:30, 33:54]))


def test_far_away_pixels_are_still_random() -> None:
    for origin in ((10**9, 0), (0, 10**9), (10**9 + 2, 2**31 + 4)):
        for groups in (2, 3):
            scheme = RandomPartition(groups)
            for stride in (1, 2):
                grid = PixelDownsample(stride).grid(1, (200, 200), origin=origin)
                label = scheme.label(grid, Key())
                near = scheme.label(PixelDownsample(stride).grid(1, (200, 200)), Key())
                share = float((label == 0).double().mean())
                assert abs(share - 1 / groups) < 4 * 0.5 / 200
                assert abs(rho(label, near)) < 4
                assert abs(rho(label[..., 1:], label[..., :-1])) < 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_masks_are_the_same_on_a_gpu() -> None:
    sample, origin = 2**33, (3 * 10**8, 33)
    for scheme in SCHEME_CASES:
        for key in KEYS:
            for pixels in (PixelDownsample(1), PixelDownsample(3)):
                here = pixels.grid(2, (40, 75), sample=sample, origin=origin)
                there = pixels.grid(2, (40, 75), sample=sample, origin=origin, device="cuda")
                for draw in (scheme.label, scheme.bits, scheme.coin):
                    result = draw(there, key)
                    assert result.device.type == "cuda"
                    assert torch.equal(result.cpu(), draw(here, key))


# -- the schemes ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEME_CASES, ids=repr)
@pytest.mark.parametrize("stride", [1, 2])
def test_scored_sets_partition_the_image_at_inference(scheme: MaskScheme, stride: int) -> None:
    used = scheme.inference or scheme
    label = used.label(PixelDownsample(stride).grid(2, (37, 40)), Key(2, Purpose.INFER))
    assert label.dtype == torch.uint8
    scored = [used.scored(label, branch) for branch in range(used.branches)]
    assert torch.equal(sum(mask.int() for mask in scored), torch.ones_like(label).int())


@pytest.mark.parametrize("scheme", SCHEME_CASES, ids=repr)
def test_scored_pixels_are_hidden_in_training(scheme: MaskScheme) -> None:
    grid = PixelDownsample(2).grid(2, (37, 40))
    label = scheme.label(grid, Key(2, Purpose.TRAIN, 11))
    assert label.shape == grid.shape
    for branch in range(scheme.branches):
        hidden, scored = scheme.hidden(label, branch), scheme.scored(label, branch)
        assert hidden.dtype == scored.dtype == torch.bool
        assert hidden.shape == scored.shape == grid.shape
        if not scheme.blind:
            assert not bool((scored & ~hidden).any())


@pytest.mark.parametrize(
    ("scheme", "ratio"),
    [
        (RandomPartition(2), 0.5),
        (RandomPartition(4), 0.25),
        (RandomPartition(8), 0.125),
        (RandomPartition(16), 0.0625),
        (RandomPartition(4, hide="others"), 0.75),
        (Checkerboard(), 0.5),
        (Lattice(4), 1 / 16),
        (Lattice(5, radius=1), 5 / 25),
        (Lattice(7, radius=2), 13 / 49),
        (Noise2Void(0.02), 0.02),
        (NothingHidden(), 0.0),
    ],
    ids=repr,
)
def test_mask_ratio(scheme: MaskScheme, ratio: float) -> None:
    """Among them the ratios of the paper's Fig. 10: 75, 50, 25, 12.5 and 6.25 %."""
    grid = PixelDownsample(1).grid(1, (420, 420))
    label = scheme.label(grid, Key(6))
    for branch in range(scheme.branches):
        share = float(scheme.hidden(label, branch).double().mean())
        assert abs(share - ratio) <= 4.5 * math.sqrt(ratio * (1 - ratio)) / 420


def test_others_shows_each_branch_one_group_which_no_other_branch_sees() -> None:
    scheme = RandomPartition(4, hide="others")
    label = scheme.label(plain_grid(40), Key())
    seen = sum((~scheme.hidden(label, branch)).int() for branch in range(4))
    assert torch.equal(seen, torch.ones_like(seen))


def test_lattice_hides_a_diamond_around_every_scored_pixel() -> None:
    for period, radius in ((3, 1), (5, 2), (7, 3), (4, 1)):
        scheme = Lattice(period, radius=radius)
        label = scheme.label(plain_grid(2 * period), Key())[0, 0]
        for branch in range(scheme.branches):
            hidden, scored = scheme.hidden(label, branch), scheme.scored(label, branch)
            for row in range(2 * period):
                for col in range(2 * period):
                    near = [
                        abs(row - i) + abs(col - j) <= radius
                        for i, j in _repeated(scored, 2 * period)
                    ]
                    assert bool(hidden[row, col]) == any(near)


def _repeated(scored: Tensor, side: int) -> list[tuple[int, int]]:
    """Return the scored places, and their copies one lattice further on every side."""
    moves = (-side, 0, side)
    places = scored.nonzero().tolist()
    return [(row + dy, col + dx) for row, col in places for dy in moves for dx in moves]


def test_checkerboard_alternates_and_starts_at_random() -> None:
    grid = PixelDownsample(2).grid(3, (20, 20))
    firsts = set()
    for draw in range(20):
        label = Checkerboard().label(grid, Key(draw=draw)).int()
        assert bool((label[..., 1:] != label[..., :-1]).all())
        assert bool((label[:, :, 1:] != label[:, :, :-1]).all())
        firsts.update(label[:, 0, 0, 0].tolist())
    assert firsts == {0, 1}


def test_noise2void_scores_few_and_infers_on_the_plain_image() -> None:
    scheme = Noise2Void(0.1)
    label = scheme.label(plain_grid(100), Key())
    assert set(label.flatten().tolist()) == {0, NOBODY}
    assert isinstance(scheme.inference, NothingHidden)


@pytest.mark.parametrize("groups", [1, 2, 3, 16])
def test_every_branch_is_trained_equally_often(groups: int) -> None:
    scheme, n = RandomPartition(groups), 4000
    branches = torch.tensor([scheme.branch_of_step(Key(3, 0, step)) for step in range(n)])
    counts = torch.bincount(branches, minlength=groups)
    assert len(counts) == groups
    assert (counts - n / groups).abs().max() <= 4 * math.sqrt(n / groups * (1 - 1 / groups))
    if groups == 2:
        runs = sum(a != b for a, b in pairwise(branches.tolist()))
        assert abs(runs - n / 2) < 4 * math.sqrt(n) / 2


def test_branch_does_not_tell_the_mask() -> None:
    """The group that a pixel falls into is independent of the branch that the step trains."""
    scheme, pixel = RandomPartition(2), PixelDownsample(1).grid(1, (1, 1))
    keys = [Key(0, 0, step) for step in range(4000)]
    label = torch.cat([scheme.label(pixel, key).flatten() for key in keys])
    branch = torch.tensor([scheme.branch_of_step(key) for key in keys])
    assert abs(rho(label, branch)) < 4


@pytest.mark.parametrize("scheme", [*SCHEME_CASES, RandomPartition(2, fill=0.5)], ids=repr)
def test_settings_make_the_scheme_again(scheme: MaskScheme) -> None:
    settings = json.loads(json.dumps(scheme.settings()))
    again = create_scheme(scheme.name, **settings)
    assert type(again) is type(scheme)
    assert again.settings() == scheme.settings()
    assert repr(again) == repr(scheme)
    grid = PixelDownsample(2).grid(1, (12, 14))
    label = scheme.label(grid, Key(5))
    assert torch.equal(again.label(grid, Key(5)), label)
    for branch in range(scheme.branches):
        assert torch.equal(again.hidden(label, branch), scheme.hidden(label, branch))


def test_every_built_in_scheme_has_a_name() -> None:
    assert sorted(SCHEMES) == ["checkerboard", "lattice", "noise2void", "nothing", "random"]
    with pytest.raises(UnknownNameError, match="did you mean 'checkerboard'"):
        create_scheme("chekerboard")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("random", {"branches": 0}),
        ("random", {"branches": 256}),
        ("random", {"branches": 2.5}),
        ("random", {"branches": "2"}),
        ("random", {"hide": "all"}),
        ("random", {"branches": 1, "hide": "others"}),
        ("random", {"fill": "men"}),
        ("random", {"fill": True}),
        ("checkerboard", {"fill": None}),
        ("lattice", {"period": 1}),
        ("lattice", {"period": 16}),
        ("lattice", {"period": 4, "radius": 2}),
        ("lattice", {"radius": -1}),
        ("lattice", {"fill": "blur"}),
        ("noise2void", {"share": 0}),
        ("noise2void", {"share": 0.6}),
        ("noise2void", {"share": math.nan}),
        ("noise2void", {"fill": "none"}),
    ],
)
def test_unusable_settings_are_refused(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        create_scheme(name, **settings)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (lambda grid: torch.full(grid.shape, 7, dtype=torch.uint8), "returned branch 7; uint8"),
        (lambda grid: torch.zeros(grid.shape, dtype=torch.int64), "returned int64 "),
        (lambda grid: torch.zeros(2, 3, dtype=torch.uint8), r"returned uint8 \(2, 3\)"),
        (lambda grid: (grid.sub_row + grid.sub_col).remainder(3).to(torch.uint8), None),
    ],
)
def test_labels_that_mean_no_branch_are_refused(
    label: Callable[[Grid], Tensor], message: str | None
) -> None:
    class Own(MaskScheme):
        branches = 3

        def label(self, grid: Grid, key: Key) -> Tensor:
            return label(grid)

    made = partial(AsymmetricMaskDenoiser, torch.nn.Conv2d(1, 1, 3, padding=1), channels=1)
    if message is None:
        made(scheme=Own())
        return
    for scheme in (Own(), RandomPartition(2, inference=Own())):
        with pytest.raises(SettingError, match=f"of Own {message}.* 0 to 2"):
            made(scheme=scheme)


def own_scheme(**methods: Any) -> MaskScheme:
    """Return a scheme of a user's own, a checkerboard but for some methods."""
    usual: dict[str, Any] = {"label": lambda self, grid, key: Checkerboard().label(grid, key)}
    return type("Own", (MaskScheme,), {**usual, **methods})()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"hidden": lambda self, label, branch: label == 1 - branch}, "sees pixels that it scores"),
        (
            {"label": lambda self, grid, key: torch.full(grid.shape, NOBODY, dtype=torch.uint8)},
            "pixels that no branch scores",
        ),
        ({"scored": lambda self, label, branch: label <= branch}, "several branches score"),
        (
            {"label": lambda self, grid, key: Checkerboard().label(grid, key).repeat(1, 3, 1, 1)},
            r"returned uint8 \(4, 3,",
        ),
        (
            {"label": lambda self, grid, key: torch.randint(0, 2, grid.shape, dtype=torch.uint8)},
            "other labels for the same",
        ),
        ({"branches": 300}, "branches 300"),
        ({"branches": 1.5}, "branches is 1.5"),
        ({"fill": "median"}, "fill is 'median'"),
    ],
)
def test_schemes_that_cannot_work_are_refused(methods: dict[str, Any], message: str) -> None:
    made = partial(AsymmetricMaskDenoiser, torch.nn.Conv2d(1, 1, 3, padding=1), channels=1)
    made(scheme=own_scheme())
    if "no branch" in message:  # in training some pixels may be scored by none
        with pytest.warns(UserWarning, match=message):
            made(scheme=own_scheme(**methods))
        made(scheme=own_scheme(**methods, inference=RandomPartition(2)))
        return
    with pytest.raises(SettingError, match=message):
        made(scheme=own_scheme(**methods))
    if "sees" in message:  # what only denoises may see them, and so may a blind network
        made(scheme=RandomPartition(2, inference=own_scheme(**methods)))
        made(scheme=own_scheme(**methods, blind=True))


class Recorded(MaskScheme):
    """Labels of one size; of any other, an error or the same labels."""

    branches = 2

    def __init__(self, label: Tensor, *, strict: bool) -> None:
        self.recorded, self.strict = label, strict

    def label(self, grid: Grid, key: Key) -> Tensor:
        if self.strict and grid.shape != self.recorded.shape:
            raise ValueError("labels of another size were recorded")
        return self.recorded


@pytest.mark.parametrize("strict", [True, False])
def test_a_scheme_may_know_labels_of_one_size_only(strict: bool) -> None:
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    label = RandomPartition(2).label(PixelDownsample(1).grid(1, (12, 10)), Key())
    denoiser = AsymmetricMaskDenoiser(
        network, channels=1, scheme=Recorded(label, strict=strict), stride=1, dct_threshold=0
    )
    assert denoiser.denoise(torch.rand(1, 1, 12, 10)).shape == (1, 1, 12, 10)
    expected = "of another size" if strict else r"Recorded returned uint8 \(1, 1, 12, 10\); uint8"
    with pytest.raises(ValueError, match=expected):
        denoiser.denoise(torch.rand(1, 1, 12, 16))


def test_a_scheme_without_label_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="label"):
        MaskScheme().label(plain_grid(4), Key())


def test_a_random_neighbour_is_no_fill_where_it_would_often_be_hidden_too() -> None:
    for make in (RandomPartition, Checkerboard, Lattice):
        with pytest.raises(SettingError, match="Noise2Void"):
            make(fill="neighbor")
    assert Noise2Void().fill == "neighbor"


def test_four_passes_show_every_neighbour_twice() -> None:
    """Balanced passes: of the four, two show each of the eight neighbours to a pixel's branch."""
    scheme = RandomPartition(2)
    for stride, origin in ((1, (0, 0)), (2, (6, 2))):
        grid = PixelDownsample(stride).grid(2, (22, 26), origin=origin)
        for block in range(2):
            keys = [Key(1, 3, 4 * block + place) for place in range(4)]
            labels = torch.stack([scheme.label_of_pass(grid, key).long() for key in keys])
            assert torch.equal(labels[0], scheme.label(grid, Key(1, 3, block)).long())
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                other = labels.roll((-dy, -dx), (3, 4))
                differs = (labels != other)[..., :-1, 1:-1].sum(0)
                assert bool((differs == 2).all())


@pytest.mark.parametrize("scheme", [RandomPartition(3), Checkerboard(), Lattice(3)], ids=repr)
def test_passes_of_other_schemes_are_their_draws(scheme: MaskScheme) -> None:
    grid = PixelDownsample(1).grid(1, (9, 12))
    for draw in range(5):
        key = Key(2, 0, draw)
        assert torch.equal(scheme.label_of_pass(grid, key), scheme.label(grid, key))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Lattice(2.5),  # type: ignore[arg-type]
        lambda: Lattice(4, radius=1.0),  # type: ignore[arg-type]
        lambda: Lattice(True),
        lambda: RandomPartition(2.0),  # type: ignore[arg-type]
        lambda: Noise2Void("0.1"),  # type: ignore[arg-type]
        lambda: Noise2Void(math.nan),
    ],
)
def test_numbers_of_another_kind_are_refused(wrong: Callable[[], MaskScheme]) -> None:
    with pytest.raises(SettingError, match=r"is needed|must be"):
        wrong()


def test_numpys_numbers_are_taken() -> None:
    assert Lattice(np.int64(4)).settings() == Lattice(4).settings()
    assert repr(RandomPartition(np.int32(4))) == repr(RandomPartition(4))

"""Batches out of every form of data, and crops that are a pure function of their number."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from masked_denoise.errors import DataError, ImageReadError, PixelError, SizeError
from masked_denoise.images import ImageFile, write_image
from masked_denoise.training import pictures as pictures_module
from masked_denoise.training.batches import Batches, LoaderBatches, as_batches
from masked_denoise.training.crops import CropBatches
from masked_denoise.training.pictures import (
    Pictures,
    check_picture,
    image_of,
    pictures_in_memory,
    split,
    windows,
)
from masked_denoise.training.settings import FitSettings

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (5, 40, 52, 3), dtype=np.uint8)
SETTINGS = FitSettings(steps=1, batch_size=4, crop=16)


def take(batches: Batches, count: int, first: int = 0, unit: int = 8) -> list[Tensor]:
    return list(itertools.islice(batches.start(first, lambda number: unit), count))


def make(
    data: object, *, channels: int = 3, settings: FitSettings = SETTINGS, **more: Any
) -> Batches:
    return as_batches(data, settings, channels=channels, **more)


class Items(Dataset[Any]):
    """A map-style data set of pictures of two sizes, in a form of choice."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        self.form = form

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return self.form(torch.full((3, 20 + 8 * (index % 2), 40), index, dtype=torch.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, pixels in enumerate(BYTES):
        place = tmp_path / ("inner" if number % 2 else ".")
        write_image(place / f"{number}.png", ImageFile(pixels))
    return tmp_path


TENSOR = torch.from_numpy(BYTES).permute(0, 3, 1, 2)
FORMS: dict[str, Any] = {
    "array (H, W, C)": BYTES[0],
    "array (N, H, W, C)": BYTES,
    "tensor (C, H, W)": TENSOR[0],
    "tensor (N, C, H, W)": TENSOR,
    "floats": TENSOR.float() / 255,
    "list of sizes": [BYTES[0], BYTES[1][:20], TENSOR[2, :, :30, :30]],
    "list of dtypes": [BYTES[0], BYTES[1].astype(np.uint16) * 257, (TENSOR[2] / 255).double()],
    "loader of tensors": DataLoader(TENSOR, batch_size=4),
    "loader of tuples": DataLoader(TensorDataset(TENSOR, torch.arange(5)), batch_size=4),
    "list of dicts": [{"image": TENSOR[:4], "name": "a"}] * 3,
    "list of batches": [TENSOR[:4]] * 3,
    "noisy, clean": [(TENSOR[:4], TENSOR[:4] * 0)] * 3,
    "odd dict": [{"pixels": TENSOR[:4], "label": torch.arange(4)}] * 3,
    "arrays (N, H, W, C)": [BYTES[:4]] * 3,
    "data set": Items(lambda x: x),
    "data set of tuples": Items(lambda x: (x, 3)),
    "data set of dicts": Items(lambda x: {"noisy": x.permute(1, 2, 0).numpy()}),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_float_batches_on_the_unit_scale(data: object) -> None:
    for batch in take(make(data), 3):
        assert batch.dtype == torch.float32
        assert batch.shape[1] == 3
        assert batch.ndim == 4
        assert 0 <= float(batch.min()) <= float(batch.max()) <= 1
    assert len(batch) in (1, 4)


def test_scales_of_different_dtypes_agree() -> None:
    same = [BYTES[0], BYTES[0].astype(np.uint16) * 257, BYTES[0].astype(np.float64) / 255]
    settings = FitSettings(steps=1, batch_size=8, crop=40, augment=False)
    plain = make([BYTES[0]] * 3, settings=settings)
    for a, b in zip(take(make(same, settings=settings), 2), take(plain, 2), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_grey_pictures_and_stacks() -> None:
    for data in (BYTES[0, ..., 0], BYTES[..., 0], TENSOR[0, :1], list(BYTES[..., 0]), TENSOR[:, 0]):
        assert take(make(data, channels=1), 1)[0].shape == (4, 1, 16, 16)


def test_a_grey_file_and_a_folder(folder: Path) -> None:
    assert len(make(folder).pictures) == 5  # type: ignore[attr-defined]
    write_image(folder / "grey.png", ImageFile(BYTES[0, ..., 0]))
    paths = [folder / "grey.png"]
    assert take(make(paths, channels=1), 1)[0].shape == (4, 1, 16, 16)
    with pytest.raises(SizeError, match=r"grey\.png has 1 channels.*channels=1"):
        make(folder)


def test_crops_are_a_function_of_their_number_and_touch_no_generator() -> None:
    state = torch.get_rng_state()
    whole = take(make(BYTES), 6)
    for first in (1, 4):
        later = take(make(BYTES), 6 - first, first)
        assert all(map(torch.equal, whole[first:], later))
    assert torch.equal(state, torch.get_rng_state())
    other = take(make(BYTES, settings=FitSettings(steps=1, batch_size=4, crop=16, seed=1)), 1)
    assert not torch.equal(whole[0], other[0])


def test_crops_are_cut_everywhere_and_turned_all_ways() -> None:
    place = np.arange(24 * 24, dtype=np.uint16).reshape(1, 24, 24)
    settings = FitSettings(steps=1, batch_size=500, crop=16)
    crops = take(make(torch.from_numpy(place), channels=1, settings=settings), 1)[0] * 65535
    corners = crops[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].round().int()
    first = corners.min(1).values
    assert {(int(f) // 24, int(f) % 24) for f in first} == set(
        itertools.product(range(9), repeat=2)
    )
    turns = {tuple((row - row.min()).tolist()) for row in corners}
    assert len(turns) == 8


def test_no_augmentation_leaves_crops_upright() -> None:
    ramp = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24)
    settings = FitSettings(steps=1, batch_size=8, crop=16, augment=False)
    crops = take(make(ramp, channels=1, settings=settings), 2)[1]
    assert bool((crops.diff(dim=2) > 0).all())
    assert bool((crops.diff(dim=3) > 0).all())


def test_pictures_are_drawn_by_their_area() -> None:
    large, small = np.zeros((60, 60), np.uint8), np.full((30, 30), 255, np.uint8)
    settings = FitSettings(steps=1, batch_size=1000, crop=16)
    batch = take(make([small, large], channels=1, settings=settings), 1)[0]
    share = float(batch.mean((1, 2, 3)).mean())
    assert 0.16 < share < 0.24


def test_sides_follow_unit_crop_and_smallest_picture() -> None:
    settings = FitSettings(steps=1, batch_size=2, crop=40)
    batches = make(np.zeros((100, 90), np.uint8), channels=1, settings=settings)
    stream = batches.start(0, lambda number: (8, 12, 64)[number])
    assert [next(stream).shape[2] for _ in range(3)] == [40, 36, 40]
    assert take(make(np.zeros((21, 90), np.uint8), channels=1), 1, unit=8)[0].shape[2] == 16
    assert take(make(np.zeros((5, 90), np.uint8), channels=1), 1, unit=8)[0].shape[2] == 5


def test_two_processes_together_see_what_one_sees() -> None:
    one = take(make(BYTES), 3)
    half = FitSettings(steps=1, batch_size=2, crop=16)
    parts = [take(make(BYTES, settings=half, process=(rank, 2)), 3) for rank in (0, 1)]
    for whole, first, second in zip(one, *parts, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))
    loader = [TENSOR[k : k + 1] for k in range(5)]
    seen = [take(make(loader, process=(rank, 2)), 2) for rank in (0, 1)]
    both = [seen[0][0], seen[1][0], seen[0][1], seen[1][1]]
    assert torch.equal(torch.cat(both), TENSOR[:4].float() / 255)


def test_an_epoch_covers_the_area() -> None:
    settings = FitSettings(steps=1, batch_size=4, crop=16)
    assert make(np.zeros((10, 64, 64), np.uint8), channels=1, settings=settings).length == 40
    assert make(DataLoader(TENSOR, batch_size=2)).length == 3


def test_held_out_pictures_are_never_trained_on() -> None:
    data = [np.full((20, 20), value, np.uint8) for value in range(100)]
    settings = FitSettings(steps=1, batch_size=64, crop=16)
    batches = make(data, channels=1, settings=settings)
    held = {round(255 * float(crop.mean())) for batch in batches.held_out(8) for crop in batch}
    seen = {round(255 * float(crop.mean())) for batch in take(batches, 20) for crop in batch}
    assert len(held) == 4
    assert seen == set(range(100)) - held
    assert torch.equal(
        batches.held_out(8)[0], make(data, channels=1, settings=settings).held_out(8)[0]
    )
    all_in = make(data, channels=1, settings=settings, hold_out=False)
    assert len(all_in.used) == 100  # type: ignore[attr-defined]


def test_shuffled_loaders_start_anywhere_as_if_they_had_run() -> None:
    data = TensorDataset(torch.arange(7 * 3).view(7, 3, 1, 1).expand(7, 3, 8, 8) / 21)
    whole = take(make(DataLoader(data, batch_size=2, shuffle=True)), 9)
    orders = [torch.cat(whole[k : k + 4])[:, 0, 0, 0].tolist() for k in (0, 4)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    torch.manual_seed(99)
    for first in (3, 6):
        later = take(make(DataLoader(data, batch_size=2, shuffle=True)), 9 - first, first)
        assert all(map(torch.equal, whole[first:], later))


def test_random_augmentation_in_a_data_set_comes_again() -> None:
    class Noisy(Items):
        def __getitem__(self, index: int) -> Tensor:
            return torch.rand(3, 16, 16)

    loader = DataLoader(Noisy(lambda x: x), batch_size=2)
    assert all(map(torch.equal, take(make(loader), 5)[2:], take(make(loader), 3, 2)))


def test_an_iterator_gives_each_batch_once_then_says_so() -> None:
    def batches() -> Iterator[Tensor]:
        for number in range(4):
            yield torch.full((1, 3, 8, 8), number / 4)

    made = make(batches())
    assert float(made.held_out(1)[0].mean()) == 0
    stream = made.start(0, lambda number: 1)
    assert [float(next(stream).mean()) for _ in range(3)] == [0.25, 0.5, 0.75]
    with pytest.raises(DataError, match="ended after 3 batches"):
        next(stream)
    assert float(take(make(batches(), hold_out=False), 1)[0].mean()) == 0


def test_iterable_data_sets_are_batched() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Tensor]:
            return (torch.rand(3, 8, 8) for _ in range(8))

    assert take(make(Stream()), 2)[1].shape == (4, 3, 8, 8)


def test_files_beyond_the_memory_limit_are_held_in_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures_module, "MEMORY_LIMIT", 2 * BYTES[0].nbytes)
    batches = make(folder)
    assert isinstance(batches, CropBatches)
    assert batches.pictures.slots == 2
    reads: list[int] = []
    monkeypatch.setattr(pictures_module, "_read_file", _counted(pictures_module._read_file, reads))
    whole = take(batches, 120)
    assert 5 <= len(reads) <= 30  # 480 crops
    assert all(map(torch.equal, whole[100:], take(make(folder), 20, 100)))


def _counted(read: Callable[..., Any], reads: list[int]) -> Callable[..., Any]:
    def counted(*args: Any) -> Any:
        reads.append(1)
        return read(*args)

    return counted


def test_a_broken_file_is_left_out_and_named(folder: Path) -> None:
    data = (folder / "0.png").read_bytes()
    (folder / "broken.png").write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match=r"left out of training.*broken\.png"):
        batches = make(folder)
    assert len(batches.pictures) == 5  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageReadError, match="none of the 1 image files"):
            make([folder / "broken.png"])


def test_ranges_of_floats_are_measured_where_they_leave_the_unit_scale() -> None:
    floats = RNG.normal(0.5, 0.1, (64, 64))
    assert make(floats, channels=1).measure() is None
    assert make(BYTES).measure() is None
    floats[3, 3] = 1e6  # one hot pixel
    assert make(floats, channels=1).measure() is None
    low, high = make(floats * 4095, channels=1).measure() or (0, 0)
    assert 600 < low < 1000
    assert 3100 < high < 3500
    loader = [torch.rand(2, 3, 16, 16) * 300 - 100]
    assert make(loader).measure() == pytest.approx((-100, 200), abs=3)
    batches = make(floats * 4095, channels=1)
    batches.value_range = (0.0, 4095.0)
    assert float(take(batches, 1)[0].median()) == pytest.approx(0.5, abs=0.05)
    assert make(np.full((30, 30), 7.0), channels=1).measure() == (6.5, 7.5)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (np.zeros((20, 20), np.uint8), SizeError, "channels=C"),
        (TENSOR[:, :2], SizeError, "takes 3 channels"),
        (np.zeros((0, 4, 3), np.uint8), SizeError, "empty"),
        (np.zeros((20, 20, 3), np.int64), PixelError, "int64"),
        (np.full((20, 20, 3), np.nan), PixelError, "NaN.*row 0, column 0"),
        ([torch.full((1, 3, 8, 8), torch.inf)], PixelError, "NaN or infinite"),
        ([], DataError, "empty list"),
        (iter([]), DataError, "no batch"),
        (3, DataError, "int came as data"),
        ({"image": TENSOR}, DataError, "dict came as data"),
        (["/no/such/folder"], ImageReadError, "no/such"),
        ([{"a": TENSOR, "b": TENSOR}], DataError, "keys a, b"),
        ([object()], DataError, "object came"),
        ([{"label": 3}], DataError, "keys label"),
    ],
)
def test_unusable_data_are_refused_with_reasons(
    data: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        take(make(data), 1)


def test_an_empty_folder_and_small_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        make(tmp_path)
    with pytest.raises(SizeError, match="side of 3 pixels; 5 or more"):
        make([np.zeros((30, 3, 3), np.uint8)], smallest=5)
    with pytest.raises(DataError, match="data set is empty"):
        make(TensorDataset(torch.zeros(0, 3, 8, 8)))


def test_an_array_of_colours_is_no_stack_of_grey_pictures() -> None:
    for colours in (BYTES[0], TENSOR[0]):
        with pytest.raises(SizeError, match="1 channel:"):
            split(colours, 1)


def test_pillow_images_are_pictures() -> None:
    image = pytest.importorskip("PIL.Image").fromarray(BYTES[0])
    assert np.array_equal(image_of((image, 3)), BYTES[0])


def test_loader_batches_that_yield_nothing_later_end_with_an_error() -> None:
    class Once:
        def __init__(self) -> None:
            self.left = 2

        def __iter__(self) -> Iterator[Tensor]:
            self.left -= 1
            return iter([torch.rand(1, 3, 8, 8)] * self.left)

    with pytest.raises(DataError, match="ended after 0"):
        take(LoaderBatches(Once(), 3, seed=0), 1)


def test_pictures_can_come_from_any_reader() -> None:
    made = Pictures(lambda index: BYTES[index].transpose(2, 0, 1), [40 * 52] * 5, 40)
    assert take(CropBatches(made, SETTINGS), 1)[0].shape == (4, 3, 16, 16)


# -- windows ----------------------------------------------------------------------------------


def test_many_pictures_are_taken_in_windows() -> None:
    arrays = [np.full((40, 30), k, np.uint8) for k in range(4)] + [np.zeros((8, 200))]
    some = pictures_in_memory(arrays, 1)
    taken = list(windows(some, 8 * 256 / 1e6, seed=3, side=16))
    assert len(taken) == 8
    assert {w.shape for w in taken} == {(1, 16, 16), (1, 8, 16)}
    assert {int(w.max()) for w in taken} == {0, 1, 2, 3}
    again = windows(some, 8 * 256 / 1e6, seed=3, side=16)
    assert all(np.array_equal(a, b) for a, b in zip(taken, again, strict=True))
    assert len(list(windows(some, 1, seed=3, side=16))) == 5


def test_small_pictures_are_taken_as_many_as_asked() -> None:
    some = pictures_in_memory([np.zeros((32, 32))] * 50, 1)
    assert [w.shape for w in windows(some, 20 * 1024 / 1e6, seed=0)] == [(1, 32, 32)] * 20


def test_of_pictures_on_demand_only_some_are_read() -> None:
    class Counting:
        reads = 0

        def __len__(self) -> int:
            return 5000

        def __getitem__(self, index: int) -> Tensor:
            self.reads += 1
            return torch.full((1, 32, 32), index / 5000)

    source = Counting()
    batches = as_batches(source, FitSettings(steps=1), channels=1)
    source.reads = 0
    taken = list(batches.windows(1.0, 16))
    assert len(taken) == source.reads == 8
    assert len({float(w.max()) for w in taken}) == 8


def test_of_large_batches_only_windows_are_taken() -> None:
    batches = as_batches([torch.rand(2, 1, 64, 64)] * 3, FitSettings(steps=1), channels=1)
    taken = list(batches.windows(4 * 256 / 1e6, 16))
    assert [window.shape for window in taken] == [(1, 16, 16)] * 4


def test_half_floats_may_be_large() -> None:
    check_picture(np.array([[[40000, 50000]]], np.float16), "the picture")  # their sum is infinite
    with pytest.raises(PixelError, match="1 NaN or infinite values"):
        check_picture(np.array([[[40000, np.inf]]], np.float16), "the picture")

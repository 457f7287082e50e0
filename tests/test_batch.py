"""Jobs over files: what is found out beforehand, what becomes of each, what is never harmed."""

from __future__ import annotations

import errno
import os
import re
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from masked_denoise import AsymmetricMaskDenoiser, atomic
from masked_denoise.errors import (
    DataError,
    ImageReadError,
    ImageWriteError,
    SettingError,
    UnknownNameError,
)
from masked_denoise.images import ImageFile, png, read_image, write_image
from masked_denoise.jobs import batch, plan
from masked_denoise.jobs.batch import Done, denoise_files, fits_format
from masked_denoise.jobs.models import adapt_models, fit_models, new_denoiser
from masked_denoise.jobs.plan import Task, check_writable, make_plan, write_text
from masked_denoise.jobs.preview import expected_seconds, make_preview, telling_crop
from masked_denoise.jobs.survey import Failure, Kind, Picture, by_kind, survey
from masked_denoise.report.panel import side_by_side

RANDOM = np.random.default_rng(3)
Array = NDArray[Any]


def pixels(*shape: int, dtype: str = "uint8") -> Array:
    values = RANDOM.uniform(0.2, 0.8, shape)
    top = np.iinfo(dtype).max if dtype.startswith("uint") else 1
    return (values * top).astype(dtype)


def save(path: Path, content: Array | None = None, alpha: Array | None = None) -> Path:
    write_image(path, ImageFile(pixels(32, 40) if content is None else content, alpha))
    return path


def takes(
    tasks: Iterable[Task], model: AsymmetricMaskDenoiser
) -> dict[Path, AsymmetricMaskDenoiser]:
    return {task.source: model for task in tasks}


def cut_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    save(tmp_path / "photos" / "a.png")
    save(tmp_path / "photos" / "sub" / "b.jpg")
    save(tmp_path / "photos" / "sub" / "c.tif", pixels(32, 40, dtype="uint16"))
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def grey() -> AsymmetricMaskDenoiser:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    return AsymmetricMaskDenoiser(network, channels=1, passes=1).eval()


# Where results go


def test_results_keep_folders_formats_and_jpeg_becomes_png(photos: Path, tmp_path: Path) -> None:
    tasks = make_plan([photos], tmp_path / "out", suffix="_clean").tasks
    targets = [task.target.relative_to(tmp_path / "out").as_posix() for task in tasks]
    assert targets == ["a_clean.png", "sub/b_clean.png", "sub/c_clean.tif"]
    assert [task.name for task in tasks] == ["a.png", "sub/b.jpg", "sub/c.tif"]
    assert not (tmp_path / "out").exists()


def test_one_file_may_go_to_a_file(photos: Path, tmp_path: Path) -> None:
    source = photos / "a.png"
    (task,) = make_plan([source], tmp_path / "new" / "x.tif").tasks
    assert task == Task(source, photos, tmp_path / "new" / "x.tif")
    with pytest.raises(SettingError, match="contradict"):
        make_plan([source], tmp_path / "x.tif", format="png")
    with pytest.raises(SettingError, match="contradict"):
        make_plan([source], tmp_path / "x.tif", suffix="_clean")
    with pytest.raises(SettingError, match="replace its input"):
        make_plan([source], photos / ".." / "photos" / "a.png", existing="overwrite")
    for inputs in ([photos], [photos / "a.png", photos / "sub" / "b.jpg"]):
        with pytest.raises(SettingError, match="looks like a file"):
            make_plan(inputs, tmp_path / "x.png")


def test_one_file_does_not_make_a_folder_named_like_a_picture(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"\.gif cannot be written; end it in \.png"):
        make_plan([photos / "a.png"], tmp_path / "x.gif")
    (tmp_path / "old.gif").mkdir()
    assert len(make_plan([photos / "a.png"], tmp_path / "old.gif").tasks) == 1


def test_results_beside_their_inputs_are_no_inputs_of_the_next_run(photos: Path) -> None:
    (photos / "a_clean.png").write_bytes((photos / "a.png").read_bytes())
    plan = make_plan([photos], photos, suffix="_clean", existing="skip")
    assert [task.source.name for task in plan.tasks] == ["b.jpg", "c.tif"]
    assert [task.target.name for task in plan.skipped] == ["a_clean.png"]
    with pytest.raises(SettingError, match=r"a_clean\.png exists already"):
        make_plan([photos], photos, suffix="_clean")
    with pytest.raises(SettingError, match="would replace"):  # it may be a picture of the user's
        make_plan([photos], photos, suffix="_clean", existing="overwrite")


def test_results_do_not_hide_among_the_pictures(photos: Path) -> None:
    (photos / "a.png").unlink()
    (photos / "sub" / "c.tif").unlink()
    with pytest.raises(SettingError, match=r"among the pictures.*--suffix"):  # b.jpg becomes b.png
        make_plan([photos], photos)
    assert len(make_plan([photos], photos, suffix="_clean").tasks) == 1
    assert len(make_plan([photos / "sub" / "b.jpg"], photos / "sub").tasks) == 1  # it was named


def test_what_exists_is_not_replaced_unless_asked(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    there = save(out / "a.png")
    with pytest.raises(SettingError, match=r"a\.png exists already.*--overwrite.*--skip-existing"):
        make_plan([photos], out)
    assert len(make_plan([photos], out, existing="overwrite").tasks) == 3
    skipping = make_plan([photos], out, existing="skip")
    assert [task.target for task in skipping.skipped] == [there]
    assert len(skipping.tasks) == 2


@pytest.mark.parametrize("existing", ["error", "overwrite", "skip"])
def test_inputs_are_never_replaced(photos: Path, existing: str) -> None:
    before = {name: (photos / name).read_bytes() for name in tree(photos)}
    with pytest.raises(SettingError, match="would replace"):
        make_plan([photos], photos, existing=existing)
    assert before == {name: (photos / name).read_bytes() for name in tree(photos)}


def test_earlier_results_inside_of_the_inputs_are_no_inputs(photos: Path) -> None:
    save(photos / "out" / "a.png")
    found = make_plan([photos], photos / "out", existing="overwrite").tasks
    assert [task.name for task in found] == ["a.png", "sub/b.jpg", "sub/c.tif"]
    beside = make_plan([photos], photos, suffix="_clean")
    assert len(beside.tasks) == 4


def test_a_folder_that_cannot_be_written_is_told_beforehand(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ImageWriteError, match="is not a folder"):
        make_plan([photos], tmp_path / "file" / "out")
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    with pytest.raises(ImageWriteError, match=r"a\.png is a folder"):
        make_plan([photos], tmp_path / "out", existing="overwrite")

    def refuse(**where: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(atomic.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ImageWriteError, match="Permission denied; choose another"):
        check_writable(tmp_path / "else")


def test_a_drive_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of Windows: a root that does not exist, and is its own parent."""
    monkeypatch.setattr(atomic.os.path, "lexists", lambda path: False)
    with pytest.raises(FileNotFoundError, match="there is no"):
        atomic.try_folder("Z:/pictures")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ImageWriteError, match="Permission denied"):
        check_writable(tmp_path / "locked" / "out")


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_do_and_wrong_words(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        make_plan([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(ImageReadError, match="nowhere"):
        make_plan([tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(UnknownNameError, match="did you mean 'tiff'"):
        make_plan([photos], tmp_path / "out", format="tifff")
    with pytest.raises(SettingError, match="existing is"):
        make_plan([photos], tmp_path / "out", existing="maybe")


def test_text_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "new" / "a.json", "1")

    def full(*paths: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plan.os, "replace", full)
    with pytest.raises(ImageWriteError, match="No space left"):
        write_text(tmp_path / "new" / "a.json", "2")
    assert tree(tmp_path) == ["new/a.json"]
    assert (tmp_path / "new" / "a.json").read_text() == "1"


# What is found out about files


def test_survey_tells_form_and_groups_by_kind(photos: Path) -> None:
    colour = save(photos / "d.png", pixels(20, 30, 3), pixels(20, 30))
    two = save(photos / "e.npy", pixels(9, 8, 2, dtype="float32"))
    files = [photos / "a.png", photos / "sub" / "c.tif", colour, two]
    pictures, failures = survey(files)
    assert failures == []
    assert pictures[1] == Picture(files[1], 32, 40, 1, "uint16", True, pictures[1].brightest)
    assert pictures[2] == Picture(colour, 20, 30, 3, "uint8", True, pictures[2].brightest)
    assert 0.5 < pictures[1].brightest <= 1
    assert pictures[3].brightest == np.load(two).max()
    groups = by_kind(pictures)
    assert [(*kind, len(group)) for kind, group in groups.items()] == [
        (1, "integers", 2), (2, "floats", 1), (3, "integers", 1),
    ]  # fmt: skip


def test_pictures_are_of_one_kind_where_they_share_a_scale() -> None:
    def picture(dtype: str, brightest: float = 1.0, channels: int = 3) -> Picture:
        return Picture(Path("a.tif"), 40, 40, channels, dtype, brightest=brightest)

    photo, dark = picture("uint8", 0.1), picture("uint16", 0.1)
    bright, floats = picture("uint16", 0.9), picture("float32")
    grey = picture("uint16", 0.9, channels=1)
    assert by_kind([photo, floats, dark, grey]) == {
        Kind(1): [grey], Kind(3, "dim"): [dark], Kind(3, "floats"): [floats], Kind(3): [photo],
    }  # fmt: skip
    assert by_kind([photo, dark, bright]) == {Kind(3): [photo, dark, bright]}
    nearly_black = picture("uint16", 4095 / 65535)
    assert by_kind([bright, nearly_black]) == {Kind(3): [bright], Kind(3, "dim"): [nearly_black]}
    counts, faint = picture("float32", 62000.0), picture("float32", 1e-7)
    assert by_kind([floats, counts, faint]) == {
        Kind(3, "floats"): [floats], Kind(3, "counts"): [counts], Kind(3, "faint"): [faint],
    }  # fmt: skip
    assert list(map(str, by_kind([photo, dark, floats]))) == [
        "dim colour",
        "colour float",
        "colour",
    ]


def test_survey_names_what_cannot_be_used_and_goes_on(tmp_path: Path) -> None:
    hole = pixels(16, 16, dtype="float32")
    hole[3, 5] = np.nan
    bad = [
        cut_off(save(tmp_path / "cut.png")),
        save(tmp_path / "hole.npy", hole),
        save(tmp_path / "small.png", pixels(3, 60)),
        save(tmp_path / "colour.png", pixels(16, 16, 3)),
        tmp_path / "gone.png",
    ]
    good = save(tmp_path / "good.png")
    seen: list[Path] = []
    pictures, failures = survey([*bad, good], channels=[1], smallest=4, on_file=seen.append)
    assert [picture.path for picture in pictures] == [good]
    assert [failure.path for failure in failures] == bad
    assert seen == [*bad, good]
    reasons = [failure.reason for failure in failures]
    for reason, words in zip(
        reasons,
        ("cut", "1 values .* row 3, column 5", "60 x 3", "has 3 channels", "No such file"),
        strict=True,
    ):
        assert re.search(words, reason), reason
    assert str(failures[2]).startswith(str(bad[2]))
    assert str(failures[0]).count("cut.png") == 1


def test_survey_lets_nan_pass_where_it_is_to_be_masked(tmp_path: Path) -> None:
    path = save(tmp_path / "hole.npy", np.full((8, 8), np.nan, np.float32))
    (picture,), failures = survey([path], nan="mask")
    assert not picture.finite
    assert not failures
    with pytest.raises(SettingError, match="'error' or 'mask'"):
        survey([path], nan="ignore")


def test_a_format_that_cannot_hold_the_picture_is_found_beforehand(tmp_path: Path) -> None:
    deep = save(tmp_path / "deep.png", pixels(8, 8, dtype="uint16"))
    clear = save(tmp_path / "clear.png", pixels(8, 8), pixels(8, 8))
    plain = save(tmp_path / "plain.png", pixels(8, 8))
    targets = {path: tmp_path / "out" / f"{path.stem}.jpg" for path in (deep, clear, plain)}
    pictures, failures = survey(list(targets), check=fits_format(targets))
    assert [picture.path for picture in pictures] == [plain]
    assert "16" in failures[0].reason
    assert "alpha" in failures[1].reason


def test_what_a_library_cannot_write_is_a_failure_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, odd = save(tmp_path / "a.png", pixels(8, 8)), save(tmp_path / "b.png", pixels(8, 9))
    targets = {path: tmp_path / "out" / path.name for path in (good, odd)}
    write = png.write_samples

    def fail(samples: np.ndarray[Any, Any], chunks: object) -> bytes:
        if samples.shape[:2] == (1, 1) and len(seen) == 1:
            raise struct.error("argument out of range")
        seen.append(samples)
        return write(samples, chunks)  # type: ignore[arg-type]

    seen: list[object] = []
    monkeypatch.setattr(png, "write_samples", fail)
    pictures, failures = survey(list(targets), check=fits_format(targets))
    assert [picture.path for picture in pictures] == [good]
    assert "cannot be written as png: argument out of range" in failures[0].reason


# The work


def test_files_come_back_in_their_own_form(tmp_path: Path, grey: AsymmetricMaskDenoiser) -> None:
    stored = {
        "a.png": pixels(19, 24),
        "deep/b.tif": pixels(20, 21, dtype="uint16"),
        "deep/c.npy": pixels(20, 21, 1, dtype="float64"),
    }
    for name, content in stored.items():
        save(tmp_path / "in" / name, content)
    cover = pixels(19, 24)
    save(tmp_path / "in" / "alpha.png", pixels(19, 24), cover)
    tasks = make_plan([tmp_path / "in"], tmp_path / "out").tasks
    seen: list[Done | Failure] = []
    summary = denoise_files(tasks, takes(tasks, grey), on_file=seen.append)
    assert [done.task for done in summary.done] == list(tasks)
    assert seen == list(summary.done)
    assert summary.failures == ()
    for name, content in stored.items():
        result = read_image(tmp_path / "out" / name).pixels
        assert (result.dtype, result.shape) == (content.dtype, content.shape)
        np.testing.assert_array_equal(result, grey.denoise(content))
        assert not np.array_equal(result, content)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "alpha.png").alpha, cover)


def test_strength_zero_gives_the_input(tmp_path: Path, grey: AsymmetricMaskDenoiser) -> None:
    source = save(tmp_path / "a.png")
    task = Task(source, tmp_path, tmp_path / "out.png")
    denoise_files([task], takes([task], grey), strength=0.0)
    np.testing.assert_array_equal(read_image(task.target).pixels, read_image(source).pixels)


def test_bad_files_are_named_and_the_others_done(
    tmp_path: Path, grey: AsymmetricMaskDenoiser
) -> None:
    cut = cut_off(save(tmp_path / "in" / "cut.png"))
    colour = save(tmp_path / "in" / "dots.png", pixels(9, 9, 3))
    save(tmp_path / "in" / "good.png")
    gone = Task(tmp_path / "in" / "gone.png", tmp_path / "in", tmp_path / "out" / "gone.png")
    tasks = [gone, *make_plan([tmp_path / "in"], tmp_path / "out").tasks]
    summary = denoise_files(tasks, takes(tasks, grey))
    assert [failure.path for failure in summary.failures] == [gone.source, cut, colour]
    assert "has 3 channels" in summary.failures[2].reason
    assert tree(tmp_path / "out") == ["good.png"]


def test_a_full_disk_ends_the_job_and_leaves_no_part(
    tmp_path: Path, grey: AsymmetricMaskDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        save(tmp_path / "in" / name)
    tasks = make_plan([tmp_path / "in"], tmp_path / "out").tasks
    calls = []
    sync = os.fsync

    def full_after_two(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", full_after_two)
    summary = denoise_files(tasks, takes(tasks, grey))
    assert len(summary.done) == 2
    assert "No space left on device" in summary.failures[0].reason
    assert summary.failures[1].reason.startswith("not tried")
    assert len(calls) == 3
    assert tree(tmp_path / "out") == ["a.png", "b.png"]


def test_the_next_file_is_read_and_the_last_one_written_while_the_network_works(
    tmp_path: Path, grey: AsymmetricMaskDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.png", "b.png", "c.png", "d.png"]
    for name in names:
        save(tmp_path / "in" / name)
    tasks = make_plan([tmp_path / "in"], tmp_path / "out").tasks
    meeting, places = threading.Barrier(3, timeout=30), set()
    read, write, denoise = batch.read_image, batch.write_image, grey.denoise
    passed: list[Array] = []

    def meet() -> None:
        places.add(threading.current_thread())
        meeting.wait()

    def reading(path: Path) -> ImageFile:
        if path.name == "c.png":
            meet()
        return read(path)

    def working(content: Array, **settings: Any) -> Array:
        passed.append(content)
        if len(passed) == 2:
            meet()
        return denoise(content, **settings)

    def writing(path: Path, image: ImageFile, *, quality: int) -> None:
        if path.name == "a.png":
            meet()
        write(path, image, quality=quality)

    monkeypatch.setattr(batch, "read_image", reading)
    monkeypatch.setattr(batch, "write_image", writing)
    monkeypatch.setattr(grey, "denoise", working)
    seen: list[str] = []
    in_thread = []

    def on_file(told: Done | Failure) -> None:
        seen.append(told.task.name if isinstance(told, Done) else told.reason)
        in_thread.append(threading.current_thread())

    denoise_files(tasks, takes(tasks, grey), on_file=on_file)
    assert seen == names
    assert len(places) == 3
    assert set(in_thread) == {threading.current_thread()}
    assert tree(tmp_path / "out") == names


def test_ctrl_c_keeps_what_was_denoised_and_a_second_run_does_the_rest(
    tmp_path: Path, grey: AsymmetricMaskDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.png", "b.png", "c.png", "d.png"]
    for name in names:
        save(tmp_path / "in" / name)
    calls, denoise = [], grey.denoise

    def press_at_the_third(content: Array, **settings: Any) -> Array:
        calls.append(content)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return denoise(content, **settings)

    tasks = make_plan([tmp_path / "in"], tmp_path / "out").tasks
    with monkeypatch.context() as patch:
        patch.setattr(grey, "denoise", press_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            denoise_files(tasks, takes(tasks, grey))
    assert tree(tmp_path / "out") == names[:2]
    rest = make_plan([tmp_path / "in"], tmp_path / "out", existing="skip")
    assert [task.name for task in rest.tasks] == names[2:]
    denoise_files(rest.tasks, takes(rest.tasks, grey))
    assert tree(tmp_path / "out") == names


def test_too_little_memory_is_a_failure_of_the_file(
    tmp_path: Path, grey: AsymmetricMaskDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [Task(save(tmp_path / "a.png"), tmp_path, tmp_path / "out.png")]

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")

    monkeypatch.setattr(AsymmetricMaskDenoiser, "denoise", fail)
    (failure,) = denoise_files(tasks, takes(tasks, grey)).failures
    assert "not enough memory" in failure.reason


def test_errors_of_the_program_are_not_hidden(
    tmp_path: Path, grey: AsymmetricMaskDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [Task(save(tmp_path / "a.png"), tmp_path, tmp_path / "out.png")]

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(AsymmetricMaskDenoiser, "denoise", fail)
    with pytest.raises(RuntimeError, match="illegal memory"):
        denoise_files(tasks, takes(tasks, grey))


def test_every_kind_of_picture_gets_a_model(tmp_path: Path) -> None:
    hole = np.full((16, 16), np.nan, np.float32)
    files = [
        save(tmp_path / "a.png", pixels(24, 24)),
        save(tmp_path / "b.png", pixels(24, 24, 3)),
        save(tmp_path / "c.npy", pixels(24, 24, 2, dtype="float32")),
        save(tmp_path / "d.npy", np.stack([hole, hole], 2)),
        save(tmp_path / "e.png", pixels(1, 24)),
    ]
    pictures, _ = survey(files, nan="mask")
    told: list[tuple[Kind, int]] = []
    models = fit_models(
        pictures, steps=1, progress=False, device="cpu", on_group=lambda *group: told.append(group)
    )
    assert told == [(Kind(1), 1), (Kind(2, "floats"), 1), (Kind(3), 1)]
    assert [(kind.channels, one.channels) for kind, one in models.items()] == [
        (1, 1), (2, 2), (3, 3),
    ]  # fmt: skip
    assert all(model.fit_record["steps"] == 1 for model in models.values())


def test_nothing_to_train_on_is_told(tmp_path: Path) -> None:
    pictures, _ = survey([save(tmp_path / "e.png", pixels(2, 24))])
    with pytest.raises(DataError, match="3 pixels or more"):
        fit_models(pictures, steps=1, progress=False)


def test_pictures_with_holes_are_fitted_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hole = pixels(40, 48, dtype="float32")
    hole[10:12, 20] = np.nan
    nothing = np.full((40, 48), np.nan, np.float32)
    seen: list[Any] = []
    fit = AsymmetricMaskDenoiser.fit

    def spy(self: AsymmetricMaskDenoiser, data: Any, **settings: Any) -> AsymmetricMaskDenoiser:
        seen.append(data)
        return fit(self, data, **settings)

    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", spy)
    pictures, _ = survey(
        [save(tmp_path / "a.npy", hole), save(tmp_path / "b.npy", nothing)], nan="mask"
    )
    (model,) = fit_models(pictures, steps=1, progress=False, device="cpu").values()
    ((filled,),) = seen
    assert np.array_equal(filled[np.isfinite(hole)], hole[np.isfinite(hole)])
    around = hole[9:13, 19:22]
    assert np.nanmin(around) <= filled[10, 20] <= np.nanmax(around)
    assert np.isfinite(model.denoise(hole, nan="mask")).all()
    pictures, _ = survey([tmp_path / "b.npy"], nan="mask")
    with pytest.raises(DataError, match="some of them no NaN"):
        fit_models(pictures, steps=1, progress=False)


def test_first_weights_are_decided_by_the_seed_alone() -> None:
    weights = []
    for seed, disturbed in ((1, False), (1, True), (2, False)):
        torch.rand(3 + disturbed)
        before = torch.get_rng_state()
        denoiser = new_denoiser("fast-unet", channels=1, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        weights.append(next(denoiser.backbone.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# Something to look at


def test_the_crop_is_where_most_is_to_be_seen() -> None:
    picture = pixels(200, 300, dtype="float32") * 0.1
    picture[120:180, 200:260] += 0.8
    top, left, height, width = telling_crop(picture, 96)
    assert (height, width) == (96, 96)
    assert picture[top : top + 96, left : left + 96].max() > 0.8
    assert telling_crop(picture[:5, :7], 96) == (0, 0, 5, 7)
    assert telling_crop(np.full((40, 40), np.nan, np.float32), 16)[2:] == (16, 16)


def test_preview_shows_the_crop_twice_and_measures_the_speed(
    tmp_path: Path, grey: AsymmetricMaskDenoiser
) -> None:
    source = save(tmp_path / "a.tif", pixels(40, 48, dtype="uint16"))
    made = make_preview(source, tmp_path / "out" / "p.png", grey, side=32)
    shown = np.asarray(Image.open(made.path))
    assert (made.height, made.width) == (32, 32)
    noisy = read_image(source).pixels[made.top :, made.left :][:32, :32]
    row, column = 34, 12
    left = shown[row : row + 64 : 2, column : column + 64 : 2, 0]
    np.testing.assert_allclose(left, noisy / 257, atol=0.51)
    column += 64 + 12
    right = shown[row : row + 64 : 2, column : column + 64 : 2, 0]
    np.testing.assert_allclose(right, grey.denoise(noisy) / 257, atol=0.51)
    assert 0 < made.seconds_per_pixel < 0.01
    small, large = (Picture(source, side, side, 1, "uint8") for side in (100, 4000))
    speed = made.seconds_per_pixel
    assert expected_seconds([small, small], speed) == pytest.approx(20_000 * speed)
    assert 16e6 * speed < expected_seconds([large], speed) < 24e6 * speed


def test_pictures_beside_each_other_are_labelled_and_aligned() -> None:
    black, white = np.zeros((20, 30), np.uint8), np.ones((10, 40, 3), np.float32)
    panel = side_by_side([[("a", black), ("b", black)], [("c", white)]])
    assert panel.shape[1] == 3 * 12 + 40 + 30  # a column is as wide as its widest picture
    assert (panel[34:54, 12:42] == 0).all()
    assert (panel[34:54, 64:94] == 0).all()
    assert (panel[:34, 12:30] < 100).any()
    with pytest.raises(DataError, match="no picture"):
        side_by_side([])


def test_a_long_label_does_not_run_into_the_next() -> None:
    picture = np.zeros((8, 8), np.uint8)
    alone = side_by_side([[("a long label", picture)]])
    both = side_by_side([[("a long label", picture), ("", picture)]])
    assert alone.shape[1] > 80
    assert np.array_equal(both[:34, : alone.shape[1]], alone[:34])
    assert (both[:34, alone.shape[1] :] == 255).all()
    assert (both[34:42, alone.shape[1] : alone.shape[1] + 8] == 0).all()


def test_ctrl_c_while_one_kind_is_fitted_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(denoiser: AsymmetricMaskDenoiser, *data: object, **settings: object) -> None:
        denoiser.fit_record = {"stopped": "interrupted"}

    monkeypatch.setattr(AsymmetricMaskDenoiser, "fit", stopped)
    pictures, _ = survey(
        [save(tmp_path / "a.png", pixels(8, 8)), save(tmp_path / "b.png", pixels(8, 8, 3))]
    )
    assert list(fit_models(pictures, steps=1, progress=False)) == [Kind(1)]


def test_one_narrow_picture_does_not_stop_an_adaptation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []

    def adapt(denoiser: AsymmetricMaskDenoiser, noisy: list[Path], **settings: object) -> None:
        taken.extend(noisy)
        denoiser.fit_record = {"stopped": "finished"}

    monkeypatch.setattr(AsymmetricMaskDenoiser, "adapt", adapt)
    files = [save(tmp_path / "a.png", pixels(8, 8)), save(tmp_path / "b.png", pixels(8, 1))]
    model = new_denoiser("fast-unet", channels=1)
    adapt_models({Kind(1): model}, survey(files)[0], minutes=1)
    assert taken == [tmp_path / "a.png"]
    with pytest.raises(DataError, match="2 pixels or more"):
        adapt_models({Kind(1): model}, survey(files[1:])[0], minutes=1)

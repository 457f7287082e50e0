"""The report: one file, nothing from outside, pictures that decode, text that is escaped."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from masked_denoise.errors import DataError, ImageWriteError, PixelError, SettingError, SizeError
from masked_denoise.report import page as report
from masked_denoise.report.page import ReportEntry, write_report

VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        found = {}
        for attributes in self.all("img"):
            head, data = attributes["src"].split(",", 1)
            assert head == "data:image/jpeg;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                found[attributes["alt"]] = np.asarray(picture)
        return found


def scene(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    ramp = np.linspace(60, 190, width)
    return np.stack([np.tile(ramp, (height, 1))] * 3, axis=2).astype(np.uint8)


def entry(name: str = "a.png", **changes: Any) -> ReportEntry:
    clean = scene()
    noise = np.random.default_rng(1).normal(0, 10, (*clean.shape[:2], 1))
    noisy = (clean + noise).clip(0, 255).astype(np.uint8)
    denoised = (clean + noise / 5).clip(0, 255).astype(np.uint8)
    given = {"noisy": noisy, "denoised": denoised, "clean": clean, **changes}
    return ReportEntry(name, **given)


def test_page_is_self_contained(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", [entry()], title="My pictures", facts={"Passes": "4"})
    page = Page(path)
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]*", "", page.source)
    )
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert all("src" not in attributes for attributes in page.all("script"))
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "My pictures" in page.text
    assert "Passes 4" in page.text


def test_each_picture_has_a_labelled_slider(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "r.html", [entry("a.png"), entry("b.png")]))
    sliders = page.all("input")
    assert [slider["type"] for slider in sliders] == ["range", "range"]
    assert "a.png" in sliders[0]["aria-label"]
    assert "prefers-color-scheme: dark" in page.source
    assert {a["href"] for a in page.all("a")} == {"#picture-1", "#picture-2"}
    assert {a["id"] for a in page.all("section")} == {"picture-1", "picture-2"}


def test_pictures_decode_to_what_was_given(tmp_path: Path) -> None:
    given = entry()
    pictures = Page(write_report(tmp_path / "r.html", [given])).pictures()
    assert len(pictures) == 5
    for alt, expected in (("Noisy a.png", given.noisy), ("Denoised a.png", given.denoised)):
        assert np.abs(pictures[alt].astype(int) - expected).mean() < 3
    assert np.abs(pictures["Clean a.png"].astype(int) - given.clean).mean() < 2


def test_removed_is_noisy_minus_denoised_around_mid_grey(tmp_path: Path) -> None:
    clean = scene()
    step = np.zeros_like(clean)
    step[:, 30:] = 12
    page = Page(write_report(tmp_path / "r.html", [ReportEntry("s", clean + step, clean)]))
    times = int(re.search(r"denoised, \u00d7 (\d+) around mid grey", page.text).group(1))
    removed = page.pictures()["Removed from s"].astype(int)
    assert times in (4, 8)
    assert abs(removed[:, 5:25].mean() - 128) < 2
    assert abs(removed[:, 35:55].mean() - min(255, 127.5 + 12 * times)) < 2


def test_numbers_come_from_the_clean_picture(tmp_path: Path) -> None:
    given = entry(numbers={"Seconds": 1.25, "Passes": 4, "Camera": "A<B"})
    page = Page(write_report(tmp_path / "r.html", [given]))
    before, after = (
        10 * np.log10(255**2 / np.mean((x.astype(float) - given.clean) ** 2))
        for x in (given.noisy, given.denoised)
    )
    assert f"PSNR (dB) {before:.2f} → {after:.2f}" in page.text
    assert re.search(r"SSIM \(7x7\) 0\.\d{4} → 0\.\d{4}", page.text)
    assert "Seconds 1.25 Passes 4 Camera" in page.text
    assert "rounded to 8 bits" in page.text
    assert "Camera A<B" in page.text
    without = Page(write_report(tmp_path / "r.html", [entry(clean=None)]))
    assert "PSNR" not in without.text
    assert len(without.pictures()) == 3


def test_pairs_of_the_caller_are_kept_and_averaged(tmp_path: Path) -> None:
    entries = [entry(f"{i}", numbers={"Score": (10.0 + i, 20.0 + i)}) for i in (1, 2)]
    page = Page(write_report(tmp_path / "r.html", entries))
    assert "PSNR (dB)" not in page.text
    assert "Mean 11.50 21.50" in page.text
    assert "rounded to 8 bits" not in page.text


def test_text_is_escaped(tmp_path: Path) -> None:
    bad = '<script>alert("1")</script>\' onload=x.png'
    page = Page(
        write_report(tmp_path / "r.html", [entry(bad), entry()], title=bad, facts={bad: bad})
    )
    assert len(page.all("script")) == 1
    assert page.text.count(bad) >= 5
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert [bad in attributes["alt"] for attributes in page.all("img")] == [True] * 5 + [False] * 5
    assert bad in page.all("input")[0]["aria-label"]


@pytest.mark.parametrize(
    ("scale", "dtype", "value_range"),
    [
        (257, np.uint16, None),
        (1 / 255, np.float32, None),
        (1 / 255, np.float64, None),
        (2.0, np.float32, (0.0, 510.0)),
        (1, np.int32, (0.0, 255.0)),
    ],
)
@pytest.mark.parametrize("grey", [True, False])
def test_every_depth_looks_the_same(
    scale: float,
    dtype: Any,
    value_range: tuple[float, float] | None,
    grey: bool,
    tmp_path: Path,
) -> None:
    picture = scene()[..., 1] if grey else scene()
    stored = (picture * np.float64(scale)).astype(dtype)
    given = ReportEntry("p", stored, stored, value_range=value_range)
    shown = Page(write_report(tmp_path / "r.html", [given])).pictures()["Noisy p"]
    assert shown.shape == picture.shape
    assert np.abs(shown.astype(int) - picture).max() <= 3


@pytest.mark.parametrize(("channels", "shape"), [(1, ()), (2, ()), (4, (3,)), (7, (3,))])
def test_alpha_and_further_channels_are_left_out(
    channels: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    picture = np.repeat(scene()[..., :1], channels, axis=2)
    page = Page(write_report(tmp_path / "r.html", [ReportEntry("p", picture, picture)]))
    assert page.pictures()["Noisy p"].shape == (40, 60, *shape)


def test_large_pictures_are_reduced_with_a_detail(tmp_path: Path) -> None:
    clean = np.full((700, 1400, 3), 120, np.uint8)
    clean[500:, 1200::2] = 200
    noisy = clean + np.random.default_rng(0).integers(0, 30, clean.shape, dtype=np.uint8)
    path = write_report(tmp_path / "r.html", [ReportEntry("big", noisy, clean)], max_side=350)
    page = Page(path)
    assert "1400 \u00d7 700 pixels" in page.text
    assert "Shown reduced to 350 \u00d7 175" in page.text
    pictures = page.pictures()
    assert pictures["Noisy big"].shape == (175, 350, 3)
    detail = pictures["Denoised big, detail"]
    assert detail.shape == (report.DETAIL, report.DETAIL, 3)
    assert detail[..., 1].max() > 190  # the part with stripes
    assert path.stat().st_size < 1_000_000


def test_size_is_bounded_by_the_number_of_pictures(tmp_path: Path) -> None:
    entries = [entry(f"{i}.png") for i in range(6)]
    page = Page(write_report(tmp_path / "r.html", entries, max_pictures=2))
    assert len(page.all("section")) == 2
    assert "first 2 of 6" in page.text
    assert "5.png" in page.text


def test_entries_are_taken_one_by_one(tmp_path: Path) -> None:
    def produce() -> Iterator[ReportEntry]:
        yield entry("one")
        yield entry("two")

    assert "two" in Page(write_report(tmp_path / "r.html", produce())).text


def test_nan_pixels_are_said_not_measured(tmp_path: Path) -> None:
    noisy = scene().astype(np.float32) / 255
    noisy[3, 4] = np.nan
    clean = scene().astype(np.float32) / 255
    page = Page(write_report(tmp_path / "r.html", [ReportEntry("n", noisy, clean, clean)]))
    assert "not measured, there are NaN or infinite pixels" in page.text


def test_tiny_and_equal_pictures(tmp_path: Path) -> None:
    dot = np.zeros((1, 1), np.uint8)
    page = Page(write_report(tmp_path / "r.html", [ReportEntry("dot", dot, dot, dot)]))
    assert "PSNR (dB) ∞ → ∞" in page.text
    assert "SSIM (" not in page.text


@pytest.mark.parametrize(
    ("entries", "settings", "error"),
    [
        ([], {}, DataError),
        ([entry(denoised=scene(20, 20))], {}, SizeError),
        ([ReportEntry("p", np.zeros(4), np.zeros(4))], {}, SizeError),
        ([ReportEntry("p", np.zeros((4, 4), bool), np.zeros((4, 4), bool))], {}, PixelError),
        ([entry(value_range=(1.0, 1.0))], {}, SettingError),
        ([entry()], {"max_side": 3}, SettingError),
        ([entry()], {"max_pictures": 0}, SettingError),
    ],
)
def test_bad_input_is_named_and_leaves_no_file(
    entries: list[ReportEntry], settings: dict[str, int], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        write_report(tmp_path / "r.html", entries, **settings)
    assert not list(tmp_path.iterdir())


def test_folder_is_made_where_it_can_be(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "r.html", [entry()])
    assert (tmp_path / "new" / "r.html").is_file()
    with pytest.raises(ImageWriteError, match="cannot be written"):
        write_report(tmp_path / "new" / "r.html" / "below_a_file.html", [entry()])


def test_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("old", encoding="utf-8")

    def fail(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.os, "replace", fail)
    with pytest.raises(ImageWriteError, match="No space left"):
        write_report(path, [entry()])
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]

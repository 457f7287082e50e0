"""Files come back as they went in, the right way up, or an error names them."""

from __future__ import annotations

import errno
import importlib.util
import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from masked_denoise.errors import (
    DataError,
    ImageReadError,
    ImageWriteError,
    PixelError,
    SettingError,
    SizeError,
    UnknownNameError,
)
from masked_denoise.images import (
    ImageFile,
    files,
    find_images,
    output_path,
    output_paths,
    png,
    read_image,
    write_image,
)
from masked_denoise.jobs.survey import survey

Array = np.ndarray[Any, Any]
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(dtype: str = "uint8", shape: tuple[int, ...] = (13, 10, 3), seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.normal(0, 1e3, shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def same(left: Array | None, right: Array | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())


def exif_with(orientation: int, note: str = "Test Camera") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0110] = note
    return exif.tobytes()


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Round trips

ROUND_TRIPS = [
    (".png", dtype, shape, alpha)
    for dtype in ("uint8", "uint16")
    for shape in ((13, 10), (13, 10, 3), (1, 1), (150, 3, 3))
    for alpha in (False, True)
]
ROUND_TRIPS += [
    (".tif", dtype, shape, alpha)
    for dtype in ("uint8", "uint16", "float16", "float32", "float64")
    for shape in ((13, 10), (13, 10, 3), (13, 10, 2), (13, 10, 5), (1, 1))
    for alpha in (False, True)
]
ROUND_TRIPS += [
    (".npy", dtype, shape, False)
    for dtype in ("uint8", "uint16", "float16", "float32", "float64")
    for shape in ((13, 10), (13, 10, 1), (13, 10, 3), (13, 10, 7))
]


@pytest.mark.parametrize(("suffix", "dtype", "shape", "alpha"), ROUND_TRIPS)
def test_every_format_depth_and_channel_count_comes_back_exactly(
    tmp_path: Path, suffix: str, dtype: str, shape: tuple[int, ...], alpha: bool
) -> None:
    image = ImageFile(picture(dtype, shape), picture(dtype, shape[:2], 1) if alpha else None)
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    write_image(first, image)
    once = read_image(first)
    write_image(second, once)
    twice = read_image(second)
    for back in (once, twice):
        assert same(back.pixels, image.pixels)
        assert same(back.alpha, image.alpha)
        assert back.pixels.flags["C_CONTIGUOUS"]
        assert output_path(back.path or "", tmp_path, tmp_path).suffix == suffix
    assert files_in(tmp_path) == [f"first{suffix}", f"second{suffix}"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_programs_read_the_png_we_write(channels: int) -> None:
    samples = picture("uint8", (70, 31, channels))
    samples[20:40] = np.arange(31, dtype=np.uint8)[:, None]  # rows that like different filters
    samples[40:60] = np.arange(20, dtype=np.uint8)[:, None, None]
    with Image.open(io.BytesIO(png.write_samples(samples))) as opened:
        assert same(np.atleast_3d(np.asarray(opened)), samples)
    deep = picture("uint16", (1030, 3, channels))
    data = png.write_samples(deep)
    assert same(png.read_samples16(png.read_chunks(data)), deep)
    with Image.open(io.BytesIO(data)) as opened:  # Pillow shows the upper 8 bits of colours
        if channels == 1:
            assert (np.asarray(opened) == deep[..., 0]).all()
        elif channels > 2:
            assert (np.asarray(opened) == deep >> 8).all()


def filtered_line(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    """Return one line filtered byte by byte, as section 9.2 of the PNG specification says it."""
    out = bytearray([kind])
    for at, value in enumerate(line):
        a, c = (line[at - step], above[at - step]) if at >= step else (0, 0)
        b = above[at]
        nearest = min((a, b, c), key=lambda guess: abs(a + b - c - guess))
        out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
    return bytes(out)


@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [4], [4, 0, 3, 1, 2, 3, 4, 2]])
@pytest.mark.parametrize("shape", [(16, 9, 3), (16, 9), (1, 5, 3), (16, 1, 3)])
def test_every_filter_of_a_16_bit_png_is_undone(
    tmp_path: Path, kinds: list[int], shape: tuple[int, ...]
) -> None:
    deep = picture("uint16", shape)
    step = 6 if len(shape) == 3 else 2
    lines = [bytes(step * shape[1]), *(row.astype(">u2").tobytes() for row in deep)]
    body = b"".join(
        filtered_line(kinds[at % len(kinds)], line, lines[at], step)
        for at, line in enumerate(lines[1:])
    )
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 16, 2 if step == 6 else 0, 0, 0, 0)
    packed = zlib.compress(body)
    data = chunked((b"IHDR", header), (b"IDAT", packed[:9]), (b"IDAT", packed[9:]), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(data)
    assert same(read_image(tmp_path / "a.png").pixels, deep)


def test_a_16_bit_png_with_too_few_pixels_or_a_wrong_filter_is_damaged(tmp_path: Path) -> None:
    header = (b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    for body, said in ((b"\0" * 9, "9 of 10 bytes|damaged"), (b"\5" * 10, "filter|damaged")):
        data = chunked(header, (b"IDAT", zlib.compress(body)), (b"IEND", b""))
        with pytest.raises(ImageReadError, match=said):
            png.read_samples16(png.read_chunks(data))
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(ImageReadError, match=r"a\.png.*damaged"):
            read_image(tmp_path / "a.png")


def test_png_is_about_as_small_as_that_of_pillow() -> None:
    rows, columns = np.mgrid[:200, :300]
    clean = 100 + 50 * np.sin(rows / 30) + 40 * np.cos(columns / 17)
    noise = np.random.default_rng(0).normal(0, 3, (*clean.shape, 3))
    samples = (clean[..., None] + noise).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "PNG")
    assert len(png.write_samples(samples)) < 1.02 * len(buffer.getvalue())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".jpg"])
def test_arrays_that_are_not_contiguous_are_written_as_they_look(
    tmp_path: Path, suffix: str
) -> None:
    wide = picture("uint8", (40, 40, 3))
    for index, view in enumerate((wide[::-2, 3:30:2], wide.transpose(1, 0, 2), wide[..., ::-1])):
        assert not view.flags["C_CONTIGUOUS"]
        seen, copied = tmp_path / f"{index}view{suffix}", tmp_path / f"{index}copy{suffix}"
        write_image(seen, ImageFile(view))
        write_image(copied, ImageFile(view.copy()))
        assert seen.read_bytes() == copied.read_bytes()
        assert suffix == ".jpg" or same(read_image(seen).pixels, view)


def test_big_endian_pixels_come_back_in_the_byte_order_of_the_machine(tmp_path: Path) -> None:
    deep = picture("uint16")
    tifffile.imwrite(tmp_path / "big.tif", deep, byteorder=">", photometric="rgb")
    tifffile.imwrite(
        tmp_path / "float.tif", picture("float32"), byteorder=">", photometric="rgb", bigtiff=True
    )
    np.save(tmp_path / "big.npy", deep.astype(">u2"))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(deep))
    for name in ("big.tif", "big.npy", "fortran.npy"):
        assert same(read_image(tmp_path / name).pixels, deep)
    assert same(read_image(tmp_path / "float.tif").pixels, picture("float32"))
    for suffix in (".png", ".tif"):
        write_image(tmp_path / f"again{suffix}", ImageFile(deep.astype(">u2")))
        assert same(read_image(tmp_path / f"again{suffix}").pixels, deep)


# What other programs write


def interlaced_png16(samples: Array) -> bytes:
    """Return samples (H, W, 3) as an Adam7 PNG without filters."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    body = b""
    for top, left, down, right in [*passes, (1, 0, 2, 1)]:
        for row in samples[top::down, left::right]:
            body += b"\0" + row.astype(">u2").tobytes() if row.size else b""
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, 2, 0, 0, 1)
    return chunked((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b""))


def chunked(*chunks: tuple[bytes, bytes]) -> bytes:
    framed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return png.SIGNATURE + b"".join(framed)


def test_interlaced_16_bit_png(tmp_path: Path) -> None:
    deep = picture("uint16", (11, 19, 3))
    (tmp_path / "a.png").write_bytes(interlaced_png16(deep))
    assert same(read_image(tmp_path / "a.png").pixels, deep)


def test_16_bit_png_with_a_transparent_colour(tmp_path: Path) -> None:
    for colours, shape in ((1, (5, 6)), (3, (5, 6, 3))):
        deep = picture("uint16", shape)
        deep[2, 3] = 7
        clear = struct.pack(f">{colours}H", *[7] * colours)
        data = png.write_samples(np.atleast_3d(deep), [(b"tRNS", clear)])
        (tmp_path / "a.png").write_bytes(data)
        image = read_image(tmp_path / "a.png")
        expected = np.full((5, 6), 65535, np.uint16)
        expected[2, 3] = 0
        assert same(image.pixels, deep)
        assert same(image.alpha, expected)


def test_palettes_become_colours_and_one_bit_becomes_grey(tmp_path: Path) -> None:
    colours = Image.fromarray(picture()).quantize(16)
    shown = np.asarray(colours.convert("RGB"))
    colours.save(tmp_path / "palette.png")
    colours.save(tmp_path / "palette.tif")
    colours.save(tmp_path / "lzw.tif", compression="tiff_lzw")
    for name in ("palette.png", "palette.tif", "lzw.tif"):
        image = read_image(tmp_path / name)
        assert same(image.pixels, shown)
        assert image.alpha is None
    colours.save(tmp_path / "clear.png", transparency=3)
    clear = read_image(tmp_path / "clear.png")
    assert same(clear.pixels, shown)
    assert same(clear.alpha, np.where(np.asarray(colours) == 3, 0, 255).astype(np.uint8))

    bits = picture(shape=(9, 13)) > 127
    for name in ("bits.png", "bits.tif"):
        Image.fromarray(bits).save(tmp_path / name)
    Image.fromarray(bits).save(tmp_path / "fax.tif", compression="group4")
    for name in ("bits.png", "bits.tif", "fax.tif"):
        assert same(read_image(tmp_path / name).pixels, bits.astype(np.uint8) * np.uint8(255))


def test_grey_png_with_a_transparent_grey(tmp_path: Path) -> None:
    grey = picture(shape=(8, 9))
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=int(grey[4, 4]))
    image = read_image(tmp_path / "a.png")
    assert same(image.pixels, grey)
    assert same(image.alpha, np.where(grey == grey[4, 4], 0, 255).astype(np.uint8))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    arrays = {"rgb": picture(), "rgba": picture(shape=(13, 10, 4)), "grey": picture(shape=(13, 10))}
    arrays |= {"deep": picture("uint16", (13, 10)), "float": picture("float32", (13, 10))}
    for name, array in arrays.items():
        path = tmp_path / f"{name}.tif"
        Image.fromarray(array).save(path, compression=compression)
        image = read_image(path)
        stored = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
        assert same(stored, array)
        write_image(tmp_path / "out.tif", image)
        assert same(read_image(tmp_path / "out.tif").pixels, image.pixels)
        with tifffile.TiffFile(tmp_path / "out.tif") as written:
            assert written.pages[0].compression == 8


def test_jpeg_and_luma_in_tiff_are_read_as_pillow_shows_them(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.tif", compression="jpeg")
    tifffile.imwrite(tmp_path / "b.tif", picture(), photometric="ycbcr", subsampling=(1, 1))
    for name in ("a.tif", "b.tif"):
        with Image.open(tmp_path / name) as opened:
            shown = np.asarray(opened.convert("RGB"))
        assert same(read_image(tmp_path / name).pixels, shown)
        assert not same(shown, picture())


def test_16_bit_colour_in_a_compression_we_cannot_undo_is_refused_not_cut_to_8_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, picture("uint16"), photometric="rgb", compression="zlib")
    monkeypatch.setattr("masked_denoise.images.tiff._PLAIN_COMPRESSIONS", (1,))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImageReadError, match=r"deep.tif.*pip install imagecodecs"):
        read_image(path)


def test_planes_white_zero_and_multiplied_alpha_of_tiff(tmp_path: Path) -> None:
    planes = picture("uint16", (3, 13, 10))
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    assert same(read_image(tmp_path / "planes.tif").pixels, np.moveaxis(planes, 0, -1))
    grey = picture("uint8", (13, 10))
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite")
    assert same(read_image(tmp_path / "white.tif").pixels, 255 - grey)
    four = picture("uint8", (13, 10, 4))
    extra = ["unspecified", "unspecified", "unassalpha"]
    tifffile.imwrite(
        tmp_path / "three.tif",
        four,
        photometric="minisblack",
        extrasamples=extra,
        planarconfig="contig",
    )
    write_image(tmp_path / "out.tif", read_image(tmp_path / "three.tif"))
    with tifffile.TiffFile(tmp_path / "out.tif") as written:
        assert same(written.asarray(), four)
        assert written.pages[0].photometric.name == "MINISBLACK"
    for kind, code in (("assocalpha", 1), ("unassalpha", 2), ("unspecified", 0)):
        path = tmp_path / f"{kind}.tif"
        tifffile.imwrite(path, four, photometric="rgb", extrasamples=[kind])
        image = read_image(path)
        assert same(image.alpha, four[..., 3])
        write_image(tmp_path / "out.tif", image)
        assert same(tifffile.imread(tmp_path / "out.tif"), four)
        with tifffile.TiffFile(tmp_path / "out.tif") as written:
            assert [int(extra) for extra in written.pages[0].extrasamples] == [code]
        if kind == "assocalpha":
            with pytest.raises(SettingError, match="multiplied by alpha"):
                write_image(tmp_path / "out.png", image)
    assert "out.png" not in files_in(tmp_path)


def test_a_thumbnail_page_is_no_second_picture(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(picture("uint16"), photometric="rgb")
        file.write(picture("uint16", (4, 3, 3)), photometric="rgb", subfiletype=1)
    assert same(read_image(tmp_path / "a.tif").pixels, picture("uint16"))


def test_the_contents_decide_not_the_suffix(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", ImageFile(picture("float32")))
    (tmp_path / "a.tif").rename(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.format == "tiff"
    assert same(image.pixels, picture("float32"))


# Metadata and orientation


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_profile_resolution_and_exif_are_kept(tmp_path: Path, suffix: str, dtype: str) -> None:
    if (suffix, dtype) == (".jpg", "uint16"):
        pytest.skip("JPEG has 8 bits")
    exif = exif_with(1)
    source = ImageFile(picture(dtype), icc_profile=ICC, exif=exif, dpi=(300.0, 150.0))
    write_image(tmp_path / f"a{suffix}", source)
    image = read_image(tmp_path / f"a{suffix}")
    write_image(tmp_path / f"b{suffix}", image)
    again = read_image(tmp_path / f"b{suffix}")
    assert image.icc_profile == again.icc_profile == ICC
    assert image.dpi == again.dpi == pytest.approx((300.0, 150.0), abs=0.02)
    if suffix != ".tif":
        assert image.exif == again.exif == exif
    with Image.open(tmp_path / f"b{suffix}") as opened:
        assert opened.info["icc_profile"] == ICC


def test_metadata_of_other_programs_goes_from_jpeg_to_png(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(
        tmp_path / "a.jpg", icc_profile=ICC, exif=exif_with(1), dpi=(240, 240)
    )
    write_image(tmp_path / "a.png", read_image(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.info["icc_profile"] == ICC
        assert opened.info["dpi"] == pytest.approx((240, 240), abs=0.02)
        assert opened.getexif()[0x0110] == "Test Camera"


def test_colour_chunks_of_png_stay_in_png_only(tmp_path: Path) -> None:
    gamma = (b"gAMA", struct.pack(">I", 100000))
    (tmp_path / "a.png").write_bytes(png.write_samples(picture("uint16"), [gamma]))
    image = read_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png", image)
    assert png.read_chunks((tmp_path / "b.png").read_bytes())[b"gAMA"] == gamma[1]
    write_image(tmp_path / "b.tif", image)
    write_image(tmp_path / "c.png", read_image(tmp_path / "b.tif"))
    assert b"gAMA" not in png.read_chunks((tmp_path / "c.png").read_bytes())


def test_text_and_resolution_of_tiff_are_kept(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        picture("uint16", (13, 10)),
        description="ImageJ=1.53\nunit=micron",
        resolution=((98765, 1000), (43210, 1000)),
        resolutionunit=3,
        extratags=[(315, 2, 0, "Zoë".encode(), True)],
        metadata=None,
    )
    write_image(tmp_path / "b.tif", read_image(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "b.tif") as written:
        tags = {tag.code: tag.value for tag in written.pages[0].tags}
    assert tags[270] == "ImageJ=1.53\nunit=micron"
    assert tags[315] == "Zoë"
    assert (tags[296], tags[282][0] / tags[282][1]) == (3, pytest.approx(98.765))
    assert tags[283][0] / tags[283][1] == pytest.approx(43.21)
    assert read_image(tmp_path / "a.tif").dpi == pytest.approx((98.765 * 2.54, 43.21 * 2.54))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.jpg", "b.png"),
        ("a.jpg", "b.jpg"),
        ("a.png", "b.png"),
        ("a.tif", "b.tif"),
        ("a.tif", "b.png"),
        ("lzw.tif", "b.tif"),
    ],
)
def test_viewers_show_the_result_the_same_way_up(
    tmp_path: Path, orientation: int, name: str, target: str
) -> None:
    blocks = np.kron(picture(shape=(2, 3, 3)), np.ones((16, 16, 1), np.uint8))
    if name == "lzw.tif":
        options = {"compression": "tiff_lzw", "tiffinfo": {0x0112: orientation}, "dpi": (90, 40)}
        Image.fromarray(blocks).save(tmp_path / name, **options)
    elif name == "a.tif":
        turn = [(0x0112, 3, 1, orientation, True)]
        tifffile.imwrite(
            tmp_path / name, blocks, photometric="rgb", extratags=turn, resolution=(90, 40)
        )
    else:
        Image.fromarray(blocks).save(
            tmp_path / name, exif=exif_with(orientation), dpi=(90, 40), quality=100, subsampling=0
        )
    with Image.open(tmp_path / name) as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
    image = read_image(tmp_path / name)
    write_image(tmp_path / target, image, quality=100)
    with Image.open(tmp_path / target) as opened:
        assert opened.getexif().get(0x0112, 1) == 1
        result = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
        assert opened.info["dpi"] == pytest.approx((40, 90) if orientation > 4 else (90, 40), 0.01)
        if not name.endswith(".tif"):
            assert opened.getexif()[0x0110] == "Test Camera"
    assert result.shape == shown.shape == ((48, 32, 3) if orientation > 4 else (32, 48, 3))
    assert np.abs(result - shown).max() <= (3 if target == "b.jpg" else 0)


def test_alpha_and_16_bit_turn_with_the_picture(tmp_path: Path) -> None:
    deep = picture("uint16", (4, 6, 4))
    exif = exif_with(6).removeprefix(b"Exif\0\0")
    (tmp_path / "a.png").write_bytes(png.write_samples(deep, [(b"eXIf", exif)]))
    image = read_image(tmp_path / "a.png")
    assert same(image.pixels, np.rot90(deep[..., :3], -1))
    assert same(image.alpha, np.rot90(deep[..., 3], -1))


def test_makers_notes_stay_where_they_are_and_the_old_thumbnail_goes(tmp_path: Path) -> None:
    thumbnail = struct.pack("<HHHIHHII", 1, 0x0103, 3, 1, 6, 0, 0, 0)[:18]
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x010E, 2, 8, 42)
    first = struct.pack("<H", 2) + entries + struct.pack("<I", 50)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + b"\0" * 4 + b"offset!\0" + thumbnail
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    kept = read_image(tmp_path / "a.jpg").exif
    assert kept is not None
    assert len(kept) == len(exif)
    assert kept[6 + 8 + 2 + 8] == 1
    assert kept[6 + 8 + 2 + 24 : 6 + 8 + 2 + 28] == b"\0" * 4
    changed = [at for at, (old, new) in enumerate(zip(exif, kept, strict=True)) if old != new]
    assert changed == [6 + 8 + 2 + 8, 6 + 8 + 2 + 24]  # the orientation, the thumbnail's offset
    assert Image.open(tmp_path / "a.jpg").getexif()[0x0112] == 6


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif"])
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels.shape == (13, 10, 3)
    assert image.exif is None


def test_jpeg_becomes_png_unless_asked(tmp_path: Path) -> None:
    Image.fromarray(picture(shape=(16, 16, 3))).save(tmp_path / "a.jpg", quality=50)
    image = read_image(tmp_path / "a.jpg")
    target = output_path(tmp_path / "a.jpg", tmp_path, tmp_path / "out")
    write_image(target, image)
    assert target.name == "a.png"
    with Image.open(target) as opened:
        assert opened.format == "PNG"
    assert same(read_image(target).pixels, image.pixels)
    target = output_path(tmp_path / "a.jpg", tmp_path, tmp_path / "out", format="jpeg")
    write_image(target, image)
    with Image.open(target) as opened:
        assert opened.format == "JPEG"
        assert [component[1:3] for component in opened.layer] == [(1, 1)] * 3  # 4:4:4
    small = tmp_path / "out" / "small.jpg"
    write_image(small, image, quality=5)
    assert small.stat().st_size < target.stat().st_size


# What cannot be converted


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "alpha", "said"),
    [
        ("a.png", "float32", (4, 5), False, "float32.*--format tiff"),
        ("a.jpg", "float32", (4, 5), False, "float32.*--format tiff"),
        ("a.jpg", "uint16", (4, 5), False, "8 bits.*--format png"),
        ("a.jpg", "uint8", (4, 5), True, "alpha.*--format png"),
        ("a.npy", "uint8", (4, 5), True, "alpha.*--format png"),
        ("a.png", "uint8", (4, 5, 4), False, "not 4.*--format tiff"),
        ("a.jpg", "uint8", (4, 5, 2), False, "not 2.*--format tiff"),
        ("a.jpg", "uint8", (1, 65501), False, "65500"),
        ("a.gif", "uint8", (4, 5), False, r"\.png"),
        ("a", "uint8", (4, 5), False, r"\.png"),
    ],
)
def test_a_conversion_that_loses_something_is_refused(
    tmp_path: Path, name: str, dtype: str, shape: tuple[int, ...], alpha: bool, said: str
) -> None:
    image = ImageFile(picture(dtype, shape), picture(dtype, shape[:2]) if alpha else None)
    with pytest.raises(SettingError, match=said):
        write_image(tmp_path / name, image)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_is_checked(tmp_path: Path, quality: int) -> None:
    with pytest.raises(SettingError, match="1 to 100"):
        write_image(tmp_path / "a.jpg", ImageFile(picture()), quality=quality)


def test_pixels_that_no_file_can_hold_are_refused() -> None:
    for dtype in ("int16", "int64", "bool", "complex64"):
        with pytest.raises(PixelError, match=dtype):
            ImageFile(np.zeros((4, 5), dtype))
    for shape in ((4,), (4, 5, 3, 1), (0, 5), (4, 0, 3)):
        with pytest.raises(SizeError, match=r"\(H, W\)"):
            ImageFile(np.zeros(shape, np.uint8))
    for alpha in (np.zeros((5, 4), np.uint8), np.zeros((4, 5), np.uint16)):
        with pytest.raises(SizeError, match="alpha"):
            ImageFile(np.zeros((4, 5, 3), np.uint8), alpha)


# Damaged and unsupported files


def sample_files() -> dict[str, bytes]:
    samples = {"8.png": png.write_samples(picture(shape=(40, 30, 3)))}
    samples["16.png"] = png.write_samples(picture("uint16", (40, 30, 3)))
    samples["trns.png"] = png.write_samples(picture("uint16", (40, 30, 1)), [(b"tRNS", b"\0\0")])
    for name, options in {"plain.tif": {}, "deflate.tif": {"compression": "zlib"}}.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, picture("uint16", (40, 30, 3)), photometric="rgb", **options)
        samples[name] = buffer.getvalue()
    pillow: dict[str, dict[str, Any]] = {
        "a.jpg": {"format": "JPEG"},
        "progressive.jpg": {"format": "JPEG", "progressive": True},
        "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
        "last.tif": {"format": "TIFF"},
    }
    for name, options in pillow.items():
        buffer = io.BytesIO()
        Image.fromarray(picture(shape=(40, 30, 3))).save(buffer, **options)
        samples[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, picture("float32"))
    samples["a.npy"] = buffer.getvalue()
    return samples


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "data"), sample_files().items())
def test_cut_off_files_are_named_wherever_they_end(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    read_image(path)
    size = len(data)
    ends = {0, 1, 7, 8, 9, 20, 30, 60, 100, 180, 400, size // 4, size // 2, size * 9 // 10}
    ends |= {size - 200, size - 40, size - 20, size - 13, size - 5}
    ends |= set() if name.endswith(".jpg") else {size - 1}
    for end in sorted(ends):
        path.write_bytes(data[:end])
        with pytest.raises(ImageReadError, match=f"cannot read .*{name}"):
            read_image(path)


@pytest.mark.parametrize("name", ["8.png", "16.png"])
def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path, name: str) -> None:
    data = bytearray(sample_files()[name])
    data[len(data) // 2] ^= 4
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageReadError, match=rf"{name}.*damaged"):
        read_image(tmp_path / name)
    with pytest.raises(ImageReadError, match="wrong checksum"):
        png.read_chunks(bytes(data))


def test_a_tiff_without_some_of_its_strips_is_cut_off_not_black(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for tag in ("StripOffsets", "StripByteCounts"):
        tifffile.imwrite(path, picture("uint16", (40, 30)), rowsperstrip=10, compression="zlib")
        with tifffile.TiffFile(path, mode="r+") as file:
            stored = file.pages[0].tags[tag]
            stored.overwrite((*stored.value[:3], 0))
        with pytest.raises(ImageReadError, match=r"a\.tif.*cut off"):
            read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy"])
def test_empty_text_missing_and_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ImageReadError, match=rf"a\{suffix}.*No such file"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(ImageReadError, match=rf"a\{suffix}.*empty"):
        read_image(path)
    path.write_text("this is no picture")
    with pytest.raises(ImageReadError, match=rf"a\{suffix}.*not a PNG, JPEG, TIFF or NPY"):
        read_image(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ImageReadError, match=rf"a\{suffix}"):
        read_image(path)


def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    data = chunked((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    (tmp_path / "bomb.png").write_bytes(data)
    tifffile.imwrite(tmp_path / "bomb.tif", np.zeros((16, 16), np.uint8), compression="zlib")
    with tifffile.TiffFile(tmp_path / "bomb.tif", mode="r+") as bomb:
        for tag in ("ImageWidth", "ImageLength"):
            bomb.pages[0].tags[tag].overwrite(60_000)
    for name in ("bomb.png", "bomb.tif"):
        with pytest.raises(ImageReadError, match=rf"{name}.*too large.*pixels"):
            read_image(tmp_path / name)
    np.save(tmp_path / "bomb.npy", np.zeros((10, 10), np.float32))
    data = bytearray((tmp_path / "bomb.npy").read_bytes())
    data = data.replace(b"(10, 10), }        ", b"(1000000, 1000000),", 1)[:-1] + b"\0"
    data = data.replace(b"(1000000, 1000000),", b"(999999, 999999), }", 1)
    (tmp_path / "bomb.npy").write_bytes(data)
    with pytest.raises(ImageReadError, match=r"bomb.npy.*damaged or cut off"):
        read_image(tmp_path / "bomb.npy")


def test_kinds_that_are_not_supported_say_what_to_do(tmp_path: Path) -> None:
    def refused(said: str) -> None:
        with pytest.raises(ImageReadError, match=said):
            read_image(path)

    path = tmp_path / "a.jpg"
    Image.fromarray(picture(shape=(8, 8, 4)), "CMYK").save(path)
    refused("CMYK; convert")
    path = tmp_path / "a.png"
    frames = [Image.fromarray(picture(seed=seed)) for seed in (0, 1)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    refused("animated")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture("uint16", (5, 13, 10)), photometric="minisblack")
    refused("several pages; save each page")
    tifffile.imwrite(path, picture("uint16", (5, 13, 10)), imagej=True)
    refused("several pages; save each page")
    tifffile.imwrite(path, picture("uint8", (13, 10, 4)), photometric="separated")
    refused("SEPARATED.*convert")
    tifffile.imwrite(path, picture("uint8", (13, 10)).astype(np.int16))
    refused("int16; convert")
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 20, 20), np.float32))
    refused(r"\(C, H, W\) or a stack")
    np.save(path, np.zeros((2, 3, 20, 20), np.float32))
    refused(r"need \(H, W\)")
    np.save(path, np.zeros((20, 20), np.int64))
    refused("int64; convert")
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    refused("a.npy")


# Writing whole or not at all

IMAGE = ImageFile(picture("uint8", (64, 64, 3)))
SUFFIXES = [".png", ".jpg", ".tif", ".npy"]


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fills_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, step: str
) -> None:
    old, new = tmp_path / f"old{suffix}", tmp_path / f"new{suffix}"
    old.write_bytes(b"precious")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full_disk)
        for path in (old, new):
            with pytest.raises(ImageWriteError, match=rf"{path.name}.*No space left"):
                write_image(path, IMAGE)
    assert files_in(tmp_path) == [f"old{suffix}"]
    assert old.read_bytes() == b"precious"
    write_image(old, IMAGE)
    assert read_image(old).pixels.shape == (64, 64, 3)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_really_stops_half_way_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    old, new = tmp_path / f"old{suffix}", tmp_path / f"new{suffix}"
    old.write_bytes(b"precious")
    failures = []
    with largest_file(1000):
        for path in (old, new):
            try:
                write_image(path, IMAGE)
            except ImageWriteError as error:
                failures.append(str(error))
    assert len(failures) == 2
    assert all("File too large" in failure for failure in failures)
    assert files_in(tmp_path) == [f"old{suffix}"]
    assert old.read_bytes() == b"precious"


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", IMAGE)
    assert files_in(tmp_path) == []


def locked(folder: Path) -> Path:
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("permissions do not hold for this user")
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o555)
    return folder / "locked" / "a.png"


def under_a_file(folder: Path) -> Path:
    (folder / "file").write_text("text")
    return folder / "file" / "a.png"


def under_a_file_deeper(folder: Path) -> Path:
    return under_a_file(folder).parent / "sub" / "a.png"


def on_a_folder(folder: Path) -> Path:
    (folder / "a.png").mkdir()
    return folder / "a.png"


def with_a_name_too_long(folder: Path) -> Path:
    return folder / ("a" * 300 + ".png")


@pytest.mark.parametrize(
    "place", [locked, under_a_file, under_a_file_deeper, on_a_folder, with_a_name_too_long]
)
def test_places_that_cannot_be_written(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = place(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(ImageWriteError, match="cannot write") as caught:
        write_image(path, IMAGE)
    assert str(path) in str(caught.value)
    assert files_in(tmp_path) == before


def test_an_encoder_that_fails_is_an_error_of_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> bytes:
        raise struct.error("argument out of range")

    monkeypatch.setattr(files, "encode", fail)
    with pytest.raises(ImageWriteError, match=r"a.jpg: argument out of range"):
        write_image(tmp_path / "a.jpg", IMAGE)
    assert files_in(tmp_path) == []


def test_exif_that_a_jpeg_cannot_hold_is_told(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0" + b"x" * (65527 - 10)
    write_image(tmp_path / "a.jpg", replace(IMAGE, exif=exif))
    with pytest.raises(SettingError, match="65528 bytes; write"):
        write_image(tmp_path / "b.jpg", replace(IMAGE, exif=exif + b"x"))
    assert files_in(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_tells_the_sizes_of_the_picture_that_is_written(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0100], exif[0x0101] = 30, 20
    exif[0x8769] = {0xA002: 30, 0xA003: 20, 0x9003: "2026:01:02 03:04:05"}
    Image.new("RGB", (30, 20)).save(tmp_path / f"a.{suffix}", exif=exif.tobytes())
    read = read_image(tmp_path / f"a.{suffix}")
    write_image(tmp_path / "b.jpg", read)
    height, width = read.pixels.shape[:2]
    assert (width, height) == ((30, 20) if orientation < 5 else (20, 30))
    with Image.open(tmp_path / "b.jpg") as picture:
        found = picture.getexif()
        assert (found[0x0112], found[0x0100], found[0x0101]) == (1, width, height)
        details = found.get_ifd(0x8769)
        assert (details[0xA002], details[0xA003]) == (width, height)
        assert details[0x9003] == "2026:01:02 03:04:05"


def test_a_damaged_table_of_the_camera_does_not_cost_the_other_tags(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Test Camera"
    exif[0x8769] = {0xA002: 30, 0xA003: 20}
    data = exif.tobytes()
    order = ">" if data[6:8] == b"MM" else "<"
    place = data.index(struct.pack(f"{order}H", 0x8769)) + 8  # of the offset of that table
    damaged = data[:place] + struct.pack(f"{order}I", 0xFFFFFF) + data[place + 4 :]
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=damaged)
    read = read_image(tmp_path / "a.jpg")
    assert read.pixels.shape == (30, 20, 3)
    write_image(tmp_path / "b.jpg", read)
    with Image.open(tmp_path / "b.jpg") as picture:
        assert dict(picture.getexif())[0x0110] == "Test Camera"
        assert picture.getexif()[0x0112] == 1


def test_texts_of_a_png_go_along_but_not_those_that_say_how_it_was_turned(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_text("Title", "Müritz")
    texts.add_text("Comment", "long " * 100, zip=True)
    texts.add_itxt("Description", "東京", lang="ja")
    exif = exif_with(6)
    texts.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{exif.hex()}\n")
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png", pnginfo=texts)
    read = read_image(tmp_path / "a.png")
    assert read.pixels.shape == (30, 20, 3)
    for name in ("b.png", "c.jpg", "d.tif"):
        write_image(tmp_path / name, read)
    with Image.open(tmp_path / "b.png") as picture:
        picture.load()
        assert picture.text == {  # type: ignore[attr-defined]
            "Title": "Müritz", "Comment": "long " * 100, "Description": "東京"
        }  # fmt: skip


def test_a_damaged_profile_among_the_texts_does_not_cost_the_picture(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_text("Raw profile type exif", "\nexif\n 8\n0000000000000000\n")
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png", pnginfo=texts)
    assert read_image(tmp_path / "a.png").pixels.shape == (20, 30, 3)


def test_the_comment_of_a_jpeg_goes_along(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", comment=b"roll 7, frame 12")
    read = replace(read_image(tmp_path / "a.jpg"), xmp=xmp_with(1), exif=exif_with(1))
    for name in ("b.jpg", "c.png", "d.tif"):
        write_image(tmp_path / name, read)
    with Image.open(tmp_path / "b.jpg") as picture:
        assert picture.info["comment"] == b"roll 7, frame 12"
    again = read_image(tmp_path / "b.jpg")
    assert (again.xmp, again.exif) == (xmp_with(1), exif_with(1))


def xmp_with(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description xmp:Rating="4" '
        f'tiff:Orientation="{orientation}">Zürich</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


@pytest.mark.parametrize("first", ["png", "jpg", "tif"])
@pytest.mark.parametrize("second", ["png", "jpg", "tif"])
def test_xmp_goes_along(tmp_path: Path, first: str, second: str) -> None:
    image = replace(IMAGE, xmp=xmp_with(1), exif=exif_with(1), icc_profile=ICC, dpi=(300.0, 300.0))
    write_image(tmp_path / f"a.{first}", image)
    read = read_image(tmp_path / f"a.{first}")
    assert read.xmp == xmp_with(1)
    write_image(tmp_path / f"b.{second}", read)
    again = read_image(tmp_path / f"b.{second}")
    assert again.xmp == xmp_with(1)
    assert again.icc_profile == ICC
    if "tif" not in (first, second):
        assert again.exif == read.exif is not None
    with Image.open(tmp_path / f"b.{second}") as picture:
        picture.load()
        if hasattr(picture, "getxmp") and importlib.util.find_spec("defusedxml"):
            assert picture.getxmp()


def test_xmp_says_that_the_picture_is_upright(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", replace(IMAGE, xmp=xmp_with(6)))
    assert read_image(tmp_path / "a.jpg").xmp == xmp_with(1)
    element = b"<tiff:Orientation>8</tiff:Orientation>"
    write_image(tmp_path / "b.png", replace(IMAGE, xmp=element))
    assert read_image(tmp_path / "b.png").xmp == b"<tiff:Orientation>1</tiff:Orientation>"


def test_xmp_that_a_jpeg_cannot_hold_is_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", replace(IMAGE, xmp=bytes(70000)))
    assert read_image(tmp_path / "a.jpg").xmp is None


def test_xmp_of_two_bytes_a_letter_becomes_utf_8(tmp_path: Path) -> None:
    wide = xmp_with(6).decode().encode("utf-16")
    write_image(tmp_path / "a.tif", replace(IMAGE, xmp=wide))
    write_image(tmp_path / "b.png", read_image(tmp_path / "a.tif"))
    assert read_image(tmp_path / "b.png").xmp == xmp_with(1)


def test_a_tiff_that_ends_after_its_first_bytes_is_cut_off(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", IMAGE)
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:8])
    with pytest.raises(ImageReadError, match="cut off"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dpi", [(4294967295.0, 72.0), (math.nan, math.nan), (-1.0, -1.0)])
def test_a_resolution_that_is_none_does_not_cost_the_picture(
    tmp_path: Path, dpi: tuple[float, float]
) -> None:
    write_image(tmp_path / "a.png", replace(IMAGE, dpi=dpi))
    assert read_image(tmp_path / "a.png").dpi is None
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, IMAGE.pixels)


@pytest.mark.parametrize("ignored", [True, False])
def test_names_that_differ_in_case_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: bool
) -> None:
    monkeypatch.setattr(files, "_ignores_case", lambda path: ignored)
    found = [(tmp_path / name, tmp_path) for name in ("IMG.jpg", "img.png")]
    if ignored:
        with pytest.raises(SettingError, match="would both become"):
            output_paths(found, tmp_path / "out", format="png")
        with pytest.raises(SettingError, match="would replace"):
            output_paths([*found[:1], (tmp_path / "img.PNG", tmp_path)], tmp_path, format="png")
    else:
        assert len(output_paths(found, tmp_path / "out", format="png")) == 2


def test_whether_a_disk_ignores_case_is_tried(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    ignores = (tmp_path / "LETTERS").exists()
    assert files._ignores_case(tmp_path / "letters" / "not" / "there" / "a.png") is ignores


def test_missing_folders_are_made_and_files_have_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sub" / "a.png"
    write_image(path, IMAGE)
    (tmp_path / "usual").write_text("text")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


# Which files


def test_images_are_found_sorted_once_without_hidden_ones(tmp_path: Path) -> None:
    names = ["b.PNG", "a.jpeg", "sub/c.TIF", "sub/deep/d.npy", "B2.jpg"]
    ignored = ["notes.txt", ".hidden.png", "._a.jpg", ".cache/e.png", "png"]
    for name in names + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images(tmp_path)
    expected = ["a.jpeg", "b.PNG", "B2.jpg", "sub/c.TIF", "sub/deep/d.npy"]
    assert [file.relative_to(tmp_path).as_posix() for file, _ in found] == expected
    assert {root for _, root in found} == {tmp_path}
    flat = find_images([str(tmp_path)], recursive=False)
    assert [file.name for file, _ in flat] == ["a.jpeg", "b.PNG", "B2.jpg"]
    mixed = find_images([tmp_path / "sub" / "c.TIF", tmp_path, tmp_path / "a.jpeg"])
    assert len(mixed) == 5
    assert mixed[0] == (tmp_path / "sub" / "c.TIF", tmp_path / "sub")


def test_nothing_found_and_missing_inputs_are_errors(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(DataError, match=r"no images in .*\.png.*\.npy"):
        find_images([tmp_path])
    with pytest.raises(DataError, match="no images in an empty list"):
        find_images([])
    with pytest.raises(ImageReadError, match=r"no file or folder .*absent"):
        find_images([tmp_path, tmp_path / "absent"])


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    folder = locked(tmp_path).parent
    folder.chmod(0)
    with pytest.raises(ImageReadError, match=r"cannot list .*locked"):
        find_images([tmp_path])


def test_output_paths_keep_the_folders() -> None:
    def place(name: str, **options: Any) -> str:
        return output_path(f"in/{name}", "in", "out", **options).as_posix()

    assert place("a/b/c.v2.tif", suffix="_clean") == "out/a/b/c.v2_clean.tif"
    assert place("c.TIFF", format="tiff") == "out/c.TIFF"
    assert place("c.npy", format="PNG") == "out/c.png"
    assert place("c.png", format="jpg") == "out/c.jpg"
    assert place("c.dat", format="tif") == "out/c.tif"
    with pytest.raises(UnknownNameError, match="'pmg'; did you mean 'png'"):
        place("c.png", format="pmg")
    with pytest.raises(SettingError, match="--format png"):
        place("c.dat")
    with pytest.raises(SettingError, match="part of a file name"):
        place("c.png", suffix="/../c")
    with pytest.raises(SettingError, match="not under"):
        output_path("elsewhere/c.png", "in", "out")


def test_results_never_meet_each_other_or_an_input(tmp_path: Path) -> None:
    for name in ("in/a.jpg", "in/b.png", "more/a.png"):
        write_image(tmp_path / name, IMAGE)
    found = find_images(tmp_path / "in")
    targets = output_paths(found, tmp_path / "out")
    assert targets == [tmp_path / "out" / "a.png", tmp_path / "out" / "b.png"]
    with pytest.raises(SettingError, match=r"would replace .*b\.png.*--suffix"):
        output_paths(found, tmp_path / "in")
    assert len(output_paths(found, tmp_path / "in", suffix="_clean")) == 2
    both = find_images([tmp_path / "in", tmp_path / "more"])
    with pytest.raises(SettingError, match=r"a\.jpg and .*a\.png would both become"):
        output_paths(both, tmp_path / "out")


def test_a_full_memory_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> ImageFile:
        raise MemoryError("Unable to allocate 90 GiB")

    monkeypatch.setattr("masked_denoise.images.files.decode", full)
    (tmp_path / "a.png").write_bytes(b"")
    _, (failure,) = survey([tmp_path / "a.png"])
    assert "too large for this machine's memory" in str(failure)

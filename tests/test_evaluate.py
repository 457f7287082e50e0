"""Which files pair, and that the scores are those that everybody computes."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from masked_denoise.errors import DataError, ImageReadError
from masked_denoise.evaluate import evaluate_pairs
from masked_denoise.images import ImageFile, find_images, write_image
from masked_denoise.images.pairs import Pair, find_pairs, pair_files, pair_name
from masked_denoise.values import CountRange

RANDOM = np.random.default_rng(5)


def save(path: Path, pixels: np.ndarray[Any, Any] | None = None) -> Path:
    """Write pixels, by default a small noisy colour picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = RANDOM.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def names(pairs: tuple[Pair, ...]) -> list[tuple[str, str]]:
    return [(pair.name, pair.clean.name) for pair in pairs]


@pytest.mark.parametrize("ending", ["_real", "_mean", "_noisy", "_clean", "_gt", "_GT", ""])
def test_endings_do_not_count(ending: str) -> None:
    assert pair_name(f"photos/a_b{ending}.JPG") == "a_b"


def test_endings_count_in_the_middle_and_alone() -> None:
    assert pair_name("clean_room.png") == "clean_room"
    assert pair_name("_real.png") == "_real"


def test_result_of_a_suffix_pairs_with_its_source() -> None:
    assert pair_name("cat_noisy_clean.png") == pair_name("cat_gt.png") == "cat"


def test_pairs_across_endings_and_formats_and_names_the_lonely(tmp_path: Path) -> None:
    for name in ("a_real.jpg", "b_noisy.png", "only_here.png"):
        save(tmp_path / "noisy" / name)
    for name in ("a_mean.png", "b_gt.tif", "only_there_mean.png"):
        save(tmp_path / "clean" / name)
    pairing = find_pairs(tmp_path / "noisy", tmp_path / "clean")
    assert names(pairing.pairs) == [("a_real.jpg", "a_mean.png"), ("b_noisy.png", "b_gt.tif")]
    assert [path.name for path in pairing.unpaired_images] == ["only_here.png"]
    assert [path.name for path in pairing.unpaired_clean] == ["only_there_mean.png"]


def test_equal_names_in_sub_folders_do_not_mix(tmp_path: Path) -> None:
    for name in ("one/0.png", "two/0.png", "three/0.png"):
        save(tmp_path / "noisy" / name)
    for name in ("one/0.png", "two/0.png"):
        save(tmp_path / "clean" / name)
    pairing = find_pairs(tmp_path / "noisy", tmp_path / "clean")
    assert [pair.name for pair in pairing.pairs] == ["one/0.png", "two/0.png"]
    assert all(pair.image.parent.name == pair.clean.parent.name for pair in pairing.pairs)
    assert [path.parent.name for path in pairing.unpaired_images] == ["three"]


def test_a_flat_side_pairs_with_sub_folders(tmp_path: Path) -> None:
    save(tmp_path / "noisy" / "a.png")
    save(tmp_path / "clean" / "scene" / "a_gt.png")
    assert len(find_pairs(tmp_path / "noisy", tmp_path / "clean").pairs) == 1


def test_noisy_and_clean_in_one_folder(tmp_path: Path) -> None:
    for name in ("a_noisy.png", "a_clean.png", "b_noisy.png", "b_gt.png"):
        save(tmp_path / name)
    pairing = find_pairs(tmp_path, tmp_path)
    assert names(pairing.pairs) == [("a_noisy.png", "a_clean.png"), ("b_noisy.png", "b_gt.png")]
    assert not pairing.unpaired_images
    assert not pairing.unpaired_clean


def test_two_clean_pictures_of_one_name_are_an_error(tmp_path: Path) -> None:
    save(tmp_path / "noisy" / "a.png")
    save(tmp_path / "clean" / "a_gt.png")
    save(tmp_path / "clean" / "a_mean.png")
    with pytest.raises(DataError, match=r"a_gt\.png and .*a_mean\.png are both"):
        find_pairs(tmp_path / "noisy", tmp_path / "clean")


def test_two_files_pair_whatever_their_names(tmp_path: Path) -> None:
    image, clean = save(tmp_path / "result.png"), save(tmp_path / "truth.png")
    assert find_pairs(image, clean).pairs == (Pair("result.png", image, clean),)


def test_no_pair_is_an_error_that_names_both_sides(tmp_path: Path) -> None:
    save(tmp_path / "noisy" / "a.png")
    save(tmp_path / "clean" / "b.png")
    with pytest.raises(DataError, match=r"a\.png and b\.png"):
        find_pairs(tmp_path / "noisy", tmp_path / "clean")
    with pytest.raises(ImageReadError, match="nowhere"):
        find_pairs(tmp_path / "noisy", tmp_path / "nowhere")


def test_scores_are_those_of_scikit_image(tmp_path: Path) -> None:
    clean = RANDOM.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    noisy = np.clip(clean.astype(int) + RANDOM.integers(-9, 10, clean.shape), 0, 255).astype("u1")
    pair = Pair("x", save(tmp_path / "x.png", noisy), save(tmp_path / "x_gt.png", clean))
    (score,) = evaluate_pairs([pair]).scores
    assert score.psnr == pytest.approx(peak_signal_noise_ratio(clean, noisy), abs=1e-9)
    assert score.ssim == pytest.approx(
        structural_similarity(clean, noisy, channel_axis=2), abs=1e-9
    )
    assert score.input_psnr is score.seconds is None


def test_denoising_first_tells_before_and_after_and_who_got_worse(tmp_path: Path) -> None:
    clean = np.full((16, 16), 100, np.uint8)
    pairs = [
        Pair(
            name,
            save(tmp_path / f"{name}.png", clean + add),
            save(tmp_path / f"{name}_gt.png", clean),
        )
        for name, add in (("better", np.uint8(10)), ("worse", np.uint8(1)))
    ]
    found = evaluate_pairs(pairs, denoise=lambda pixels: np.full_like(pixels, 104))
    better, worse = found.scores
    assert better.input_psnr is not None
    assert better.psnr == worse.psnr > better.input_psnr
    assert found.worse == ("worse",)
    assert set(found.mean) == {"psnr", "ssim", "input_psnr", "input_ssim", "seconds"}
    assert found.mean["psnr"] == better.psnr


def test_a_pair_that_cannot_be_scored_does_not_stop_the_others(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png")
    broken = save(tmp_path / "broken.png")
    broken.write_bytes(broken.read_bytes()[:60])
    small = save(tmp_path / "small.png", np.zeros((9, 9, 3), np.uint8))
    found = evaluate_pairs([Pair(one.name, one, good) for one in (broken, small, good)])
    assert [score.name for score in found.scores] == ["good.png"]
    assert [failure.path for failure in found.failures] == [broken, small]
    assert "both need the same" in found.failures[1].reason


def test_equal_pictures_are_infinite_and_none_in_json(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    found = evaluate_pairs([Pair("a.png", image, image)])
    assert math.isinf(found.scores[0].psnr)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["images"] == [{"image": "a.png", "psnr": None, "ssim": 1.0}]
    assert plain["mean"]["psnr"] is None


def test_depths_may_differ_and_one_channel_is_grey(tmp_path: Path) -> None:
    grey = RANDOM.integers(0, 256, (16, 16), dtype=np.uint8)
    deep = save(tmp_path / "deep.npy", (grey.astype(np.uint16) * 257)[..., None])
    (score,) = evaluate_pairs([Pair("a", deep, save(tmp_path / "a.png", grey))]).scores
    assert math.isinf(score.psnr)


def test_floats_off_the_scale_need_their_range(tmp_path: Path) -> None:
    clean = RANDOM.uniform(0, 4000, (16, 16)).astype(np.float32)
    noisy = clean + RANDOM.normal(0, 100, clean.shape).astype(np.float32)
    pair = Pair("a", save(tmp_path / "a.npy", noisy), save(tmp_path / "a_gt.npy", clean))
    (failure,) = evaluate_pairs([pair]).failures
    assert "--value-range" in failure.reason
    (score,) = evaluate_pairs([pair], value_range=(-1000, 4000)).scores
    assert score.psnr == pytest.approx(20 * np.log10(5000 / 100), abs=0.7)


def test_scores_agree_with_the_tool_of_the_tables(shared: Path) -> None:
    spec = importlib.util.spec_from_file_location("score_tool", shared / "tools" / "score.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    folder = shared / "data" / "polyu"
    found = find_images(folder / "noisy"), find_images(folder / "clean_dev")
    pairing = pair_files(*found)
    assert (len(pairing.pairs), len(pairing.unpaired_images)) == (40, 60)
    pairs = pairing.pairs[::13]
    for pair, score in zip(pairs, evaluate_pairs(pairs).scores, strict=True):
        image, clean = tool.load(pair.image), tool.load(pair.clean)
        assert score.psnr == pytest.approx(tool.psnr(image, clean), abs=1e-6)
        expected = structural_similarity(image, clean, channel_axis=2)
        assert score.ssim == pytest.approx(expected, abs=1e-6)


def test_counts_are_scored_on_their_own_scale(tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(0, 3600, (16, 16)).astype(np.uint16)
    for name, pixels in (("clean", clean), ("noisy", clean + np.uint16(40))):
        write_image(tmp_path / f"{name}.tif", ImageFile(pixels))
    pairs = [Pair("a", tmp_path / "noisy.tif", tmp_path / "clean.tif")]
    found = evaluate_pairs(pairs, value_range={tmp_path / "noisy.tif": CountRange(0, 4000)})
    assert found.scores[0].psnr == pytest.approx(40, abs=0.5)  # 8 bits

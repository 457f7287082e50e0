"""Comparison of recipes: trained on the same pictures with the same budget, then scored."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MaskedDenoiseError, SettingError
from .evaluate import CONVENTION, evaluate_pairs
from .images import ImageFile, read_image, write_image
from .images.pairs import Pair, pair_name
from .jobs.plan import write_text
from .metrics import psnr
from .recipes import Recipe
from .report.crops import CropSheet, evenly_spaced
from .values import channels_of, middle, scale_of

if TYPE_CHECKING:
    from .denoiser import AsymmetricMaskDenoiser

Array = NDArray[Any]

MASKED_CONVENTION = (
    "PSNR in dB of pixels that were withheld, predicted from the others, against their own noisy "
    "values; correlated noise favours recipes that predict the noise, too"
)

_RESAMPLES = 2000  # bootstrap samples of the scenes
_SIDE, _PERIOD, _MOST = 256, 8, 8  # masked score: central crop, one pixel in 8 x 8, 8 pictures


@dataclass
class Outcome:
    """The outcome for one recipe.

    Attributes:
        recipe: its name.
        numbers: psnr, ssim, input_psnr, input_ssim (means over the pairs), psnr_to_input (of the
            result against the noisy picture: high where little was changed), worse (number of
            pictures with a lower PSNR than before), gain, gain_low, gain_high (mean difference of
            PSNR to the first recipe, with its 95 % interval over scenes), masked (without pairs),
            parameters, steps, training_seconds, seconds (per picture); each where known.
        images: the numbers of each picture.
        shared: the recipe whose training it shares, as the two differ in inference only.
        failed: the reason if the recipe failed.
    """

    recipe: str
    numbers: dict[str, float] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    shared: str | None = None
    failed: str | None = None


@dataclass
class Comparison:
    """The result of `compare_recipes`: outcomes in the order of the recipes, and sample crops.

    `interrupted` is True if Ctrl-C ended a training; that recipe and later ones are missing.
    """

    outcomes: list[Outcome]
    settings: dict[str, Any]
    convention: str
    crops: NDArray[np.uint8] | None = None
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        rows = [{k: v for k, v in vars(one).items() if v is not None} for one in self.outcomes]
        return {"convention": self.convention, "settings": self.settings, "recipes": rows}

    def to_csv(self) -> str:
        """Return CSV text with one line per recipe and one column per number."""
        keys = list(dict.fromkeys(key for one in self.outcomes for key in one.numbers))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["recipe", *keys, "shared", "failed"])
        for one in self.outcomes:
            cells = [one.numbers.get(key, "") for key in keys]
            writer.writerow([one.recipe, *cells, one.shared or "", one.failed or ""])
        return text.getvalue()


def compare_recipes(
    recipes: Sequence[Recipe],
    noisy: Sequence[Path],
    *,
    pairs: Sequence[Pair] = (),
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    models: Path | None = None,
    on_outcome: Callable[[Comparison], None] | None = None,
) -> Comparison:
    """Train recipes on the same pictures, with the same budget and seed, and return their scores.

    Recipes that differ in inference only share one training. If a recipe fails, its outcome has the
    reason, and the others continue; invalid settings of a recipe are found before any training.

    Args:
        recipes: with different names.
        noisy: files to train on, all with the same number of channels.
        pairs: (noisy, clean) to score; without any, files in `noisy` get the masked score.
        minutes: budget in time of each training.
        steps: budget in steps of each training; exactly one of the two is needed.
        seed: of initial weights, crops and masks.
        device: to train and denoise on; None for the best available one.
        progress: show a bar for each training.
        models: folder for the models, with one sub-folder per recipe; None keeps none.
        on_outcome: called after each recipe with the comparison so far.

    Raises:
        SettingError: not exactly one budget is given, or two recipes have the same name.
        DataError: there is no recipe or no picture.
        ImageReadError: the first picture cannot be read.
    """
    _check(recipes, noisy, minutes, steps)
    channels = channels_of(read_image(noisy[0]).pixels)
    for recipe in recipes:
        recipe.denoiser(channels=channels, seed=seed)
    shown = CropSheet([(one.image, one.clean) for one in pairs] or [(one, None) for one in noisy])
    trained: dict[str, tuple[str, AsymmetricMaskDenoiser]] = {}
    budget: dict[str, Any] = {"minutes": minutes, "steps": steps}
    settings = {
        **budget, "seed": seed, "trained_on": len(noisy), "scored": len(pairs) or len(noisy),
        "recipes": {recipe.name: dict(recipe.settings) for recipe in recipes},
    }  # fmt: skip
    found = Comparison([], settings, CONVENTION if pairs else MASKED_CONVENTION)
    for recipe in recipes:
        outcome = Outcome(recipe.name)
        try:
            denoiser = recipe.denoiser(channels=channels, seed=seed)
            key = recipe.training_key()
            if key in trained:
                outcome.shared, source = trained[key]
                _take(denoiser, source)
            else:
                denoiser.fit(
                    list(noisy), seed=seed, device=device, progress=progress, validation=False,
                    **budget, **recipe.fit_arguments,
                )  # fmt: skip
                if denoiser.fit_record["stopped"] == "interrupted":
                    found.interrupted = True
                    break
                trained[key] = recipe.name, denoiser
            if models is not None:
                denoiser.save_pretrained(models / _file_name(recipe.name), card=False)
            _score(outcome, denoiser, pairs, noisy, seed)
            shown.add(recipe.name, denoiser.denoise, denoiser.value_range, seed=seed)
        except (MaskedDenoiseError, RuntimeError, MemoryError) as error:
            # such as out of memory: the outcomes of the other recipes must not be lost
            outcome.failed = str(error).strip() or type(error).__name__
        _compare_to_first(outcome, found.outcomes)
        found.outcomes.append(outcome)
        found.crops = shown.picture()
        if on_outcome is not None:
            on_outcome(found)
    return found


def masked_score(denoiser: AsymmetricMaskDenoiser, image: Array, *, seed: int = 0) -> float:
    """Return how well withheld pixels are predicted, as PSNR in dB; no clean picture is needed.

    One pixel in 8 x 8 is removed from the picture, predicted by `denoise`, and compared with its
    own noisy value; of large pictures only the central 256 x 256 pixels are used. The score
    compares recipes with any scheme, stride or network on the same picture (Batson and Royer 2019,
    for any function). Where noise is correlated, it favours recipes that copy noise.

    Args:
        denoiser: already trained.
        image: noisy (H, W) or (H, W, C), as `denoise` accepts it.
        seed: of the withheld pixels and of the masks.
    """
    unit = middle(image, _SIDE)
    low, high = denoiser.value_range or (0.0, 1.0)
    if unit.dtype.kind != "f":
        black, scale = scale_of(unit.dtype.name, denoiser.value_range)
        unit = low + (high - low) * ((unit.astype(np.float32) - black) / np.float32(scale))
    row, column = np.random.default_rng(seed).integers(0, _PERIOD, 2)
    places = (slice(row, None, _PERIOD), slice(column, None, _PERIOD))
    holed = unit.astype(np.float32)
    holed[places] = np.nan
    predicted = denoiser.denoise(holed, nan="mask", seed=seed)
    return float(psnr(predicted[places], unit[places].astype(np.float32), data_range=high - low))


def _check(
    recipes: Sequence[Recipe], noisy: Sequence[Path], minutes: float | None, steps: int | None
) -> None:
    if (minutes is None) == (steps is None):
        raise SettingError("give one budget, minutes or steps, for all recipes: steps=2000")
    names = [recipe.name for recipe in recipes]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise SettingError(f"two recipes are called '{twins[0]}'; give them names of their own")
    if not recipes or not noisy:
        raise DataError("there is nothing to compare: a recipe and a noisy picture are needed")


def _take(denoiser: AsymmetricMaskDenoiser, source: AsymmetricMaskDenoiser) -> None:
    """Copy weights, range, noise level and record from a denoiser with the same training."""
    device = source.device
    denoiser.backbone.to(device).load_state_dict(source.backbone.state_dict())
    denoiser.value_range, denoiser.fit_record = source.value_range, source.fit_record
    denoiser.found_level(source.noise_level)
    denoiser.eval()


def _score(
    outcome: Outcome,
    denoiser: AsymmetricMaskDenoiser,
    pairs: Sequence[Pair],
    noisy: Sequence[Path],
    seed: int,
) -> None:
    """Fill in the numbers of an outcome."""
    record, numbers = denoiser.fit_record, outcome.numbers
    numbers["parameters"] = sum(one.numel() for one in denoiser.backbone.parameters())
    numbers["steps"], numbers["training_seconds"] = record["steps"], record["seconds"]
    if not pairs:
        for path in evenly_spaced(noisy, _MOST):
            start = time.perf_counter()
            decibel = masked_score(denoiser, read_image(path).pixels, seed=seed)
            seconds = time.perf_counter() - start
            outcome.images.append({"image": path.name, "masked": decibel, "seconds": seconds})
        numbers["masked"] = float(np.mean([one["masked"] for one in outcome.images]))
        numbers["seconds"] = float(np.mean([one["seconds"] for one in outcome.images]))
        return
    kept: list[float] = []

    def run(pixels: Array) -> Array:
        result: Array = denoiser.denoise(pixels, seed=seed)
        _, scale = scale_of(pixels.dtype.name, denoiser.value_range)
        kept.append(min(float(psnr(result, pixels, data_range=scale)), 200.0))
        return result

    found = evaluate_pairs(pairs, denoise=run, value_range=denoiser.value_range)
    if found.failures:
        raise DataError(f"cannot score {found.failures[0]}")
    numbers.update(found.mean)
    numbers["psnr_to_input"], numbers["worse"] = float(np.mean(kept)), len(found.worse)
    outcome.images = [
        {**row, "psnr_to_input": change}
        for row, change in zip(found.to_dict()["images"], kept, strict=True)
    ]


def _compare_to_first(outcome: Outcome, before: Sequence[Outcome]) -> None:
    """Fill in the mean difference of PSNR to the first scored recipe, and its interval."""
    first = next((one for one in before if "psnr" in one.numbers), None)
    if first is None or "psnr" not in outcome.numbers:
        return
    pairs = zip(outcome.images, first.images, strict=True)
    finite = [(a, b) for a, b in pairs if a["psnr"] is not None and b["psnr"] is not None]
    if not finite:
        return
    gains = [a["psnr"] - b["psnr"] for a, b in finite]
    scenes = [re.sub(r"_+\d+$", "", pair_name(a["image"])) for a, _ in finite]
    low, high = interval_over_scenes(gains, scenes)
    outcome.numbers.update(gain=float(np.mean(gains)), gain_low=low, gain_high=high)


def interval_over_scenes(
    differences: Sequence[float], scenes: Sequence[str]
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean difference, resampling whole scenes.

    Pictures of one scene are similar, and so no independent measurements.

    >>> interval_over_scenes([0.1, 0.1, 0.3], ["a", "a", "a"])
    (0.16666666666666666, 0.16666666666666666)
    """
    names = sorted(set(scenes))
    groups = [[d for d, s in zip(differences, scenes, strict=True) if s == name] for name in names]
    sums, counts = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
    picked = np.random.default_rng(0).integers(0, len(names), (_RESAMPLES, len(names)))
    means = sums[picked].sum(1) / counts[picked].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)


def write_comparison(found: Comparison, folder: str | Path) -> Path:
    """Write results.json, results.csv and crops.png into a folder, and return it.

    Raises:
        ImageWriteError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(found.to_dict()), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / "results.json", text + "\n")
    write_text(folder / "results.csv", found.to_csv())
    if found.crops is not None:
        write_image(folder / "crops.png", ImageFile(found.crops))
    return folder


def _finite(value: Any) -> Any:
    """Return plain values with None in place of NaN and infinite numbers, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

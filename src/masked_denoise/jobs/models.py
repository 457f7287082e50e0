"""Which model denoises which pictures: the bundled one, one fitted on them, or the better."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import DataError, PixelError
from ..images import read_image
from ..report.crops import evenly_spaced
from .survey import Kind, Picture, by_kind

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

Models = Mapping[Kind, "AsymmetricMaskDenoiser"]

FITTED = "fitted"  # name of a fitted model beside the bundled one
COMPARED = 2.0  # millions of pixels on which the two are compared
_LOOKS, _LOOK_PIXELS = 8, 1 << 22  # pictures to measure the noise in, and pixels in all
_MUCH = 2 / 255  # standard deviation of noise, where white is 1


def new_denoiser(
    backbone: str, *, channels: int, preset: str | None = None, seed: int = 0, **settings: object
) -> AsymmetricMaskDenoiser:
    """Return a denoiser whose initial weights depend on the seed alone."""
    import torch

    from ..denoiser import AsymmetricMaskDenoiser

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AsymmetricMaskDenoiser(backbone, channels=channels, preset=preset, **settings)  # type: ignore[arg-type]


def fit_models(
    pictures: Sequence[Picture],
    *,
    backbone: str = "fast-unet",
    preset: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    on_group: Callable[[Kind, int], None] | None = None,
    on_unusable: Callable[[Sequence[Picture], DataError], None] | None = None,
) -> dict[Kind, AsymmetricMaskDenoiser]:
    """Return a denoiser fitted on the pictures themselves, one for each kind.

    Args:
        pictures: from `survey`; those too small to train on are left out. So are those with NaN,
            unless there are no others: then NaN is filled with the mean of the pixels around.
        backbone: name of the network.
        preset: name of a recipe.
        minutes: budget of each; 2 where neither it nor `steps` is given.
        steps: budget in steps.
        seed: of the weights, the masks and the crops.
        device: where to train, for example "cuda"; None for the best available.
        progress: show a bar.
        on_group: called as on_group(kind, number of pictures) before each.
        on_unusable: called with the pictures of a kind none of which can be trained on, and the
            reason; the kind then gets no model.

    Raises:
        DataError: no picture of a kind can be trained on, and `on_unusable` is None.
        Whatever `AsymmetricMaskDenoiser.fit` raises.
    """
    models = {}
    for kind, group in by_kind(pictures).items():
        denoiser = new_denoiser(backbone, channels=kind.channels, preset=preset, seed=seed)
        smallest = denoiser.shortest_side
        large = [one for one in group if min(one.height, one.width) >= smallest]
        usable: list[Any] = [one.path for one in large if one.finite]
        if not usable:
            usable = [one for one in (_repaired(one.path) for one in large) if one is not None]
        if not usable:
            error = DataError(
                f"none of the {len(group)} {kind} pictures can be trained on: sides of {smallest} "
                "pixels or more, some of them no NaN, are needed; give a model"
            )
            if on_unusable is None:
                raise error
            on_unusable(group, error)
            continue
        if on_group is not None:
            on_group(kind, len(usable))
        budget = {"steps": steps} if steps is not None else {"minutes": minutes or 2.0}
        denoiser.fit(usable, seed=seed, progress=progress, device=device, **budget)
        models[kind] = denoiser
        if denoiser.fit_record["stopped"] == "interrupted":
            break
    return models


def _repaired(path: Path) -> NDArray[Any] | None:
    """Return a file's pixels, each NaN filled with the mean around it; None if all are NaN."""
    import torch

    from ..ops import fill_hidden
    from ..values import from_batch, to_batch

    batch, form = to_batch(read_image(path).pixels)
    bad = ~torch.isfinite(batch).all(1, keepdim=True)
    if bool(bad.all()):
        return None
    filled: NDArray[Any] = from_batch(fill_hidden(batch, bad, "mean"), form)  # type: ignore[assignment]
    return filled


def is_for_shipped(kind: Kind) -> bool:
    """Return whether the bundled model is made for pictures of this kind.

    It is for grey and colour pictures of integers that use their scale. It cannot know what the
    values of floats mean, and dim pictures look black to it.
    """
    return kind.channels in (1, 3) and kind.values == "integers"


def shipped_suits(kind: Kind, pictures: Sequence[Picture]) -> bool:
    """Return whether to use the bundled model where no other is asked for.

    It knows the noise of cameras, which is correlated between neighbouring pixels. Where grey
    pictures have much independent noise, a network of their own does better. For colour ones it
    does not: after two minutes it is hardly better on average.
    """
    if not is_for_shipped(kind):
        return False
    return kind.channels == 3 or not has_much_independent_noise(tuple(pictures))


@functools.lru_cache(maxsize=8)
def has_much_independent_noise(pictures: tuple[Picture, ...]) -> bool:
    """Return whether pictures of one kind, by a look at some, have much independent noise."""
    from ..noise import measure_noise

    some = evenly_spaced(pictures, _LOOKS)
    try:
        report = measure_noise(
            (read_image(one.path).pixels for one in some), max_pixels=_LOOK_PIXELS
        )
    except (DataError, PixelError):  # too small, or it has NaN
        return False
    return report.independent and report.luma.sigma > _MUCH


def prefer_shipped(
    fitted: AsymmetricMaskDenoiser, kind: Kind, pictures: Sequence[Picture], *, seed: int = 0
) -> tuple[AsymmetricMaskDenoiser, dict[str, float]]:
    """Return the better of a fitted denoiser and the bundled one, and the PSNR of both by name.

    They are compared on simulated camera noise of the level of the pictures (`rank_models`). Where
    that says nothing, because the bundled one is not made for the kind or the other was fitted for
    independent noise, the fitted one is returned, without numbers.

    Args:
        fitted: on the pictures.
        kind: of the pictures.
        pictures: from `survey`.
        seed: of the noise.
    """
    from ..pretrained.shipped import DEFAULT_MODEL
    from ..training.ranking import rank_models

    if fitted.preset == "independent" or not is_for_shipped(kind):
        return fitted, {}
    device = fitted.device
    (shipped,) = shipped_models([kind], str(device)).values()
    files = [one.path for one in pictures if one.finite]
    ranks = rank_models(
        {FITTED: fitted, DEFAULT_MODEL: shipped}, files, megapixels=COMPARED, seed=seed
    )
    better = fitted if ranks[0].name == FITTED else shipped
    return better, {rank.name: rank.psnr for rank in ranks}


def shipped_models(
    kinds: Iterable[Kind], device: str | None = None
) -> dict[Kind, AsymmetricMaskDenoiser]:
    """Return the bundled model for each of the kinds that it is made for.

    Args:
        kinds: of pictures.
        device: where the networks go; None for the CPU.
    """
    from ..pretrained.shipped import as_grey, load_shipped

    kinds = [kind for kind in kinds if is_for_shipped(kind)]
    if not kinds:
        return {}
    colour = load_shipped().to(device or "cpu")
    return {kind: colour if kind.channels == 3 else as_grey(colour) for kind in kinds}


def adapt_models(
    models: Models,
    pictures: Sequence[Picture],
    *,
    minutes: float,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Adapt each student in place to the pictures that it is for.

    Args:
        models: students by kind; one student may serve several kinds.
        pictures: from `survey`; those one pixel wide or high, or with NaN, are left out.
        minutes: training budget of each student.
        seed: of the run.
        device: where to train; None for the best available.
        progress: show a bar.

    Raises:
        DataError: no picture for a student can be used.
        Whatever `AsymmetricMaskDenoiser.adapt` raises.
    """
    groups: dict[AsymmetricMaskDenoiser, list[Picture]] = {}
    for kind, group in by_kind(pictures).items():
        groups.setdefault(models[kind], []).extend(group)
    for model, group in groups.items():
        usable = [one.path for one in group if one.finite and min(one.height, one.width) >= 2]
        if not usable:
            raise DataError(
                f"none of the {len(group)} pictures of {model.channels} channels can be learnt "
                "from: sides of 2 pixels or more, free of NaN, are needed; leave out --adapt"
            )
        model.adapt(usable, minutes=minutes, seed=seed, device=device, progress=progress)
        if model.fit_record["stopped"] == "interrupted":
            return


def by_source(pictures: Sequence[Picture], models: Models) -> dict[Path, AsymmetricMaskDenoiser]:
    """Return the denoiser of each picture by its path; kinds without a model are left out."""
    groups = by_kind(pictures).items()
    return {one.path: models[kind] for kind, group in groups if kind in models for one in group}

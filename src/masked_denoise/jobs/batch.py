"""Many files at once: models fitted on the files themselves, and the files denoised.

A file that cannot be used becomes a `Failure` with the reason, and the others are done.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, ImageWriteError, MaskedDenoiseError
from ..images import SUFFIXES, ImageFile, read_image, write_image
from ..report.crops import spread
from .overlap import overlap
from .plan import Task
from .survey import Failure, Kind, Picture, by_kind

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

Models = Mapping[Kind, "AsymmetricMaskDenoiser"]

_LOOKS, _LOOK_PIXELS = 8, 1 << 22  # pictures and pixels whose noise is looked at
_MUCH = 2 / 255  # standard deviation of noise, where white is 1
FITTED, COMPARED = "fitted", 2.0  # name of a fitted model beside others; millions of pixels

_FULL = [getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EROFS")]  # for all files


@dataclass(frozen=True)
class Done:
    """A file that was denoised.

    Attributes:
        task: the file.
        seconds: that it took with reading and writing.
        clean: whether it had hardly any noise, and was left as it was.
    """

    task: Task
    seconds: float
    clean: bool = False


@dataclass(frozen=True)
class Summary:
    """What became of a job."""

    done: tuple[Done, ...]
    failures: tuple[Failure, ...]


def fits_format(
    targets: Mapping[Path, Path], quality: int = 95
) -> Callable[[Path, ImageFile], None]:
    """Return a check for `survey`: can the format of a result hold what is in its source?

    It raises SettingError where not, for example for 16 bits or alpha as JPEG.
    """
    from ..images import encode

    def check(path: Path, image: ImageFile) -> None:
        corner = image.pixels[:1, :1]
        alpha = None if image.alpha is None else image.alpha[:1, :1]
        kind = SUFFIXES[targets[path].suffix.lower()]
        encode(replace(image, pixels=corner, alpha=alpha), kind, quality)

    return check


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
) -> dict[Kind, AsymmetricMaskDenoiser]:
    """Return a denoiser fitted on the pictures themselves, one for each kind.

    Args:
        pictures: from `survey`; those too small to be trained on, or with NaN, are left out.
        backbone: name of the network.
        preset: name of a recipe.
        minutes: budget of each; 2 where neither it nor `steps` is given.
        steps: budget in steps.
        seed: of the weights, the masks and the crops.
        device: where to train, for example "cuda"; None for the best there is.
        progress: show a bar.
        on_group: called as on_group(kind, number of pictures) before each.

    Raises:
        DataError: no picture of a group can be trained on.
        Whatever `AsymmetricMaskDenoiser.fit` raises.
    """
    models = {}
    for kind, group in by_kind(pictures).items():
        denoiser = new_denoiser(backbone, channels=kind.channels, preset=preset, seed=seed)
        usable = trainable(kind, group, smallest=max(denoiser.train_strides))
        if on_group is not None:
            on_group(kind, len(usable))
        budget = {"steps": steps} if steps is not None else {"minutes": minutes or 2.0}
        denoiser.fit(usable, seed=seed, progress=progress, device=device, **budget)
        models[kind] = denoiser
        if denoiser.fit_record["stopped"] == "interrupted":
            break
    return models


def trainable(kind: Kind, pictures: Sequence[Picture], *, smallest: int) -> list[Path]:
    """Return the pictures of a kind that a network can be trained on.

    Raises:
        DataError: there is none.
    """
    usable = [one.path for one in pictures if one.finite and min(one.height, one.width) >= smallest]
    if not usable:
        raise DataError(
            f"none of the {len(pictures)} {kind} pictures can be trained on: sides of {smallest} "
            "pixels or more, free of NaN, are needed; give a model"
        )
    return usable


def is_for_shipped(kind: Kind) -> bool:
    """Return whether the model that comes with the package is made for pictures of a kind.

    These are grey and colour pictures of integers that use their scale. What values floats have, it
    cannot know; and dim ones look black to it.
    """
    return kind.channels in (1, 3) and kind.values == "integers"


def shipped_suits(kind: Kind, pictures: Sequence[Picture]) -> bool:
    """Return whether to take the model that comes with the package where no other is asked for.

    It knows the noise of cameras, which is alike in neighbouring pixels. Where grey pictures have
    much noise that is independent, a network of their own serves them better. Colour ones it does
    not: two minutes of it are no better on average.
    """
    if not is_for_shipped(kind):
        return False
    return kind.channels == 3 or not has_much_independent_noise(tuple(pictures))


@functools.lru_cache(maxsize=8)
def has_much_independent_noise(pictures: tuple[Picture, ...]) -> bool:
    """Return whether some of the pictures, of one kind, have much noise that is independent."""
    from ..noise import measure_noise

    some = spread(pictures, _LOOKS)
    try:
        report = measure_noise(
            (read_image(one.path).pixels for one in some), max_pixels=_LOOK_PIXELS
        )
    except MaskedDenoiseError:  # too small, or it has NaN
        return False
    return report.independent and report.luma.sigma > _MUCH


def prefer_shipped(
    fitted: AsymmetricMaskDenoiser, kind: Kind, pictures: Sequence[Picture], *, seed: int = 0
) -> tuple[AsymmetricMaskDenoiser, dict[str, float]]:
    """Return the better of a fitted denoiser and the one of the package, and PSNR of both by name.

    They are compared on simulated camera noise of the level of the pictures (`rank_models`). Where
    that cannot tell, as the package's is not made for the kind or the other was fitted for
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
    device = next(fitted.backbone.parameters()).device
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
    """Return the model that comes with the package, for each of the kinds that it is made for.

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
    """Adapt each student to the pictures that it is for, in place.

    Args:
        models: students by kind; one may be there for several.
        pictures: from `survey`; those one pixel wide, or with NaN, are left out.
        minutes: budget of training of each.
        seed: of the run.
        device: where to train; None for the best there is.
        progress: show a bar.

    Raises:
        DataError: no picture of a kind can be used.
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


def denoise_files(
    tasks: Iterable[Task],
    models: Mapping[Path, AsymmetricMaskDenoiser],
    *,
    leave_clean: Collection[AsymmetricMaskDenoiser] = (),
    passes: int | None = None,
    seed: int = 0,
    strength: float = 1.0,
    nan: str = "error",
    precision: str = "auto",
    quality: int = 95,
    on_file: Callable[[Done | Failure], None] | None = None,
) -> Summary:
    """Return what became of each file: read, denoised and written in the form that it came in.

    The next file is read and the last one written while the network works; no more than these
    three pictures are held. A file that cannot be used is a failure and the next one is done,
    except where the disk is full or cannot be written: then the rest are failures, too. Results are
    written whole or not at all; what has been denoised when Ctrl-C comes is still written.

    Args:
        tasks: what to denoise.
        models: the denoiser of each source.
        leave_clean: those that leave pictures with hardly any noise as they are: models of the
            package.
        passes, seed, strength, nan, precision: as for `AsymmetricMaskDenoiser.denoise`.
        quality: of JPEG, where that is written.
        on_file: called after every file, in their order, in the thread of the caller.
    """
    from ..pretrained.cleanness import was_clean

    done: list[Done] = []
    failures: list[Failure] = []
    trouble: list[str] = []  # with the disk; the first is told

    def read(task: Task) -> _Held:
        start = time.perf_counter()
        _check_disk(trouble)
        return _Held(read_image(task.source), time.perf_counter() - start)

    def work(task: Task, held: _Held) -> _Held:
        start = time.perf_counter()
        _check_disk(trouble)
        model = models[task.source]
        pixels = model.denoise(
            held.image.pixels, passes=passes, seed=seed, strength=strength, nan=nan,
            precision=precision,
        )  # fmt: skip
        is_clean = model in leave_clean and was_clean(held.image.pixels, pixels, strength=strength)
        image = held.image if is_clean else replace(held.image, pixels=pixels)
        return _Held(image, held.seconds + time.perf_counter() - start, is_clean)

    def write(task: Task, held: _Held) -> Done:
        start = time.perf_counter()
        _check_disk(trouble)
        try:
            write_image(task.target, held.image, quality=quality)
        except ImageWriteError as error:
            trouble.extend(_disk_trouble(error))
            raise
        return Done(task, held.seconds + time.perf_counter() - start, held.clean)

    def report(task: Task, outcome: Callable[[], Done]) -> None:
        told: Done | Failure
        try:
            told = outcome()
            done.append(told)
        except (MaskedDenoiseError, MemoryError, RuntimeError) as error:
            told = Failure(task.source, _reason(error))
            failures.append(told)
        if on_file is not None:
            on_file(told)

    overlap(tasks, read, work, write, report)
    return Summary(tuple(done), tuple(failures))


@dataclass(frozen=True)
class _Held:
    """A picture on its way, the seconds spent on it, and whether it had hardly any noise."""

    image: ImageFile
    seconds: float
    clean: bool = False


def new_denoiser(
    backbone: str, *, channels: int, preset: str | None = None, seed: int = 0, **settings: object
) -> AsymmetricMaskDenoiser:
    """Return a denoiser whose first weights are decided by the seed, whatever was drawn before."""
    import torch

    from ..denoiser import AsymmetricMaskDenoiser

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AsymmetricMaskDenoiser(backbone, channels=channels, preset=preset, **settings)  # type: ignore[arg-type]


def by_source(pictures: Sequence[Picture], models: Models) -> dict[Path, AsymmetricMaskDenoiser]:
    """Return the denoiser of each picture, by its path; pictures of other kinds are left out."""
    groups = by_kind(pictures).items()
    return {one.path: models[kind] for kind, group in groups if kind in models for one in group}


def _reason(error: Exception) -> str:
    """Return why a file failed; re-raise what is not about the file but an error in the program."""
    if isinstance(error, MaskedDenoiseError):
        return str(error)
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return f"not enough memory ({str(error).splitlines()[0] if str(error) else 'allocation'})"
    raise error


def _check_disk(trouble: Sequence[str]) -> None:
    """Raise ImageWriteError where the disk was found to be of no use."""
    if trouble:
        raise ImageWriteError(f"not tried, since {trouble[0]}")


def _disk_trouble(error: ImageWriteError) -> list[str]:
    """Return the reason, where no other file could be written either."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _FULL:
        return [f"the folder cannot be written any more ({cause.strerror or cause})"]
    return []

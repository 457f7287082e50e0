"""What `denoise` and its preview share: the request, the survey, models given or fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingError
from ..pretrained.shipped import DEFAULT_MODEL, SHIPPED, as_grey
from .terminal import Terminal, duration, number, plain

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser
    from ..jobs.plan import Plan
    from ..jobs.survey import Failure, Kind, Picture

    Given = Mapping[int, AsymmetricMaskDenoiser]
    Models = Mapping[Kind, AsymmetricMaskDenoiser]
    Groups = Mapping[Kind, Sequence[Picture]]


FIT_MINUTES = 2.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for; names are those of the options."""

    terminal: Terminal
    output: Path
    model: str | None
    clean: Path | None
    report: Path | None
    save_model: Path | None
    backbone: str
    preset: str | None
    own_network: bool  # whether the user named a network or a recipe
    minutes: float | None
    adapt: float | None
    steps: int | None
    seed: int
    device: str
    precision: str
    passes: int | None
    strength: float
    nan: str
    quality: int

    @property
    def wants_shipped(self) -> bool:
        """Whether to use the bundled model, as neither a model nor fitting was asked for."""
        return self.model is None and self.minutes is None and self.steps is None


def load_models(name: str, device: str) -> dict[int, AsymmetricMaskDenoiser]:
    """Return the denoiser in a folder or on the Hub, by its number of channels.

    Models of the package are also there for grey pictures.
    """
    from ..denoiser import AsymmetricMaskDenoiser

    denoiser = AsymmetricMaskDenoiser.from_pretrained(name, device=device)
    models = {denoiser.channels: denoiser}
    return {**models, 1: as_grey(denoiser)} if name in SHIPPED else models


def given_models(request: Request) -> Given:
    """Return the model that was named, by its number of channels; none if none was.

    Nothing is trained here, so that a model that cannot be loaded or adapted is reported at once.
    """
    from ..training.student import check_student

    if request.model is not None:
        models = load_models(request.model, request.device)
        if request.adapt is not None:
            check_student(next(iter(models.values())))
        return models
    return {}


def look_at(request: Request, plan: Plan, models: Given) -> tuple[list[Picture], list[Failure]]:
    """Return the pictures that can be denoised, and the failures, which are printed."""
    from ..jobs.batch import fits_format
    from ..jobs.survey import survey

    denoiser = next(iter(models.values()), None)
    targets = {task.source: task.target for task in plan.tasks}
    with request.terminal.track("reading", len(targets)) as advance:
        pictures, failures = survey(
            list(targets),
            channels=models or None,
            smallest=1 if denoiser is None else denoiser.stride,
            nan=request.nan,
            check=fits_format(targets, request.quality),
            on_file=advance,
        )
    request.terminal.failed(failures)
    return pictures, failures


def training_minutes(request: Request, kind: Kind, pictures: Sequence[Picture]) -> float:
    """Return how long a model for one kind of pictures will be trained; 0 if it is ready."""
    from ..jobs.models import shipped_suits

    if request.adapt is not None:
        return request.adapt
    if request.model is not None or (request.wants_shipped and shipped_suits(kind, pictures)):
        return 0
    return request.minutes or FIT_MINUTES


def ready_models(
    request: Request, given: Given, pictures: Sequence[Picture], minutes: float | None = None
) -> Models:
    """Return a model for each kind of picture: given, bundled or fitted; adapted if asked for.

    Args:
        request: of the user.
        given: the model that was named, by its number of channels; or none.
        pictures: to denoise.
        minutes: to fit or adapt for a preview, instead of the user's budget; a model fitted for so
            short a time is not compared with the bundled one.
    """
    from ..jobs.models import adapt_models, shipped_models, shipped_suits
    from ..jobs.survey import by_kind

    groups = by_kind(pictures)
    models = {kind: given[kind.channels] for kind in groups if kind.channels in given}
    if not models and request.wants_shipped:
        models = shipped_models(
            (kind for kind, group in groups.items() if request.adapt or shipped_suits(kind, group)),
            request.device,
        )
        if models:
            hint = " --fit 5 fits one on these pictures alone." * (request.adapt is None)
            request.terminal.note(
                f"No --model given: taking {DEFAULT_MODEL}, bundled with the package.{hint}"
            )
    rest = {kind: group for kind, group in groups.items() if kind not in models}
    if rest and request.adapt is not None:
        kind, group = next(iter(rest.items()))
        raise SettingError(
            f"{group[0].path} and pictures like it ({kind}) are none that {DEFAULT_MODEL} is made "
            "for, so it cannot be adapted to them; leave them out, or give --fit"
        )
    if rest:
        if request.wants_shipped:
            for kind, group in rest.items():
                request.terminal.note(_why_own(kind, group))
        only = len(groups) == 1
        fitted = fit(request, rest, minutes or request.minutes or FIT_MINUTES, only=only)
        compares = minutes is None and not request.own_network
        models.update(better_models(request, fitted, rest) if compares else fitted)
    if request.adapt is not None:
        budget = minutes or request.adapt
        request.terminal.note(f"Adapting the model to the pictures for {duration(60 * budget)}.")
        adapt_models(
            models, pictures, minutes=budget, seed=request.seed, device=request.device,
            progress=not request.terminal.quiet,
        )  # fmt: skip
        _keep(request, models)
        if any(model.fit_record.get("stopped") == "interrupted" for model in models.values()):
            raise KeyboardInterrupt
    return models


def _why_own(kind: Kind, pictures: Sequence[Picture]) -> str:
    """Return, with markup, why pictures get a model of their own that was not asked for."""
    from ..jobs.models import is_for_shipped

    own = f"{plain(pictures[0].path)} and the other {kind} pictures get a model of their own"
    if len(pictures) == 1:
        own = f"{plain(pictures[0].path)} gets a model of its own"
    if is_for_shipped(kind):
        return (
            f"{own}: the noise is independent from pixel to pixel, which it seldom is in finished "
            f"photographs, for which {DEFAULT_MODEL} is made. (--model {DEFAULT_MODEL} uses it all "
            "the same.)"
        )
    return (
        f"{own}: {DEFAULT_MODEL} is for grey and colour pictures of integers that use their scale."
    )


def leaves_clean(request: Request, models: Models) -> list[AsymmetricMaskDenoiser]:
    """Return the models that leave clean pictures as they are: bundled ones, if not asked for."""
    usual = request.model is None and request.adapt is None
    return [one for one in models.values() if usual and one.preset == "student"]


def fit(request: Request, groups: Groups, minutes: float, *, only: bool) -> Models:
    """Return a denoiser for each kind of picture, fitted on them; stop if Ctrl-C was pressed.

    Kinds none of whose pictures can be trained on are reported and left out; if there is `only` one
    kind, that is an error.
    """
    from ..errors import DataError
    from ..jobs.models import fit_models
    from ..jobs.survey import Failure

    budget = duration(60 * minutes) if request.steps is None else f"{request.steps} steps"
    if len(groups) > 1:
        kinds = " and ".join(map(str, groups))
        request.terminal.note(f"There are {kinds} pictures: each kind gets a model of its own.")

    def tell(kind: Kind, count: int) -> None:
        what = f"{count} {kind} picture{'s' * (count > 1)}"
        request.terminal.note(f"Fitting {plain(request.backbone)} on the {what} for {budget}.")

    def unusable(pictures: Sequence[Picture], error: DataError) -> None:
        request.terminal.failed(Failure(one.path, str(error)) for one in pictures)

    models = fit_models(
        [one for group in groups.values() for one in group], backbone=request.backbone,
        preset=request.preset, minutes=minutes, steps=request.steps, seed=request.seed,
        device=request.device, progress=not request.terminal.quiet, on_group=tell,
        on_unusable=None if only else unusable,
    )  # fmt: skip
    stopped = any(one.fit_record.get("stopped") == "interrupted" for one in models.values())
    _keep(request, models)
    if stopped:
        raise KeyboardInterrupt
    return models


def better_models(
    request: Request, fitted: Models, groups: Groups
) -> dict[Kind, AsymmetricMaskDenoiser]:
    """Return each fitted model, or the bundled one where that does better; print which."""
    from ..jobs.models import FITTED, prefer_shipped

    chosen = {}
    for kind, model in fitted.items():
        chosen[kind], psnr = prefer_shipped(model, kind, groups[kind], seed=request.seed)
        if psnr:
            ours, theirs = (number(psnr[name], 2) for name in (FITTED, DEFAULT_MODEL))
            taken = "the former is taken."
            if chosen[kind] is not model:
                forced = f"--backbone {request.backbone} takes the fitted one in any case"
                kept = "; --save-model kept the fitted one" if request.save_model else ""
                taken = f"the latter is taken ({forced}{kept})."
            request.terminal.note(
                f"On simulated noise like that of the {kind} pictures the fitted model has {ours} "
                f"dB, {DEFAULT_MODEL} {theirs} dB: {taken}"
            )
    return chosen


def _keep(request: Request, models: Models) -> None:
    """Save the models if the user asked for it."""
    if request.save_model is None:
        return
    kinds = {denoiser: kind for kind, denoiser in models.items()}
    for denoiser, kind in kinds.items():
        place = request.save_model
        place = place / str(kind).replace(" ", "-") if len(kinds) > 1 else place
        denoiser.save_pretrained(place)
        request.terminal.note(f"The model is saved in {plain(place)}")

"""`masked-denoise denoise --preview`: one crop before and after, and how long the job will take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingError
from ..pretrained.shipped import DEFAULT_MODEL
from .job import Request, given_models, leaves_clean, look_at, ready_models, training_minutes
from .terminal import counted, duration, plain

if TYPE_CHECKING:
    from ..jobs.plan import Plan
    from ..jobs.survey import Picture

PREVIEW_MINUTES = 0.25


def show_preview(request: Request, plan: Plan) -> bool:
    """Write the preview and print the time; return whether a file could not be used."""
    from ..jobs.preview import expected_seconds, make_preview
    from ..jobs.survey import by_kind

    given = given_models(request)
    pictures, failures = look_at(request, plan, given)
    if not pictures:
        return True
    groups = by_kind(pictures)
    kind, group = max(groups.items(), key=lambda item: len(item[1]))
    candidates = dict.fromkeys((group[len(group) // 2], group[0], group[-1]))
    targets = {one.path: _target(plan, one) for one in candidates}
    minutes = {one: training_minutes(request, one, pictures) for one, pictures in groups.items()}
    short = min(minutes[kind], PREVIEW_MINUTES)
    if request.adapt is not None:  # one model is adapted to all pictures with as many channels
        fitting = 60 * request.adapt * len({one.channels for one in groups})
    else:
        fitting = 60 * sum(minutes.values())
    models = ready_models(request, given, group, short)
    denoiser = models[kind]
    for place, chosen in enumerate(candidates, 1):
        result, target = targets[chosen.path]
        made = make_preview(
            chosen.path, target, denoiser,
            leave_clean=denoiser in leaves_clean(request, models), passes=request.passes,
            seed=request.seed, strength=request.strength, nan=request.nan,
            precision=request.precision, result_suffix=result.suffix,
        )  # fmt: skip
        if not made.clean or place == len(candidates):
            break
        made.path.unlink()  # a picture that is left as it is shows little
    say = request.terminal.say
    say(
        f"[green]Preview:[/green] {plain(made.path)}, {made.width} x {made.height} pixels of "
        f"{plain(made.picture.name)} from column {made.left}, row {made.top}"
    )
    if made.clean:
        say("It has hardly any noise: pictures like it are left as they are.")
    work = expected_seconds(pictures, made.seconds_per_pixel)
    count = counted(pictures, "picture")
    speed = f"{duration(1e6 * made.seconds_per_pixel)} a megapixel"
    fitted = f"{duration(fitting)} of training, then " if fitting else ""
    say(
        f"The whole job will take about [bold]{duration(fitting + work)}[/bold]: {fitted}{count} "
        f"at {speed}."
    )
    if request.minutes is not None and not request.own_network:
        say(f"It shows the fitted model; the job uses {DEFAULT_MODEL} where that does better.")
    if fitting > 60 * short:
        say(f"The preview was trained for {duration(60 * short)} only: the job comes out better.")
    return bool(failures)


def _target(plan: Plan, picture: Picture) -> tuple[Path, Path]:
    """Return the files for the result of a picture and for its preview.

    Raises:
        SettingError: the preview would replace an input.
    """
    result = next(task.target for task in plan.tasks if task.source == picture.path)
    target = result.with_name(f"{result.stem}_preview.png")
    if target.resolve() in {task.source.resolve() for task in plan.tasks}:
        raise SettingError(f"the preview would replace the input {target}; choose another folder")
    return result, target

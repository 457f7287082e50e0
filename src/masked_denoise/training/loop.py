"""The training loop: what happens at every step, and what between steps."""

from __future__ import annotations

import copy
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..backbones import backbone_info
from ..checkpoint import FORMAT, range_of_recipe, recipe_of, save_model
from ..errors import MaskedDenoiseError, SettingError, TrainingError
from ..hashing import Key, Purpose
from ..memory import held_memory
from ..observation import NoiseLevel
from ..pretrained.card import after_training
from .batches import Batches, as_batches
from .decisions import (
    HASTY_MEGAPIXELS,
    LEVEL_MEGAPIXELS,
    decide,
    decide_as,
    find_range,
    measured_level,
    same_for_all,
    settings_of,
)
from .learner import Learner, optimizer_for
from .schedule import Schedule
from .session import Interrupt, borrowed_accelerator
from .settings import FitOptions, FitSettings
from .states import StateFiles, check_output, check_same_run, state_to_resume
from .validation import FixedMasks, Scores, Validation

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..denoiser import AsymmetricMaskDenoiser

LOG_EVERY = 20  # steps between looks at the losses: each look waits for the device
SNAPSHOT_EVERY = 100  # steps between copies of a state known to be good
FULL_RATE_STEPS = 3000  # steps at the full rate, where noise is correlated beyond the stride
MARK_SECONDS = 2.0  # longest time between looks where the budget is in minutes ...
MARKS = 50  # ... or, in a short run, so many looks in all

logger = logging.getLogger("masked_denoise")


def fit(
    denoiser: AsymmetricMaskDenoiser,
    data: object,
    given: Mapping[str, Any],
    options: FitOptions,
) -> None:
    """Train the denoiser's backbone in place; see `AsymmetricMaskDenoiser.fit`.

    Args:
        denoiser: to train.
        data: noisy images.
        given: settings by name; None means not given.
        options: of the run.
    """
    settings = settings_of(denoiser, given)
    denoiser.check_masked_loss(settings.loss)

    def make_batches(process: tuple[int, int]) -> Batches:
        return as_batches(
            data,
            settings,
            channels=denoiser.channels,
            smallest=denoiser.shortest_side,
            hold_out=options.validation is None,
            process=process,
        )

    train(Trainer, denoiser, make_batches, settings, options, given)


def train(
    kind: type[Trainer],
    denoiser: AsymmetricMaskDenoiser,
    make_batches: Callable[[tuple[int, int]], Batches],
    settings: FitSettings,
    options: FitOptions,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Make a trainer of the given kind, run it, and clean up after it.

    Args:
        kind: class of the trainer.
        denoiser: its backbone is trained in place.
        make_batches: called with (rank, number of processes).
        settings: of the run.
        options: of the run.
        given: the settings that the user gave.
    """
    name, arguments = denoiser.backbone_name, denoiser.backbone_args
    in_bf16 = name is not None and backbone_info(name, **arguments).trains_in_bf16
    with (
        held_memory(),
        torch.enable_grad(),
        borrowed_accelerator(settings, options, in_bf16=in_bf16) as accelerator,
    ):
        accelerator.wait_for_everyone()  # an earlier run may still be writing
        with restored_on_failure(denoiser):
            trainer = _prepared(kind, denoiser, make_batches, settings, options, given, accelerator)
            try:
                trainer.run()
                if trainer.stopped != "interrupted":
                    accelerator.wait_for_everyone()  # until the model is written
            finally:
                trainer.close()


def _prepared(
    kind: type[Trainer],
    denoiser: AsymmetricMaskDenoiser,
    make_batches: Callable[[tuple[int, int]], Batches],
    settings: FitSettings,
    options: FitOptions,
    given: Mapping[str, Any],
    accelerator: Accelerator,
) -> Trainer:
    """Return a trainer that is ready to run; see `train`."""
    state = state_to_resume(options)
    undecided = kind.measures and denoiser.undecided
    settings = replace(settings, mixed_precision=accelerator.mixed_precision)
    if state is not None:
        if undecided:
            decide_as(denoiser, state["recipe"])
            settings = _decided(denoiser, given, accelerator)
        if settings.optimizer == "auto":
            before = state["settings"].get("optimizer", "adamw")
            settings = replace(settings, optimizer=before)
        check_same_run(state, denoiser, settings, accelerator.num_processes)
        denoiser.value_range = range_of_recipe(state["recipe"])
    batches = make_batches((accelerator.process_index, accelerator.num_processes))
    found = find_range(denoiser, batches) if kind.measures and state is None else None
    if state is not None and kind.measures:
        batches.value_range = denoiser.value_range
    advice = decide(denoiser, batches, accelerator) if undecided and state is None else None
    if advice is not None:
        settings = _decided(denoiser, given, accelerator)
    if settings.optimizer == "auto":
        settings = replace(settings, optimizer=optimizer_for(denoiser, settings))
    rate_is_given = given.get("learning_rate") is not None
    trainer = kind(denoiser, batches, settings, options, accelerator, rate_is_given=rate_is_given)
    for told in (found, advice):
        if told is not None:
            trainer.tell(told)
    if state is not None:
        trainer.load(state)
        trainer.files.fresh = False
    return trainer


def _decided(
    denoiser: AsymmetricMaskDenoiser, given: Mapping[str, Any], accelerator: Accelerator
) -> FitSettings:
    """Return the settings of a denoiser after a decision, in the run's precision."""
    return replace(settings_of(denoiser, given), mixed_precision=accelerator.mixed_precision)


@contextmanager
def restored_on_failure(denoiser: AsymmetricMaskDenoiser) -> Iterator[None]:
    """Restore the denoiser's attributes and modes if the block raises before a new `fit_record`."""
    before = dict(denoiser.__dict__)
    modes = [(module, module.training) for module in denoiser.modules()]
    try:
        yield
    except BaseException:
        if denoiser.fit_record is before["fit_record"]:
            denoiser.__dict__.clear()
            denoiser.__dict__.update(before)
            for module, training in modes:
                module.training = training
        raise


class Trainer:
    """One training run and its state.

    Args:
        denoiser: its backbone is trained in place.
        batches: where images come from.
        settings: of the run.
        options: of the run.
        accelerator: determines device, precision, accumulation and processes.
        rate_is_given: whether the user gave the learning rate.

    Raises:
        BackboneError: the backbone has nothing to train, or cannot be copied for the average.
        SettingError: the budget is in epochs, but the data have no length.
        CheckpointError: the output folder cannot be written.
    """

    measures: ClassVar[bool] = True  # value range, settings and noise level that were not given

    def __init__(
        self,
        denoiser: AsymmetricMaskDenoiser,
        batches: Batches,
        settings: FitSettings,
        options: FitOptions,
        accelerator: Accelerator,
        *,
        rate_is_given: bool = False,
    ) -> None:
        self.denoiser, self.batches, self.rate_is_given = denoiser, batches, rate_is_given
        self.settings, self.options, self.accelerator = settings, options, accelerator
        main = accelerator.is_main_process
        self.files = StateFiles(options.output, options.save_every, writes=main)
        check_output(self.files.folder)
        self.interrupt = Interrupt(self.tell)
        self.batches.device = accelerator.device
        self.schedule = Schedule(
            settings, self._steps_of_budget(), full_rate_steps=self._full_rate_steps()
        )
        validation = None if options.validation is False else options.validation
        if options.validation is None:
            validation = self._make_validation()
        self.scores = Scores(validation, options.validate_every)
        self.learner = self._make_learner()
        self.step = self.batch = 0  # optimizer steps; batches per process
        self.seconds = 0.0  # of training, without validation and checkpoints
        self.history: list[dict[str, Any]] = []
        self.stopped = "finished"
        self.losses: list[Tensor] = []  # since the last look
        self.inside_step = False
        if options.log_with is not None:
            told = {k: v if v is None else str(v) for k, v in settings.to_json().items()}
            accelerator.init_trackers("masked-denoise", config=told)

    def _make_learner(self) -> Learner:
        return Learner(self.denoiser, self.settings, self.accelerator)

    def _make_validation(self) -> Validation:
        """Return the validation to use where no clean pictures were given."""
        multiple = self.denoiser.traits.size_multiple
        crops = self.batches.held_out(math.lcm(*self.denoiser.train_strides) * multiple)
        return FixedMasks(crops, loss=self.settings.loss, seed=self.settings.seed)

    def _full_rate_steps(self) -> float:
        """Return the number of steps above which the learning rate is lowered in proportion.

        Where noise is correlated beyond the stride, a network learns the picture first, and then to
        predict the noise, too. A rate that the user gave is not lowered; the number is infinite
        then.
        """
        denoiser, settings = self.denoiser, self.settings
        masked = denoiser.preset in (None, "default") and max(denoiser.train_strides) > 1
        free = not self.rate_is_given and settings.optimizer == "muon"
        return FULL_RATE_STEPS if masked and free else math.inf

    def _steps_of_budget(self) -> int | None:
        settings = self.settings
        if settings.epochs is None:
            return settings.steps
        if self.batches.length is None:
            raise SettingError(
                "epochs is given, but the data have no length; give steps= or minutes="
            )
        return max(1, math.ceil(settings.epochs * self.batches.length / settings.accumulate))

    # -- at every step ------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the budget is spent or the run is stopped; end with the chosen weights."""
        from tqdm.auto import tqdm

        self.good = self._snapshot()
        self.denoiser.card = after_training(self.denoiser)
        quiet = not (self.options.progress and self.accelerator.is_main_process)
        self.bar = tqdm(
            total=self.schedule.expected_steps, initial=self.step, unit="step", desc="training",
            disable=quiet,
        )  # fmt: skip
        try:
            with self.interrupt, self.bar:
                self._loop()
        except KeyboardInterrupt:
            self.stopped = "interrupted"
            if self.inside_step:  # weights and average may not belong together
                self.load(self.good)
        except BaseException:
            self.stopped = "failed"
            self.learner.use(self.learner.averaged())
            raise
        self._finish()

    def _loop(self) -> None:
        stream = self.batches.start(self.batch, self._unit)
        self.clock = time.perf_counter()
        while not self._worse() and not self.interrupt.asked:
            stage = self.schedule.stage_at(self.step)
            if stage is None:
                break
            self._step(stream, self.settings.smoothness if stage.smooth else None)
            if self._due():
                self._look()
        if self._worse():
            self.stopped = "worse"
        elif self.interrupt.asked:
            self.stopped = "interrupted"

    def _worse(self) -> bool:
        """Return whether the score has clearly fallen, and half the budget is spent.

        Before that the score may fall and recover.
        """
        if self.losses:  # scores only change at a look
            return False
        spent = self.schedule.progress(self.step, self.seconds)
        return self.scores.worse >= self.settings.patience and spent >= 0.5

    def _unit(self, batch: int) -> int:
        """Return what the sides of a batch's crops should be a multiple of."""
        key = Key(self.settings.seed, Purpose.TRAIN, batch)
        return self.denoiser.stride_of_step(key) * self.denoiser.traits.size_multiple

    def _step(self, stream: Iterator[Tensor], smoothness: float | None) -> None:
        """Take one optimizer step, over `accumulate` batches."""
        self.learner.set_rate(self.settings.learning_rate * self.schedule.factor(self.step))
        losses = []
        for _ in range(self.settings.accumulate):
            image = next(stream)
            self.inside_step = True
            losses.append(self.learner.backward(image, self.batch, smoothness))
            self.batch += 1
        self.losses.append(losses[0] if len(losses) == 1 else torch.stack(losses).mean())
        self.step += 1
        self.learner.update_average(self.step)
        self.inside_step = False
        self.bar.update()

    def _due(self) -> bool:
        """Return whether a look at the losses is due; the same in all processes."""
        if self.accelerator.num_processes == 1:
            patience = min(MARK_SECONDS, self.schedule.seconds / MARKS)
            waited = time.perf_counter() - self.clock > patience
            if self.interrupt.asked or (waited and self.settings.minutes is not None):
                return True
        every = (LOG_EVERY, self.options.validate_every, self.options.save_every)
        due = any(number and self.step % number == 0 for number in every)
        return due or self.schedule.stage_at(self.step) is None

    # -- between steps ------------------------------------------------------------------------

    def _look(self) -> None:
        """Read the losses since the last look, then do whatever else is due."""
        losses, seconds = self._gather()
        if not all(map(math.isfinite, losses)) or not self.learner.is_finite():
            self._fail(losses)
        self.seconds += seconds
        entry = {
            "step": self.step,
            "loss": sum(losses) / len(losses),
            "learning_rate": self.learner.optimizer.param_groups[0]["lr"],
            "seconds": self.seconds,
            "steps_per_second": len(losses) / max(seconds, 1e-9),
        }
        self.schedule.mark(self.step, self.seconds)
        if self.scores.due(self.step, self.schedule.progress(self.step, self.seconds)):
            entry["score"] = self._validate()
        self._report(entry)
        if self.step - self.good["step"] >= SNAPSHOT_EVERY:
            self.good = self._snapshot()
        if self.files.due(self.step):
            self.files.save("last.pt", self._state())
        if self.options.callback is not None:
            self.options.callback(entry)
        self.clock = time.perf_counter()

    def _gather(self) -> tuple[list[float], float]:
        """Return the losses since the last look and the seconds they took, means over processes."""
        losses = torch.stack(self.losses).float()
        self.losses = []
        values = losses.tolist()  # waits for the device
        seconds = time.perf_counter() - self.clock
        if self.accelerator.num_processes > 1:
            told = losses.new_tensor([seconds, float(self.interrupt.asked)])
            values = self.accelerator.reduce(torch.cat([losses, told]), "mean").tolist()
            self.interrupt.asked = values.pop() > 0
            seconds = values.pop()
        return values, seconds

    def _report(self, entry: dict[str, Any]) -> None:
        self.history.append(entry)
        self.bar.total = self.schedule.expected_steps
        self.bar.set_postfix(loss=f"{entry['loss']:.4g}", refresh=False)
        if self.options.log_with is not None:
            self.accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=self.step)

    def _validate(self) -> float:
        """Return the score of the averaged weights; keep them if it is the best so far."""
        assert self.scores.validation is not None
        self.scores.enter(self.schedule.smooth)
        smoothness = self.settings.smoothness if self.schedule.smooth else None
        with self.learner.with_averaged_weights() as denoiser:
            score = self.scores.validation.score(denoiser, smoothness)
        if self.accelerator.num_processes > 1:
            told = torch.tensor(score, device=self.accelerator.device)
            score = float(self.accelerator.reduce(told, "mean"))
        if self.scores.add(score, self.step, self.learner.averaged()):
            self._save_best()
        return score

    def _fail(self, losses: list[float]) -> None:
        """Restore the last good state and raise TrainingError."""
        bad = [place for place, loss in enumerate(losses) if not math.isfinite(loss)]
        place = bad[0] if bad else len(losses) - 1
        what = f"the loss is {losses[place]}" if bad else "the weights are no longer finite"
        step, settings = self.step - len(losses) + place + 1, self.settings
        self.stopped = "failed"
        self.load(self.good)
        if self.step:
            self.files.save("last.pt", self._state())
        hints = [f"lower learning_rate (now {settings.learning_rate:g})"]
        if not settings.clip_norm:
            hints.append("set clip_norm=1.0")
        if self.accelerator.mixed_precision != "no":
            hints.append(f"set mixed_precision='no' (now '{self.accelerator.mixed_precision}')")
        hints.append(f"check that value_range fits the images (now {self.denoiser.value_range})")
        raise TrainingError(
            f"{what} at step {step}; the denoiser has the weights of step {self.step} again. "
            f"Before training on, {', or '.join(hints)}"
        )

    # -- the state of the run -----------------------------------------------------------------

    def _changing(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "batch": self.batch,
            "seconds": self.seconds,
            "schedule": self.schedule.state(),
            "scores": self.scores.state(),
            "history": list(self.history),
        }

    def _snapshot(self) -> dict[str, Any]:
        """Return a copy of the state, to restore within this run."""
        return self._changing() | copy.deepcopy(self.learner.state())

    def _about(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "settings": self.settings.to_json(),
            "processes": self.accelerator.num_processes,
            "recipe": recipe_of(self.denoiser),
            "record": self._record(),
        }

    def _state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, as tensors and plain values."""
        return self._about() | self._changing() | self.learner.state()

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state of a run; raise CheckpointError where it does not fit."""
        self.learner.load_state(state)
        self.schedule.load_state(state["schedule"])
        self.scores.load_state(state["scores"])
        self.step, self.batch, self.seconds = state["step"], state["batch"], state["seconds"]
        self.history = list(state["history"])
        self.losses = []

    def _record(self) -> dict[str, Any]:
        """Return the facts of the run that are stored with the weights."""
        best = self.scores.best
        return {
            "settings": self.settings.to_json(),
            "steps": self.step,
            "seconds": round(self.seconds, 3),
            "steps_per_second": self._rate(),
            "compiled": self.learner.compiled is not None and self.learner.compiled.works,
            "stopped": self.stopped,
            "best": best and {"step": best["step"], "score": best["score"]},
        }

    def _rate(self) -> float | None:
        """Return the median of the steps per second, which the slow first steps hardly affect."""
        rates = [entry["steps_per_second"] for entry in self.history]
        return round(statistics.median(rates), 4) if rates else None

    def _save_best(self) -> None:
        if self.files.folder is not None and self.scores.best is not None:
            best = self.scores.best
            told = {"step": best["step"], "score": best["score"]}
            weights = {"backbone": best["weights"], "average": None}
            self.files.save("best.pt", self._about() | told | weights)

    # -- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Write the last state, load the chosen weights, measure the noise, save the model."""
        try:
            if self.files.folder is not None:
                self.files.save("last.pt", self._state())
        finally:
            self.learner.use(self._chosen())
        self._find_noise_level()
        self._save_model()
        if self.stopped == "interrupted":
            kept = "; the model is kept" if self.files.folder is not None else ""
            self.tell(f"stopped after {self.step} steps{kept}")
        elif self.stopped == "worse":
            self.tell(f"the validation score got worse; stopped after {self.step} steps")

    def _save_model(self) -> None:
        if self.files.folder is not None:
            self.denoiser.fit_record = self._record()
            save_model(self.denoiser, self.files.folder)

    def _find_noise_level(self) -> None:
        """Measure the noise level that observation "measured" needs, unless it was given."""
        wanted = self.denoiser.observation == "measured" and not self.denoiser.level_given
        if not (self.measures and wanted):
            return
        self.denoiser.found_level(None)
        self._save_model()  # it can be used without a level
        self.tell("measuring how strong the noise is, for the share of each pixel's own value")
        self.denoiser.found_level(same_for_all(self._level, self.accelerator))

    def _level(self) -> tuple[NoiseLevel, ...] | None:
        """Return the noise level; None where Ctrl-C stops the measurement, or the model fails."""
        megapixels = HASTY_MEGAPIXELS if self.stopped == "interrupted" else LEVEL_MEGAPIXELS
        try:
            return measured_level(self.denoiser.eval(), self.batches, megapixels=megapixels)
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        except (MaskedDenoiseError, RuntimeError, OSError) as error:
            logger.warning(
                "the level of the noise cannot be measured (%s); the model is kept, without the "
                "shares of the pixels' own values", error,
            )  # fmt: skip
        return None

    def _chosen(self) -> dict[str, Tensor]:
        """Return the weights to end with: the best or the last ones."""
        keep, validation = self.settings.keep, self.scores.validation
        if keep == "auto":
            supervised = validation is not None and validation.supervised
            keep = "best" if supervised or self.stopped == "worse" else "last"
        if keep == "last" or self.scores.best is None:
            return self.learner.averaged()
        return dict(self.scores.best["weights"])

    def close(self) -> None:
        """Leave the denoiser ready for use, with history and record unless no step succeeded."""
        self.learner.release()
        if self.step or self.stopped != "failed":
            self.denoiser.history = self.history
            self.denoiser.fit_record = self._record()
        if self.options.log_with is not None:
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def tell(self, text: str) -> None:
        """Log a line, and print it beside the bar."""
        if self.options.progress and self.accelerator.is_main_process:
            print(text, file=sys.stderr)
        logger.info(text)

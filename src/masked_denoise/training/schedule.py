"""When a run ends: its stages, their lengths in steps, and the learning rate at each step."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from .settings import FitSettings

UNKNOWN = 1 << 40  # steps of a stage whose speed is not measured yet
MARKS = 8  # number of marks that the speed is measured over


@dataclass
class Stage:
    """A part of the run with a learning rate cycle of its own.

    Attributes:
        smooth: False for stage B (mask loss of one branch, Eq. 4), True for stage P (total loss of
            all branches, Eq. 10).
        first: number of its first step.
        steps: number of steps; an estimate where the budget is in minutes.
        end: seconds of training by which it must end; infinite for a budget in steps.
    """

    smooth: bool
    first: int
    steps: int
    end: float = math.inf


class Schedule:
    """The stages of a run, and its position in them.

    A budget in steps fixes everything beforehand. A budget in minutes becomes a number of steps
    once the speed is known. The speed is measured again at every mark, so that the run ends on time
    and the learning rate reaches zero even if the speed changes.

    Args:
        settings: of the run.
        steps: the budget in steps, also where the settings give epochs; None for minutes.
        full_rate_steps: in a stage with more steps the learning rate is lowered in proportion, so
            that the weights move as far as in this many steps at the full rate. Default: no limit.
    """

    def __init__(
        self, settings: FitSettings, steps: int | None, *, full_rate_steps: float = math.inf
    ) -> None:
        self.full_rate_steps = full_rate_steps
        share = settings.smooth_steps
        self.warmup = settings.warmup_steps
        self.steps = steps
        self.seconds = math.inf
        if steps is None:
            self.seconds = 60 * float(settings.minutes or 0)
            stages = [
                Stage(False, 0, UNKNOWN, (1 - share) * self.seconds),
                Stage(True, 0, UNKNOWN, self.seconds),
            ]
            self.stages = stages if share else [Stage(False, 0, UNKNOWN, self.seconds)]
        else:
            smooth = int(share) if share >= 1 else round(share * steps)
            stages = [Stage(False, 0, steps - smooth), Stage(True, steps - smooth, smooth)]
            self.stages = [stage for stage in stages if stage.steps]
        self.index = 0
        self.marks: deque[tuple[int, float]] = deque([(0, 0.0)], maxlen=MARKS)

    def stage_at(self, step: int) -> Stage | None:
        """Return the stage that a step belongs to, None once the run is over.

        Steps must be asked for in order.
        """
        while self.index < len(self.stages):
            stage = self.stages[self.index]
            if step < stage.first + stage.steps:
                return stage
            self.index += 1
            if self.index < len(self.stages):
                self.stages[self.index].first = step
                while len(self.marks) > 1:  # the speed changes here
                    self.marks.popleft()
        return None

    @property
    def smooth(self) -> bool:
        """Whether the current stage, or the last one once the run is over, is stage P."""
        return self.stages[min(self.index, len(self.stages) - 1)].smooth

    def mark(self, step: int, seconds: float) -> None:
        """Record that `step` steps took `seconds` of training.

        With a budget in minutes, this sets the current stage's length by the speed.
        """
        if self.steps is not None or self.index >= len(self.stages):
            return
        stage = self.stages[self.index]
        self.marks.append((step, seconds))
        if len(self.marks) == 3 and self.marks[0][0] == stage.first:
            self.marks.popleft()  # the first steps are slower than the others
        before, since = self.marks[0]
        left = stage.end - seconds
        if left <= 0:
            stage.steps = step - stage.first
        elif seconds > since and step > before:
            rate = (step - before) / (seconds - since)
            stage.steps = step - stage.first + math.ceil(left * rate)

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step of the current stage.

        Linear warm-up, times half a cosine to zero over the stage; lower in stages longer than
        `full_rate_steps`.
        """
        stage = self.stages[self.index]
        number = step - stage.first
        warmup = min(self.warmup, stage.steps // 2)
        rise = min(1.0, (number + 1) / warmup) if warmup else 1.0
        known = stage.steps if stage.steps < UNKNOWN else 1
        most = min(1.0, self.full_rate_steps / max(known, 1))
        return most * rise * (0.5 + 0.5 * math.cos(math.pi * min(1.0, number / stage.steps)))

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the budget that is spent, from 0 to 1."""
        share = step / self.steps if self.steps is not None else seconds / self.seconds
        return min(share, 1.0)

    @property
    def expected_steps(self) -> int | None:
        """The expected number of steps of the whole run; None until the speed is measured."""
        if self.steps is not None:
            return self.steps
        stage = self.stages[min(self.index, len(self.stages) - 1)]
        if stage.steps == UNKNOWN:
            return None
        rest = 1.0 if stage is self.stages[-1] else self.seconds / stage.end
        return math.ceil((stage.first + stage.steps) * rest)

    def state(self) -> dict[str, Any]:
        """Return the state for `load_state`, as plain numbers."""
        return {"index": self.index, "stages": [[s.first, s.steps] for s in self.stages]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state of a run."""
        self.index = state["index"]
        for stage, (first, steps) in zip(self.stages, state["stages"], strict=True):
            stage.first, stage.steps = first, steps
        self.marks.clear()

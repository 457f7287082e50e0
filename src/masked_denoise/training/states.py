"""The training states of a run on disk, `last.pt` and `best.pt`, and resuming from them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import try_folder
from ..checkpoint import load_state, recipe_of, save_state
from ..errors import CheckpointError
from ..pretrained.card import PICTURE, README, is_generated
from .settings import FitOptions, FitSettings

if TYPE_CHECKING:
    from ..denoiser import AsymmetricMaskDenoiser

SAVE_SECONDS = 60.0  # between checkpoints ...
SAVE_SHARE = 0.02  # ... or longer, so that writing takes at most this share of the time
NOT_TRAINING = (
    "format", "library_version", "preset", "passes", "observation", "chroma_radius", "turns",
    "dct_threshold", "refine", "stride", "noise_level",
)  # fmt: skip


class StateFiles:
    """Writes the states of a run, from the main process only, and not so often that it costs time.

    Args:
        folder: None writes nothing.
        every: steps between states; None for about once a minute.
        writes: False in all processes but the main one.

    Attributes:
        fresh: True until the first save, which removes the checkpoints and the generated card of an
            earlier run; False for a resumed run.
    """

    def __init__(self, folder: str | Path | None, every: int | None, *, writes: bool) -> None:
        self.folder = None if folder is None or not writes else Path(folder)
        self.every = every
        self.pause = SAVE_SECONDS
        self.saved_at = time.monotonic()
        self.fresh = True

    def _begin_anew(self, folder: Path, written: str) -> None:
        """Remove the checkpoints and the generated card of an earlier run, except for `written`.

        Its weights stay until there are new ones. A README that the user wrote stays, too.
        """
        stale = [folder / name for name in ("last.pt", "best.pt") if name != written]
        card = folder / README
        if card.exists() and is_generated(card.read_text("utf-8", "replace")):
            stale += [card, folder / PICTURE]
        for path in stale:
            path.unlink(missing_ok=True)

    def due(self, step: int) -> bool:
        """Return whether the state after this step should be written."""
        if self.folder is None:
            return False
        if self.every is not None:
            return step % self.every == 0
        return time.monotonic() - self.saved_at > self.pause

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a state as `name`, or raise CheckpointError and keep the older file."""
        if self.folder is None:
            return
        begin = time.monotonic()
        save_state(self.folder / name, state)
        if self.fresh:
            self._begin_anew(self.folder, name)
        self.fresh = False
        self.saved_at = time.monotonic()
        self.pause = max(SAVE_SECONDS, (self.saved_at - begin) / SAVE_SHARE)


def check_output(folder: str | Path | None) -> None:
    """Raise CheckpointError if the folder cannot be written: before the work, not after it.

    Args:
        folder: that a run is to write into; None if it writes nothing.
    """
    if folder is None:
        return
    try:
        try_folder(folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot write into output={folder}: {error.strerror or error}; choose another folder"
        ) from error


def state_to_resume(options: FitOptions) -> dict[str, Any] | None:
    """Return the state to resume from, None for a new run.

    Raises:
        CheckpointError: the file is damaged, or `resume` names one that does not exist.
    """
    if options.resume is False or options.resume is None:
        return None
    if options.resume is True:
        path = Path(options.output or "") / "last.pt"
        return load_state(path) if path.exists() else None
    path = Path(options.resume)
    return load_state(path / "last.pt" if path.is_dir() else path)


def check_same_run(
    state: dict[str, Any],
    denoiser: AsymmetricMaskDenoiser,
    settings: FitSettings,
    processes: int,
) -> None:
    """Raise CheckpointError, naming what changed, if a run cannot continue as it began."""
    if "optimizer" not in state:
        raise CheckpointError("only last.pt can be resumed; this file holds weights for use")
    before = (
        {"compile": False, "optimizer": "adamw", "counts": False}
        | state["settings"]
        | state["recipe"]
    )
    before["processes"] = state["processes"]
    now = {**settings.to_json(), **recipe_of(denoiser), "processes": processes}
    if denoiser.value_range is None:
        del now["value_range"]  # the run measured it
    changed = [
        f"{name}: {before[name]} then, {value} now"
        for name, value in now.items()
        if name not in NOT_TRAINING and before[name] != value
    ]
    if changed:
        raise CheckpointError(
            f"the run in the checkpoint had other settings ({'; '.join(changed)}); give the same "
            "ones to resume it, or start anew: resume=False (--overwrite in place of --resume)"
        )

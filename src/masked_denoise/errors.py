"""The errors of the library; messages say what was given, what is needed, and what to do.

Each class also derives from the built-in exception that a caller would expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MaskedDenoiseError(Exception):
    """Base class of all errors raised by this library."""


class SizeError(MaskedDenoiseError, ValueError):
    """An image, batch or tensor has a shape that cannot be used."""


class PixelError(MaskedDenoiseError, ValueError):
    """Pixels hold values that cannot be used: NaN, infinite, or of an unsupported type."""


class SettingError(MaskedDenoiseError, ValueError):
    """An argument is out of its range, or two arguments contradict each other."""


class UnknownNameError(MaskedDenoiseError, ValueError):
    """A name (backbone, scheme, preset, format) is not known; the nearest one is suggested."""


class BackboneError(MaskedDenoiseError, ValueError):
    """A network cannot be a backbone, for example because it changes the shape of its input."""


class DataError(MaskedDenoiseError, ValueError):
    """There is nothing to train on or to denoise, or batches have an unusable form."""


class ImageReadError(MaskedDenoiseError, OSError):
    """A file is missing, unreadable, truncated or of an unsupported type."""


class ImageWriteError(MaskedDenoiseError, OSError):
    """A result could not be written; no partial file is left behind."""


class TrainingError(MaskedDenoiseError, RuntimeError):
    """Training cannot continue, for example because the loss is no longer finite."""


class CheckpointError(MaskedDenoiseError, ValueError):
    """A checkpoint or model folder is damaged or does not belong to this model."""


class WeightsError(CheckpointError):
    """A model, its config or weights file is missing, damaged, unknown, unsafe or does not fit."""


class MissingExtraError(MaskedDenoiseError, ImportError):
    """An optional package is needed; the message says which extra installs it."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters, or its class name.

    >>> first_line(ValueError("\\n  too large\\n(by far)")), first_line(KeyboardInterrupt())
    ('too large', 'KeyboardInterrupt')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown name; it suggests the nearest known one and lists all.

    >>> print(unknown_name("backbone", "unett", ["unet", "dncnn"]))
    unknown backbone 'unett'; did you mean 'unet'? Known: dncnn, unet
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return UnknownNameError(f"unknown {kind} '{name}'{hint} Known: {', '.join(names)}")

"""Numbers that users give, of whatever kind: checked, and made plain."""

from __future__ import annotations

import math
import operator
from typing import SupportsFloat, SupportsIndex

from .errors import SettingError


def whole(name: str, value: SupportsIndex) -> int:
    """Return a whole number as an int.

    Raises:
        SettingError: it is none.

    >>> whole("passes", 4)
    4
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise SettingError(f"{name} is {value!r}; a whole number is needed") from None


def number(name: str, value: SupportsFloat, needed: str = "a number") -> float:
    """Return a finite number as a float.

    Args:
        name: of the number, for the message.
        value: that was given.
        needed: what is told to be needed.

    Raises:
        SettingError: it is none.
    """
    try:
        if isinstance(value, str | bytes | bool) or not math.isfinite(value):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: of several
        raise SettingError(f"{name} is {value!r}; {needed} is needed") from None

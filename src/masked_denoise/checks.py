"""Checks of the numbers that users pass; any numeric type becomes int or float."""

from __future__ import annotations

import math
import operator
from typing import SupportsFloat, SupportsIndex

from .errors import SettingError


def whole(name: str, value: SupportsIndex) -> int:
    """Return a whole number as an int.

    Raises:
        SettingError: the value is no whole number.

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
        name: of the argument, for the message.
        value: as given by the user.
        needed: how the message words the requirement.

    Raises:
        SettingError: the value is no finite number.
    """
    try:
        if isinstance(value, str | bytes | bool) or not math.isfinite(value):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # last: tensor of several values
        raise SettingError(f"{name} is {value!r}; {needed} is needed") from None

"""Numbers that users give, of whatever kind: checked, and made plain."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, SupportsFloat, SupportsIndex

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


def range_of_values(value: Any) -> tuple[float, float]:
    """Return the range (low, high) of float values as two floats.

    Raises:
        SettingError: it is no such pair with high > low.

    >>> range_of_values([0, 4095])
    (0.0, 4095.0)
    """
    needed = "(low, high) with high > low"
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise SettingError(f"value_range is {value!r}; {needed} is needed")
    ends = [number("value_range", one, needed) for one in value]
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise SettingError(f"value_range is {value!r}; {needed} is needed")
    low, high = ends
    if hasattr(value, "_fields"):  # a tuple of a kind of its own
        kind: Any = type(value)
        return kind(low, high)  # type: ignore[no-any-return]
    return low, high

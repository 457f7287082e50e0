"""config.json, the recipe of a model: every key is checked, as files may come from anyone."""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .errors import WeightsError

FORMAT = 1
CONFIG = "config.json"
ABOUT = ("license", "training_data", "metrics", "source")
"""Keys for the model card; they do not influence results."""

_OPTIONAL = {
    "training", "weights_sha256", "channels_last", "noise_level", "dct_threshold", "given",
    "counts", *ABOUT,
}  # fmt: skip
_LARGEST_FILE = 4 << 20  # bytes
_LARGEST_NUMBER = 10**7  # among arguments of networks and schemes; any width or depth is smaller
_DEEPEST, _MOST_VALUES, _LONGEST_TEXT = 16, 20_000, 100_000


def plain(value: object, what: str) -> Any:
    """Return a value as JSON would return it; tuples become lists.

    Args:
        value: made of None, bool, int, finite float, str, list, tuple, and dict with str keys.
            Other types are refused rather than dropped or converted.
        what: name of the value in messages.

    Raises:
        WeightsError: a part is of another type, or the value is too large; the message names it.

    >>> plain({"widths": (16, 32)}, "backbone_args")
    {'widths': [16, 32]}
    """
    return _plain(value, what, _DEEPEST, [_MOST_VALUES])


def _plain(value: object, what: str, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        limit = f"more than {_DEEPEST} levels" if depth < 0 else f"more than {_MOST_VALUES} values"
        raise WeightsError(f"{what} cannot be stored: it has {limit}")
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if type(value) is str and len(value) <= _LONGEST_TEXT and _is_unicode(value):
        return value
    if type(value) in (list, tuple):
        items: Iterable[tuple[int, object]] = enumerate(value)  # type: ignore[arg-type]
        return [_plain(item, f"{what}[{place}]", depth - 1, left) for place, item in items]
    if type(value) is dict and all(type(key) is str and _is_unicode(key) for key in value):
        return {
            key: _plain(item, f"{what}[{key!r}]", depth - 1, left) for key, item in value.items()
        }
    raise WeightsError(
        f"{what} cannot be stored: it is {_shown(value)}, a {type(value).__name__}; config.json "
        "holds None, bools, finite numbers, strings, lists, and dicts with string keys (for a "
        "dataclass, let the network take the fields: dataclasses.asdict(...))"
    )


def to_json(config: dict[str, Any]) -> str:
    """Return the text of config.json."""
    return json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_config(path: Path) -> dict[str, Any]:
    """Return the contents of a config.json, with type and bounds of every key checked.

    Raises:
        WeightsError: the file is missing, damaged, from another program or version, or has an
            unusable value.
    """
    config = parse_config(path)
    check_config(config, path)
    return config


def parse_config(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; WeightsError if it is missing or not strict JSON."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise WeightsError(f"cannot read {path}: it is no file")
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise WeightsError(f"cannot read {path}: it is larger than {_LARGEST_FILE} bytes")
        config = json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_twins
        )
        config = plain(config, CONFIG)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no model in {path.parent}: {path.name} is missing") from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise WeightsError(f"cannot read {path}: it is nested too deeply") from error
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} holds no settings of a model")
    return config


def check_config(config: dict[str, Any], where: object) -> None:
    """Raise WeightsError if a key is missing or unknown, or a value cannot be used.

    Args:
        config: JSON values.
        where: their origin, for the message.
    """
    unknown, missing = set(config) - _REQUIRED - _OPTIONAL, _REQUIRED - set(config)
    if unknown or missing or not _RULES["format"].holds(config["format"]):
        raise WeightsError(
            f"{where} cannot be used by this version: format {_shown(config.get('format'))} "
            f"(needed: {FORMAT}), unknown keys: {_names(unknown)}, missing keys: {_names(missing)}"
        )
    for key, value in config.items():
        rule = _RULES[key]
        if not rule.holds(value):
            raise WeightsError(
                f"the settings in {where} cannot be used: {key} is {_shown(value)}; {rule.needed} "
                "is needed"
            )


class Rule(NamedTuple):
    """A requirement on a value: a test, and its wording in messages."""

    holds: Callable[[Any], bool]
    needed: str


def _whole(low: int, high: int) -> Rule:
    return Rule(
        lambda value: type(value) is int and low <= value <= high,
        f"a whole number from {low} to {high}",
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e300


def _is_range(value: Any) -> bool:
    return value is None or _is_pair(value)


def _is_threshold(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_levels(value: Any) -> bool:
    return type(value) is list and 0 < len(value) <= 4096 and all(map(_is_pair, value))


def _is_pair(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_is_number, value))


def _is_strides(value: Any) -> bool:
    return type(value) is list and 0 < len(value) <= 64 and all(map(_RULES["stride"].holds, value))


def _is_refinement(value: Any) -> bool:
    if value is None:
        return True
    return (
        type(value) is dict
        and set(value) - {"balanced"} == {"draws", "share", "masked"}
        and _whole(1, 10_000).holds(value["draws"])
        and _is_number(value["share"])
        and type(value["masked"]) is bool
        and type(value.get("balanced", False)) is bool
    )


def _is_moderate(value: Any) -> bool:
    """Return whether all numbers in an argument are small enough to be lengths of lists."""
    if type(value) is list:
        return all(map(_is_moderate, value))
    if type(value) is dict:
        return all(map(_is_moderate, value.values()))
    return type(value) not in (int, float) or abs(value) <= _LARGEST_NUMBER


def _is_backbone(value: Any) -> bool:
    return (
        type(value) is dict
        and set(value) == {"name", "arguments"}
        and (value["name"] is None or type(value["name"]) is str)
        and type(value["arguments"]) is dict
        and "channels" not in value["arguments"]
        and _is_moderate(value["arguments"])
    )


def _is_scheme(value: Any) -> bool:
    return (
        type(value) is dict
        and set(value) == {"name", "class", "settings"}
        and (value["name"] is None or type(value["name"]) is str)
        and type(value["class"]) is str
        and type(value["settings"]) is dict
        and all(_is_scheme_setting(item) for item in value["settings"].values())
    )


def _is_scheme_setting(value: Any) -> bool:
    return _is_scheme(value) if type(value) is dict else _is_moderate(value)


_BOOL = Rule(lambda value: type(value) is bool, "true or false")
_OBJECT = Rule(lambda value: type(value) is dict, "an object")
_TEXT = Rule(lambda value: value is None or type(value) is str, "a text")
_RULES: dict[str, Rule] = {
    "format": Rule(lambda value: type(value) is int and value == FORMAT, str(FORMAT)),
    "library_version": Rule(lambda value: type(value) is str, "a text"),
    "backbone": Rule(
        _is_backbone,
        'an object of "name" and "arguments" (without channels, no number over '
        f"{_LARGEST_NUMBER:,})",
    ),
    "channels": _whole(1, 4096),
    "scheme": Rule(
        _is_scheme,
        f'an object of "name", "class" and "settings" (no number over {_LARGEST_NUMBER:,})',
    ),
    "train_stride": Rule(_is_strides, "a list of whole numbers from 1 to 1024"),
    "stride": _whole(1, 1024),
    "refine": Rule(
        _is_refinement, 'null, or an object of "draws", "share", "masked" and "balanced"'
    ),
    "passes": _whole(1, 1_000_000),
    "observation": Rule(
        lambda value: _is_number(value) or value == "measured", 'a number or "measured"'
    ),
    "noise_level": Rule(_is_levels, "a list of pairs of numbers"),
    "chroma_radius": _whole(0, 1_000_000),
    "dct_threshold": Rule(_is_threshold, "a number from 0 to 1"),
    "turns": _BOOL,
    "residual": _BOOL,
    "value_range": Rule(_is_range, "null, or a list of two numbers"),
    "counts": _BOOL,
    "preset": _TEXT,
    "training": Rule(lambda value: value is None or type(value) is dict, "an object"),
    "channels_last": _BOOL,
    "given": Rule(
        lambda value: type(value) is list and all(type(one) is str for one in value),
        "a list of the names of settings",
    ),
    "weights_sha256": Rule(
        lambda value: type(value) is str and re.fullmatch("[0-9a-f]{64}", value) is not None,
        "a SHA-256 digest of 64 hexadecimal digits",
    ),
    "license": _TEXT,
    "training_data": _TEXT,
    "metrics": _OBJECT,
    "source": _OBJECT,
}
_REQUIRED = _RULES.keys() - _OPTIONAL


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {_shown(twin)} comes twice")
    return values


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """Return a value as text for a message: one short line, printable in any terminal."""
    text = ascii(value) if isinstance(value, str | int | float | list | dict) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def one_line(error: object) -> str:
    """Return the message of an error on one line, shortened to 1000 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 1000 else f"{text[:997]}..."


def _names(keys: set[str]) -> str:
    shown = [key if key.isidentifier() and key.isascii() else _shown(key) for key in sorted(keys)]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") or "none"

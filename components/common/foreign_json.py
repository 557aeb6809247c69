"""JSON that somebody else may have written: whatever is wrong with it is a `ValueError`."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import re
import reprlib
import types
import typing
from collections import Counter
from typing import Any, NoReturn, TypeVar

DEEPEST = 100
"""Levels of lists and objects in each other: more than any document needs, and fewer than Python's stack takes."""

LARGEST = 2**63
"""Whole numbers are smaller than this, as everywhere where they are counted with."""

Record = TypeVar("Record")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MAY_HOLD_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: when it is no JSON that can be worked with and written again: also when it is nested deeper than
            `DEEPEST`, has a number of thousands of digits, NaN, an infinity, half a character (a lone surrogate), or an
            object with one name twice, of which another reader may take the other value.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_with_unique_names
        )
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    if _MAY_HOLD_SURROGATE.search(text) and (found := _LONE_SURROGATE.search(json.dumps(value, ensure_ascii=False))):
        raise ValueError(f"it holds half a character, \\u{ord(found[0]):x}")
    return value


def record_of(record: type[Record], content: Any, **given: Any) -> Record:
    """The dataclass whose fields a JSON object holds: lists become tuples, and what is no field is left out.

    Args:
        record: a dataclass whose fields are of JSON's types, tuples and mappings of these, or such dataclasses.
        content: the JSON value.
        given: fields that are taken from here, whatever the object holds.

    Raises:
        ValueError: when it is no object, lacks a field, or a field is of another type.
    """
    if not isinstance(content, dict):
        raise ValueError(f"found {reprlib.repr(content)}, expected an object")
    hints, values = typing.get_type_hints(record), dict(given)
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        if field.name in values:
            continue
        if field.name in content:
            values[field.name] = _of_type(hints[field.name], content[field.name], field.name)
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"it lacks {field.name!r}")
    return record(**values)


def _of_type(hint: Any, value: Any, name: str) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return record_of(hint, value)  # type: ignore[arg-type]
    if origin is types.UnionType:
        for part in parts:
            try:
                return _of_type(part, value, name)
            except ValueError:
                continue
    elif origin is tuple and isinstance(value, list):
        of_each = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(of_each) == len(value):
            return tuple(_of_type(part, each, name) for part, each in zip(of_each, value, strict=True))
    elif origin is collections.abc.Mapping and isinstance(value, dict):
        return {key: _of_type(parts[1], each, f"{name} of {key!r}") for key, each in value.items()}
    elif hint is Any or type(value) in ((int, float) if hint is float else (hint,)):
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise ValueError(f"{name}: found a number of {value.bit_length()} bits, expected a smaller one")
        return value
    raise ValueError(f"{name}: found {reprlib.repr(value)}, expected {getattr(hint, '__name__', None) or hint}")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise _too_deep()
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]


def _too_deep() -> ValueError:
    return ValueError(f"it is nested deeper than {DEEPEST} levels")


def _with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"it has the name {twice[:80]!r} twice in one object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return value

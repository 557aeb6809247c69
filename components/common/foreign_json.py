"""JSON that somebody else may have written: whatever is wrong with it is a `ValueError`."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

DEEPEST = 100
"""Levels of lists and objects in each other: more than any document needs, and fewer than Python's stack takes."""

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

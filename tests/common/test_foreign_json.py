"""JSON of somebody else: read, or refused by one kind of error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from components.common.foreign_json import DEEPEST, parse_json, record_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1e3}', {"a": 1000.0}),
        ('"\\ud83d\\ude00"', "😀"),
        ("[" * DEEPEST + "]" * DEEPEST, None),
    ],
)
def test_json_is_read(text: str | bytes, value: object) -> None:
    found = parse_json(text)
    assert value is None or found == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        (b"\xff", "can't decode"),
        ("[" * 100_000, "nested deeper"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested deeper"),
        ("1" * 5000, "digits"),
        ("NaN", "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ("1e999", "too large"),
        ('["\\ud800"]', "half a character"),
        ('{"\\udfff": 1}', "half a character"),
        ('[{"a": 1, "b": 2, "a": 1}]', "the name 'a' twice"),
    ],
)
def test_json_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    number: int
    share: float
    inner: Inner
    pair: tuple[int, int]
    names: tuple[str, ...]
    by_name: Mapping[str, float | None]
    anything: Any
    more: int = 5


RIGHT: dict[str, Any] = {
    "number": 1,
    "share": 2,
    "inner": {"name": "x", "unknown": 7},
    "pair": [1, 2],
    "names": ["a", "b"],
    "by_name": {"c": None, "d": 0.5},
    "anything": [[1]],
    "unknown": 7,
}


def test_record_has_tuples_for_lists_and_leaves_out_the_unknown() -> None:
    found = record_of(Outer, RIGHT, number=3)
    assert (found.number, found.pair, found.names, found.inner) == (3, (1, 2), ("a", "b"), Inner(name="x"))
    assert (found.by_name, found.anything, found.more) == ({"c": None, "d": 0.5}, [[1]], 5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"number": True}, "number: found True, expected int"),
        ({"number": 2**63}, "number: found a number of 64 bits, expected a smaller one"),
        ({"number": "1"}, "number: found '1', expected int"),
        ({"share": None}, "share: found None, expected float"),
        ({"inner": []}, r"found \[\], expected an object"),
        ({"inner": {}}, "it lacks 'name'"),
        ({"pair": [1]}, r"pair: found \[1\], expected tuple"),
        ({"pair": {"a": 1}}, "pair: found"),
        ({"names": "ab"}, "names: found 'ab'"),
        ({"by_name": {"a\nb": "x"}}, r"by_name of 'a\\nb': found 'x'"),
    ],
)
def test_record_of_other_types_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as refusal:
        record_of(Outer, {**RIGHT, **changes})
    assert "\n" not in str(refusal.value)

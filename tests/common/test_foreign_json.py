"""JSON of somebody else: read, or refused by one kind of error."""

from __future__ import annotations

import pytest

from components.common.foreign_json import DEEPEST, parse_json


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

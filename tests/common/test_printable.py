from __future__ import annotations

import ast
import json

import pytest
import yaml

from components.common.printable import LONGEST, literal, masked, printable, visible


def test_printable_is_one_line_without_hidden_characters() -> None:
    shown = printable("a\nb\x1b[31m\u202ec\ud83d")
    assert shown == "a b\\u001b[31m\\u202ec\\ud83d"
    assert printable(shown) == shown


def test_printable_leaves_out_the_middle_of_a_long_text() -> None:
    shown = printable("begin" + "x" * 3 * LONGEST + "end")
    assert len(shown) == LONGEST and shown.startswith("beginx") and shown.endswith("xend") and " ... " in shown


def test_visible_keeps_lines_and_writing() -> None:
    assert visible("a\n\tb \u732b e\u0301") == "a\n\tb \u732b e\u0301"


@pytest.mark.parametrize("read", [ast.literal_eval, json.loads, yaml.safe_load])
def test_literal_is_read_as_the_text(read) -> None:
    text = 'a"b\\c\n\x9b\u2028\u202e \U0001f431'
    assert read(literal(text)) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:pass/word@bucket/x", "s3://***@bucket/x"),
        ("https://host/x?sig=abc&b=1", "https://host/x?sig=***&b=1"),
        ("hf://owner/name@main", "hf://owner/name@main"),
        ("http://host:9000/a@b", "http://host:9000/a@b"),
    ],
)
def test_masked_hides_secrets_of_addresses_alone(text: str, shown: str) -> None:
    assert masked(text) == shown

"""Text that somebody else may have written, as it is shown: with nothing hidden and no secret in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence

LONGEST = 10_000
"""Characters of a message that are shown; of a longer one the middle is left out."""

_LONGEST_END = 1_500
_LOOKED_THROUGH = 100_000

_LINE_BREAK = re.compile("[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\\s*")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Control characters but for tabs and ends of lines, marks that change the direction of writing, and no characters."""

_USERINFO = re.compile(r"""(?<=://)(?:[^\s/":?#]{0,200}:(?!\d{1,5}(?:[/"?#\s]|$))[^\s"]{0,1000}@|[^\s/"?#]{1,1000}@)""")
"""`user:password@`, also where the password has a slash, as keys of S3 have; no port, and no `@revision` of a path."""
_SECRET_OF_QUERY = re.compile(
    r"([?&;](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid|signature|"
    r"sig|(?:access_)?token|api_?key|password|secret)=)[^&\s\"'#]+",
    re.IGNORECASE,
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")
_BEARER = re.compile(r"(\bBearer\s+)[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE)

_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|SECRET|SECRET_ACCESS_KEY|PASSWORD|API_KEY)$")
_SHORTEST_SECRET = 8  # a shorter one would be found in ordinary words
_MASK = "***"


def printable(text: str) -> str:
    """A message on one line, `visible` and `masked`: line breaks become spaces. Done twice, it changes nothing more."""
    if len(text) > _LOOKED_THROUGH:
        text = text[: _LOOKED_THROUGH // 2] + text[-_LOOKED_THROUGH // 2 :]
    text = visible(_LINE_BREAK.sub(" ", masked(text)))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - _LONGEST_END - 5]} ... {text[-_LONGEST_END:]}"
    return text


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """The rows as lines whose columns begin below each other."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def literal(text: str) -> str:
    """A string literal of Python, JSON and YAML, `visible` and `masked`."""
    return visible(json.dumps(masked(text), ensure_ascii=False))


def visible(text: str) -> str:
    r"""The text in which every character that a reader would not see is written as in JSON and Python, `\u202e`."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def masked(text: str) -> str:
    """The text with `***` for passwords in addresses, signatures in queries, tokens, and secrets of the environment."""
    text = _USERINFO.sub(f"{_MASK}@", text)
    text = _SECRET_OF_QUERY.sub(rf"\1{_MASK}", text)
    text = _BEARER.sub(rf"\1{_MASK}", _HUB_TOKEN.sub(f"hf_{_MASK}", text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_VARIABLE.search(name):
            text = text.replace(value, _MASK)
    return text

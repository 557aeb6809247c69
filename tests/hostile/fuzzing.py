"""Sound bytes and documents, damaged by chance: what the fuzz tests give to every parser."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

_NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63, 10**30, 0.5, -0.0, 1e308)
_TEXTS = (
    "",
    " ",
    "\0",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 5000,
    "<🐱>",
    "\u202e",
    "1e999",
    "null",
    "{}",
    "%00",
    "-1",
)

odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from(_NUMBERS)
    | st.sampled_from(_TEXTS)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
"""Whatever JSON can hold."""


@st.composite
def damaged_bytes(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with up to four changes: bits, runs of bytes, lengths, pieces that are lost, doubled or put in."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, len(data))))
        match draw(st.sampled_from(("bit", "bytes", "cut", "lose", "double", "length"))):
            case "bit" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "bytes":
                data[at : at + length] = draw(st.binary(max_size=64))
            case "cut":
                del data[at:]
            case "lose":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "length":
                order = draw(st.sampled_from(("big", "little")))
                number = draw(st.sampled_from((0, 1, 2**16, 2**31 - 1, 2**32 - 1)))
                data[at : at + 4] = number.to_bytes(4, order)  # type: ignore[arg-type]
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, sound: Any) -> Any:
    """The JSON value `sound` with up to three of its parts replaced, removed or renamed."""
    document = [copy.deepcopy(sound)]
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(("replace", "replace", "remove", "rename"))):
            case "remove" if parent is not document:
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(_TEXTS))] = parent.pop(key)
            case _:
                parent[key] = draw(odd_values)
    return document[0]


@st.composite
def damaged_safetensors(draw: st.DrawFn, sound: bytes) -> bytes:
    """The safetensors file `sound` with another header, whose length is right, and the tensors as they were."""
    end = 8 + int.from_bytes(sound[:8], "little")
    header = json.dumps(draw(damaged_json(json.loads(sound[8:end]))), ensure_ascii=False).encode("utf-8", "replace")
    return len(header).to_bytes(8, "little") + header + sound[end:]


def _places(value: Any) -> Any:
    """Every part of a document, as the list or object that holds it and the index or key."""
    if not isinstance(value, dict | list):
        return
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        yield from _places(inner)

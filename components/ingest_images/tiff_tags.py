"""The first directory of a TIFF structure: what a TIFF file describes its pixels with, and what EXIF is."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping

ORIENTATION, XMP = 274, 700

PIXEL_TAGS = frozenset((
    *(254, 255, 256, 257, 258, 259, 262, 266),  # what is shown, its size, depth, compression and colours
    *(273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),  # where it lies, and how it is packed
    *(332, 334, 338, 339, 347, *range(512, 522), 529, 530, 531, 532),  # inks, alpha, number format, JPEG, YCbCr
))  # fmt: skip
"""Those that decide about pixels as they are stored."""
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tag:
    """An entry of a directory.

    Attributes:
        number: which tag it is.
        entry: its bytes in the directory.
        size: bytes of all its values, by the directory.
        integer: the first of its values, None where they are no integers.
        value: the bytes of all its values, None where they do not lie inside of the data.
    """

    number: int
    entry: bytes
    size: int
    integer: int | None
    value: memoryview | None


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How the numbers of a TIFF structure are written; the 64-bit form is called BigTIFF."""

    order: str
    big: bool

    @property
    def entry_bytes(self) -> int:
        return 20 if self.big else 12

    @property
    def count_bytes(self) -> int:
        return 8 if self.big else 2

    def number(self, data: bytes, at: int, length: int) -> int:
        return int(struct.unpack_from(self.order + {2: "H", 4: "L", 8: "Q"}[length], data, at)[0])


def first_tags(data: bytes) -> Mapping[int, Tag]:
    """The tags of the first directory; those that are cut off are left out, of doubled ones the last is taken.

    Raises:
        ValueError: when the bytes are no TIFF structure.
    """
    layout, start = _first_directory(data)
    return {tag.number: tag for tag in _tags(data, layout, start)}


def pixel_tags_only(data: bytes) -> bytes:
    """A TIFF file whose first directory has only the tags that decide about pixels as they are stored.

    Raises:
        ValueError: when the bytes are no TIFF structure.
    """
    layout, start = _first_directory(data)
    kept = [tag.entry for tag in _tags(data, layout, start) if tag.number in PIXEL_TAGS]
    count = layout.number(data, start, layout.count_bytes)
    end = start + layout.count_bytes + count * layout.entry_bytes
    next_directory = data[end : end + (8 if layout.big else 4)]
    directory = struct.pack(layout.order + ("Q" if layout.big else "H"), len(kept)) + b"".join(kept) + next_directory
    whole = memoryview(data)  # a copy of each half would be as much memory again
    return b"".join((whole[:start], directory, whole[start + len(directory) :]))


def _first_directory(data: bytes) -> tuple[_Layout, int]:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or (42 not in data[2:4] and 43 not in data[2:4]):
        raise ValueError(f"it begins with {data[:8]!r}, which is no TIFF header")
    layout = _Layout(order, 43 in data[2:4])
    try:
        start = layout.number(data, 8 if layout.big else 4, 8 if layout.big else 4)
        layout.number(data, start, layout.count_bytes)
    except struct.error as error:
        raise ValueError("its directory lies outside of it") from error
    return layout, start


def _tags(data: bytes, layout: _Layout, start: int) -> Iterator[Tag]:
    word = 8 if layout.big else 4
    first, whole = start + layout.count_bytes, memoryview(data)  # thousands of tags may have the same megabytes
    for index in range(layout.number(data, start, layout.count_bytes)):
        at = first + index * layout.entry_bytes
        entry = data[at : at + layout.entry_bytes]
        if len(entry) < layout.entry_bytes:
            return
        number, kind = layout.number(entry, 0, 2), layout.number(entry, 2, 2)
        size = layout.number(entry, 4, word) * _TYPE_BYTES.get(kind, 1)
        place = at + 4 + word if size <= word else layout.number(entry, 4 + word, word)
        value = whole[place : place + size] if place + size <= len(data) else None
        integer = None
        if value and kind in _INTEGERS:
            (integer,) = struct.unpack_from(layout.order + _INTEGERS[kind], value)
        yield Tag(number=number, entry=entry, size=size, integer=integer, value=value)

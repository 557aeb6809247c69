"""The captions that lie beside pictures: `<name>.txt`, or a line of `metadata.jsonl`."""

from __future__ import annotations

import logging
import re
from pathlib import PurePosixPath
from typing import Any

from components.common.errors import ImageError
from components.common.foreign_json import parse_json
from components.common.sources.picture_listing import (
    LARGEST_CAPTION,
    METADATA_NAME,
    Listing,
    caption_key,
    read_listed,
)
from components.common.sources.pictures import Source
from components.common.storage import ObjectInfo
from components.common.storage.local_files import readable_name

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 5
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # but those that are space between words


def read_captions(source: Source, listing: Listing) -> dict[str, str]:
    """The caption of each picture that has one, by the picture's key.

    A text file named like the picture comes before `{"file_name": ..., "text": ...}` in the folder's
    metadata.jsonl (the layout of Hugging Face's image folders). An empty caption is none.

    Raises:
        ImageError: when a caption file cannot be read as such.
        StorageError: when the source does not give it.
    """
    captions: dict[str, str] = {}
    pictures = {info.key for info in listing.pictures}
    for info in listing.metadata:
        captions |= _captions_of_metadata(source, info, pictures)
    texts = {info.key: info for info in listing.captions}
    for key in sorted(pictures):
        if beside := texts.get(caption_key(key)):
            lines = enumerate(_text(source, beside).splitlines(), start=1)
            captions[key] = " ".join(_checked(line, _line_of(source, beside, number)) for number, line in lines)
    captions = {key: " ".join(caption.split()) for key, caption in captions.items()}
    return {key: caption for key, caption in captions.items() if caption}


def _captions_of_metadata(source: Source, info: ObjectInfo, pictures: set[str]) -> dict[str, str]:
    captions, strangers = {}, []
    for number, line in enumerate(_text(source, info).split("\n"), start=1):  # JSON may hold other ends of lines
        if not line.strip():
            continue
        name, text = _entry(line, _line_of(source, info, number))
        picture = str(PurePosixPath(info.key).parent / name)
        if picture in pictures:
            captions[picture] = text
        else:
            strangers.append(name)
    if strangers:
        shown = ", ".join(name if name.isprintable() else repr(name) for name in strangers[:_NAMES_SHOWN])
        more = f" and {len(strangers) - _NAMES_SHOWN} more" if len(strangers) > _NAMES_SHOWN else ""
        logger.warning("%s: %s names %s%s, which is no picture here", source.uri, readable_name(info.key), shown, more)
    return captions


def _line_of(source: Source, info: ObjectInfo, number: int) -> str:
    return f"{source.uri}: line {number} of {readable_name(info.key)}"


def _checked(text: str, where: str) -> str:
    """The text itself, when no terminal, page or tokenizer stumbles over it."""
    if found := _CONTROL.search(text):
        raise ImageError(f"{where} has the control character U+{ord(found[0]):04X}, expected text: take it out")
    if len(text) > LARGEST_CAPTION:
        raise ImageError(
            f"{where} has a text of {len(text)} characters, expected at most {LARGEST_CAPTION}: shorten it"
        )
    return text


def _entry(line: str, where: str) -> tuple[str, str]:
    try:
        entry: Any = parse_json(line)
    except ValueError as error:
        raise ImageError(f"{where} is no JSON ({error}): write one object a line") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise ImageError(f'{where} is {line[:80]!r}, expected {{"file_name": "...", "text": "..."}} ({METADATA_NAME})')
    text = entry.get("text") or ""
    if not isinstance(text, str):
        raise ImageError(f"{where} has the text {repr(text)[:80]}, expected a string")
    return entry["file_name"], _checked(text, where)


def _text(source: Source, info: ObjectInfo) -> str:
    where = f"{source.uri}: {readable_name(info.key)}"
    try:
        return read_listed(source, info).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImageError(f"{where} is no UTF-8 text ({error}): save it as UTF-8") from error
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error

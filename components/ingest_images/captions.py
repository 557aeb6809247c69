"""The captions that lie beside pictures: `<name>.txt`, or a line of `metadata.jsonl`."""

from __future__ import annotations

import json
import logging
from pathlib import PurePosixPath
from typing import Any

from components.common.errors import ImageError
from components.common.sources.picture_listing import CAPTION_ENDING, METADATA_NAME, Listing
from components.common.sources.pictures import Source
from components.common.storage.local_files import readable_name

logger = logging.getLogger(__name__)


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
        captions |= _captions_of_metadata(source, info.key, pictures)
    texts = {info.key for info in listing.captions}
    for key in sorted(pictures):
        beside = str(PurePosixPath(key).with_suffix(CAPTION_ENDING))
        if beside in texts:
            captions[key] = _text(source, beside)
    captions = {key: " ".join(caption.split()) for key, caption in captions.items()}
    return {key: caption for key, caption in captions.items() if caption}


def _captions_of_metadata(source: Source, key: str, pictures: set[str]) -> dict[str, str]:
    captions, strangers = {}, []
    for number, line in enumerate(_text(source, key).splitlines(), start=1):
        if not line.strip():
            continue
        name, text = _entry(line, f"{source.uri}: line {number} of {readable_name(key)}")
        picture = str(PurePosixPath(key).parent / name)
        if picture in pictures:
            captions[picture] = text
        else:
            strangers.append(name)
    if strangers:
        name = readable_name(key)
        logger.warning("%s: %s names %s, which is no picture here", source.uri, name, ", ".join(strangers[:5]))
    return captions


def _entry(line: str, where: str) -> tuple[str, str]:
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ImageError(f"{where} is no JSON ({error}): write one object a line") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise ImageError(f'{where} is {line[:80]}, expected {{"file_name": "...", "text": "..."}} ({METADATA_NAME})')
    text = entry.get("text") or ""
    if not isinstance(text, str):
        raise ImageError(f"{where} has the text {text!r}, expected a string")
    return entry["file_name"], text


def _text(source: Source, key: str) -> str:
    try:
        return source.read(key).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{source.uri}: {readable_name(key)}"
        raise ImageError(f"{where} is no UTF-8 text ({error}): save it as UTF-8") from error

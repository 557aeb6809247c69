"""Which files of a source are pictures, which belong to them, and which nobody knows."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import PurePosixPath

from components.common.artifact_folder import canonical_json, sha256_of
from components.common.errors import ImageError
from components.common.sources.pictures import Source, open_source
from components.common.storage import ObjectInfo
from components.common.storage.local_files import readable_name

logger = logging.getLogger(__name__)

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CAPTION_ENDING = ".txt"
METADATA_NAME = "metadata.jsonl"

LARGEST_PICTURE = 256 * 2**20
LARGEST_CAPTION = 64 * 2**10
LARGEST_METADATA = 64 * 2**20
"""Bytes of a picture, of a text file with a caption, and of a file with the captions of many pictures."""

_EXPECTED_COMPANY = ("thumbs.db", "desktop.ini", "readme.md", "license", "license.md")
_NAMES_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a source that matter, each sorted by key.

    Attributes:
        pictures: files with a picture's ending.
        captions: text files, which are captions where they have a picture's name.
        metadata: files of captions by file name.
        unknown: everything else but hidden files and what operating systems and hubs put beside pictures.
    """

    pictures: tuple[ObjectInfo, ...]
    captions: tuple[ObjectInfo, ...]
    metadata: tuple[ObjectInfo, ...]
    unknown: tuple[ObjectInfo, ...]

    @property
    def fingerprint(self) -> str:
        """A digest of names, sizes and versions of everything that the prepared pictures depend on."""
        used = (*self.pictures, *self.captions, *self.metadata)
        return sha256_of(canonical_json([[readable_name(info.key), info.size, info.version] for info in used]))


def fingerprint_images(uri: str) -> str:
    """A digest of names, sizes and versions of the pictures and captions at `uri`; no picture is downloaded.

    Raises:
        ImageError: when there is no picture, or a file is too large to be read.
        InputError: when the address is of no known kind.
        StorageError: when the source cannot be listed.
    """
    return list_pictures(open_source(uri)).fingerprint


def list_pictures(source: Source) -> Listing:
    """What lies in the source; a warning names the files that are of no known kind.

    Raises:
        ImageError: when there is no picture, or a file is too large to be read.
        StorageError: when the source cannot be listed.
    """
    kinds: dict[str, list[ObjectInfo]] = {"picture": [], "caption": [], "metadata": [], "unknown": [], "": []}
    for info in sorted(source.list(), key=lambda info: info.key):
        kinds[_kind(info.key)].append(info)
    listing = Listing(
        pictures=tuple(kinds["picture"]),
        captions=tuple(kinds["caption"]),
        metadata=tuple(kinds["metadata"]),
        unknown=tuple(kinds["unknown"]),
    )
    if not listing.pictures:
        seen = [info.key for group in kinds.values() for info in group]
        raise ImageError(
            f"found no picture in {source.uri}: it holds {_named(sorted(seen)) or 'nothing'}; "
            f"expected files that end with {' '.join(PICTURE_ENDINGS)}"
        )
    _check_sizes(source.uri, listing)
    _warn_of_strange_things(source.uri, listing)
    return listing


def caption_key(picture: str) -> str:
    """The key of the text file that is a picture's caption, if it is there."""
    return str(PurePosixPath(picture).with_suffix(CAPTION_ENDING))


def read_listed(source: Source, info: ObjectInfo) -> bytes:
    """The content of a file of a listing.

    Raises:
        ImageError: when its size is another by now.
        StorageError: when the source does not give it.
    """
    data = source.read(info.key)
    if len(data) != info.size:
        raise ImageError(f"it has {len(data)} bytes now, {info.size} when it was listed: run the step again")
    return data


def _check_sizes(uri: str, listing: Listing) -> None:
    beside = {caption_key(info.key) for info in listing.pictures}
    captions = [info for info in listing.captions if info.key in beside]
    largest = {LARGEST_PICTURE: listing.pictures, LARGEST_METADATA: listing.metadata, LARGEST_CAPTION: captions}
    too_large = [
        f"{readable_name(info.key)} has {info.size} bytes, expected at most {most}"
        for most, infos in largest.items()
        for info in infos
        if info.size > most
    ]
    if too_large:
        more = f" and {len(too_large) - _NAMES_SHOWN} more" if len(too_large) > _NAMES_SHOWN else ""
        raise ImageError(f"{uri}: {'; '.join(too_large[:_NAMES_SHOWN])}{more}: make them smaller, or take them away")


def _warn_of_strange_things(uri: str, listing: Listing) -> None:
    folders = sorted({str(PurePosixPath(info.key).parent) for info in listing.pictures})
    if len(folders) > 1:
        logger.warning("%s: pictures lie in several folders, and all are taken: %s", uri, _named(folders))
    if listing.unknown:
        unknown = _named([info.key for info in listing.unknown])
        known = " ".join(PICTURE_ENDINGS)
        logger.warning("%s: left out %s: of no kind that is known here (%s)", uri, unknown, known)


def _kind(key: str) -> str:
    path = PurePosixPath(key)
    name = path.name.lower()
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts) or name in _EXPECTED_COMPANY:
        return ""
    if name.endswith(PICTURE_ENDINGS):
        return "picture"
    if name == METADATA_NAME:
        return "metadata"
    return "caption" if name.endswith(CAPTION_ENDING) else "unknown"


def _named(names: list[str]) -> str:
    shown = ", ".join(map(readable_name, names[:_NAMES_SHOWN]))
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"

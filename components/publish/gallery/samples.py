"""The pictures of a published version as thumbnails: what another registry's writer put there may be anything."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from components.common.errors import ArtifactError, ObjectNotFoundError
from components.common.foreign_json import parse_json, record_of
from components.common.pages.pictures import EmbeddedPicture, Rung, embed_picture
from components.common.registry.entry import RegistryEntry
from components.common.storage import ObjectStore

MAX_SHOTS = 4
MAX_THUMBNAIL = 20_000
"""Characters of a thumbnail's URI."""

CONFIG = "config.json"
"""The file of a version that says how it was trained and sampled, and from which prompts its samples are."""

_RUNGS = (Rung(256, 74), Rung(192, 65), Rung(128, 50), Rung(64, 40))
_ICON = Rung(64, 70)
_LARGEST_CONFIG = 2**20
_LARGEST_SAMPLE = 2**26
_LARGEST_EDGE = 4096
_SAMPLE = re.compile(r"samples/[0-9]+-(after|before)\.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shot:
    """One prompt and seed: the file drawn with the concept, and the one before training where there is one."""

    prompt: str
    after: str
    before: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownShot:
    """A shot with its thumbnails."""

    prompt: str
    after: EmbeddedPicture
    before: EmbeddedPicture | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionPictures:
    """What a version looks like.

    Attributes:
        shots: its samples.
        icon: its first sample, very small; None where it has none.
        problems: which of its files cannot be shown and why, a sentence each.
    """

    shots: tuple[ShownShot, ...] = ()
    icon: EmbeddedPicture | None = None
    problems: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Characters of all URIs."""
        pictures = [self.icon, *(picture for shot in self.shots for picture in (shot.after, shot.before))]
        return sum(len(picture.uri) for picture in pictures if picture)


def version_pictures(store: ObjectStore, entry: RegistryEntry) -> VersionPictures:
    """The thumbnails of a version; files that are missing, damaged or no pictures are told and left out.

    Args:
        store: the version's folder.
        entry: what the registry says of it.

    Raises:
        StorageError: when the registry cannot be read.
    """
    shown, problems, icon = list[ShownShot](), list[str](), None
    for shot in _shots(entry, store, problems):
        after = _sample(entry, store, shot.after, problems)
        before = _sample(entry, store, shot.before, problems) if shot.before else None
        if after is None:
            continue
        told = shot.prompt or f"sample {len(shown) + 1}"
        icon = icon or embed_picture(after, "", _ICON)
        shown.append(
            ShownShot(
                prompt=shot.prompt,
                after=_thumbnail(after, told),
                before=None if before is None else _thumbnail(before, f"{told}, before training"),
            )
        )
    return VersionPictures(shots=tuple(shown), icon=icon, problems=tuple(problems))


def _shots(entry: RegistryEntry, store: ObjectStore, problems: list[str]) -> Sequence[Shot]:
    """The samples that `config.json` lists with their prompts; where it lists none, pairs of files without prompts."""
    config = _config(entry, store, problems)
    listed = config.get("samples") if isinstance(config, dict) else None
    if isinstance(listed, list) and listed:
        try:
            return [record_of(Shot, record) for record in listed[:MAX_SHOTS]]
        except ValueError as error:
            problems.append(f"{CONFIG}: {error}")
    files: Mapping[str, list[str]] = {"after": [], "before": []}
    for name in sorted(entry.files):
        if found := _SAMPLE.fullmatch(name):
            files[found[1]].append(name)
    before = files["before"] if len(files["before"]) == len(files["after"]) else [None] * len(files["after"])
    pairs = list(zip(files["after"], before, strict=True))[:MAX_SHOTS]
    return [Shot(prompt="", after=after, before=each) for after, each in pairs]


def _config(entry: RegistryEntry, store: ObjectStore, problems: list[str]) -> Any:
    data = _read(entry, store, CONFIG, _LARGEST_CONFIG, problems) if CONFIG in entry.files else None
    if data is None:
        return None
    try:
        return parse_json(data)
    except ValueError as error:
        problems.append(f"{CONFIG} is no JSON ({error})")
        return None


def _sample(entry: RegistryEntry, store: ObjectStore, name: str, problems: list[str]) -> np.ndarray | None:
    """The picture, uint8 [H, W, 3]; None where it cannot be shown."""
    data = _read(entry, store, name, _LARGEST_SAMPLE, problems)
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if max(image.size) <= _LARGEST_EDGE:
                return np.asarray(image.convert("RGB"))
            problem = f"{name} has {image.width} x {image.height} pixels, expected at most {_LARGEST_EDGE} a side"
    except Exception as error:  # Pillow's decoders raise whatever their parsing runs into
        problem = f"{name} is no PNG file ({error})"
    problems.append(problem)
    return None


def _read(entry: RegistryEntry, store: ObjectStore, name: str, largest: int, problems: list[str]) -> bytes | None:
    """The bytes of a file that the manifest lists, checked against it; None where they are not to be had."""
    record = entry.files.get(name)
    if record is None:
        problems.append(f"{name} is not listed in the version's manifest")
        return None
    try:
        if max(record.size, store.stat(name).size) > largest:
            problems.append(f"{name} has {record.size} bytes, expected at most {largest}")
            return None
        data = store.read(name)
        record.check(data, name)
    except (ArtifactError, ObjectNotFoundError) as error:
        problems.append(str(error))
        return None
    return data


def _thumbnail(pixels: np.ndarray, alt: str) -> EmbeddedPicture:
    """The picture as large as `MAX_THUMBNAIL` allows."""
    for rung in _RUNGS:
        picture = embed_picture(pixels, alt, rung)
        if len(picture.uri) <= MAX_THUMBNAIL:
            return picture
    return picture

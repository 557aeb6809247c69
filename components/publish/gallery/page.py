"""The gallery as one page that needs nothing else, and where it is written.

Its one script filters what is shown; without scripts all of it is shown. The page's own content security policy lets
that script and the page's style sheet in by their digests, and nothing else, so what a document holds is text.

The page is a pure function of the registry: it holds no time and no name of its maker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from components.common.errors import PreconditionError, TextualInversionError
from components.common.pages.page import page_template, policy_hash, shared_style
from components.common.registry.overview import ConceptOverview, VersionState, read_overview
from components.common.registry.versions import version_key
from components.common.storage import ObjectStore, open_store, split_uri
from components.common.storage.below import StoreBelow
from components.common.storage.store import run_parallel
from components.publish.gallery.samples import VersionPictures, version_pictures
from components.publish.gallery.view import Pictures, gallery_view, in_showing_order

logger = logging.getLogger(__name__)

GALLERY = "gallery.html"
"""The page's name beside the concepts of a registry."""

MAX_BYTES = 8_000_000
"""A page is written on the condition that nobody else wrote it, which stores keep up to 8 MiB."""

_FOLDER = Path(__file__).parent
_AT_ONCE = 16


class Room(NamedTuple):
    """What a page has room for: characters of pictures, and versions."""

    pictures: int
    versions: int


ROOMS = (Room(4_000_000, 2000), Room(2_000_000, 1000), Room(0, 500), Room(0, 50))
"""From the most to the least; a page takes the first one that it fits with."""


def render_gallery(registry_uri: str, *, rooms: Sequence[Room] = ROOMS, max_bytes: int = MAX_BYTES) -> str:
    """The page as HTML of at most `max_bytes`.

    Pictures are shown of the versions that aliases point at and of the newest; what there is no room for is a row
    without pictures, or counted.

    Raises:
        InputError: when the address is of no known kind.
        StorageError: when the registry cannot be read.
        TextualInversionError: when the page does not fit even with the last of the rooms.
    """
    registry = open_store(registry_uri)
    concepts, uri = read_overview(registry), registry.uri
    by_importance = _by_importance(concepts)
    pictures = _read_pictures(registry, by_importance, rooms[0].pictures)
    style = shared_style() + (_FOLDER / "style.css").read_text(encoding="utf-8")
    script = (_FOLDER / "filter.js").read_text(encoding="utf-8")
    shared = {"style": style, "script": script, "style_hash": policy_hash(style), "script_hash": policy_hash(script)}
    template, size = page_template(_FOLDER), 0
    for room in rooms:
        shown = _counts(concepts, by_importance[: room.versions])
        page = template.render(gallery_view(uri, concepts, _that_fit(pictures, room.pictures), shown), **shared)
        size = len(page.encode())
        if size <= max_bytes:
            return page
    raise TextualInversionError(
        f"the gallery of {uri} has {size} bytes even without pictures, expected at most {max_bytes}: move concepts to "
        "a registry of their own"
    )


def write_gallery(registry_uri: str, address: str = "") -> str:
    """The address of the page, written there; by default beside the concepts of the registry.

    Of several writers at once, what all of them have published is on the page in the end. A page that somebody else
    wrote meanwhile may have been made before this version was published: it is replaced. One that was written while
    this page was made the second time is newer than that one, and shows this version too.

    Raises:
        InputError, StorageError, TextualInversionError: see `render_gallery`; or when it cannot be written.
    """
    folder, name = split_uri(address) if address else (registry_uri, GALLERY)
    store = open_store(folder)
    for _ in range(2):
        token = store.stat(name).version if store.exists(name) else None
        try:
            store.write(name, render_gallery(registry_uri).encode(), if_version=token, if_absent=token is None)
            break
        except PreconditionError:
            logger.info("%s was written by somebody else meanwhile", store.uri_of(name))
    return store.uri_of(name)


def _by_importance(concepts: Sequence[ConceptOverview]) -> list[tuple[str, VersionState]]:
    """Every version with its concept: the first of each concept and those with an alias, then the newest of each."""
    ranked = []
    for concept in concepts:
        pointed_at = {alias.version for alias in concept.aliases.values()}
        for place, state in enumerate(in_showing_order(concept)):
            ranked.append((place > 0 and state.number not in pointed_at, place, concept.name, state))
    return [(name, state) for *_, name, state in sorted(ranked, key=lambda each: each[:3])]


def _read_pictures(registry: ObjectStore, by_importance: Sequence[tuple[str, VersionState]], room: int) -> Pictures:
    found, used = dict[tuple[str, int], VersionPictures](), 0
    sound = [(name, state.entry) for name, state in by_importance if state.entry]
    for start in range(0, len(sound), _AT_ONCE):
        if used > room:
            break
        some = sound[start : start + _AT_ONCE]
        read = [(StoreBelow(registry, f"{name}/{version_key(entry.version)}"), entry) for name, entry in some]
        for (name, entry), pictures in zip(some, run_parallel(version_pictures, read), strict=True):
            found[name, entry.version] = pictures
            used += pictures.size
    return _that_fit(found, room)


def _that_fit(pictures: Pictures, room: int) -> Pictures:
    """The first ones that have room together."""
    fitting, used = {}, 0
    for key, each in pictures.items():
        used += each.size
        if used > room:
            break
        fitting[key] = each
    return fitting


def _counts(concepts: Sequence[ConceptOverview], shown: Sequence[tuple[str, VersionState]]) -> dict[str, int]:
    """How many versions of each concept are shown; a concept that has none is shown for what is wrong with it."""
    counts = {concept.name: 0 for concept in concepts if not concept.versions}
    for name, _ in shown:
        counts[name] = counts.get(name, 0) + 1
    return counts

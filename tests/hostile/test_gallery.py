"""The gallery of a registry of which something is damaged or made by hand: the rest is shown."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from components.common.registry.aliases import advance_alias
from components.common.registry.versions import publish_version
from components.publish.gallery.page import render_gallery
from tests.hostile.test_registry_damage import NONSENSE, concept, contents
from tests.publish.test_versions import make_bundle

FLIPS = 100


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with two versions of a concept; the alias is at the second."""
    uri = str(tmp_path_factory.mktemp("registry"))
    for number, content in ((1, "one"), (2, "two")):
        publish_version(concept(uri), make_bundle(content), f"run-{number}")
        advance_alias(concept(uri), "champion", number)
    return uri


def test_gallery_shows_the_rest_whatever_a_document_is(uri: str, record_property: Callable[[str, int], None]) -> None:
    store, whole = concept(uri), contents(concept(uri))
    for document, name, change in NONSENSE:
        store.write(document, change(whole[document]))
        page = render_gallery(uri)
        store.write(document, whole[document])
        assert "<b>Version 2</b>" in page and page.count("<script>") == 1, (document, name)
    record_property("tried", len(NONSENSE))


def test_gallery_shows_the_rest_whatever_bytes_are_there(uri: str, record_property: Callable[[str, int], None]) -> None:
    store, whole, chance = concept(uri), contents(concept(uri)), random.Random(0)
    keys = sorted(key for key in whole if not key.startswith("versions/2/"))
    for attempt in range(FLIPS):
        key = keys[attempt % len(keys)]
        data = bytearray(whole[key])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        store.write(key, bytes(data[: chance.randrange(len(data))] if attempt % 3 == 0 else data))
        assert "<b>Version 2</b>" in render_gallery(uri), key
        store.write(key, whole[key])
    record_property("tried", FLIPS)

from __future__ import annotations

import json

import pytest

from components.common.errors import ArtifactError
from components.common.registry.documents import from_document, to_document

URI = "gs://bucket/registry/cat-toy/aliases/champion.json"


def test_document_gives_back_its_content() -> None:
    content = {"version": 3, "previous": [2, 1], "who": "Ångström"}
    assert from_document("registry-alias", to_document("registry-alias", content), URI) == content


def test_document_is_the_same_bytes_for_the_same_content() -> None:
    assert to_document("registry-alias", {"a": 1, "b": 2}) == to_document("registry-alias", {"b": 2, "a": 1})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'"x"', b"\xff", b"{}", b'{"format": "x"}'])
def test_document_when_it_is_none(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"champion\.json is no document of a registry"):
        from_document("registry-alias", data, URI)


@pytest.mark.parametrize("content", [[], None, 3])
def test_document_when_its_content_is_no_object(content: object) -> None:
    body = {**json.loads(to_document("registry-alias", {})), "content": content}
    with pytest.raises(ArtifactError, match=r"champion\.json"):
        from_document("registry-alias", json.dumps(body).encode(), URI)


def test_document_when_it_was_changed() -> None:
    data = to_document("registry-alias", {"version": 3}).replace(b": 3", b": 4")
    with pytest.raises(ArtifactError, match="does not match its own digest"):
        from_document("registry-alias", data, URI)


def test_document_when_it_holds_no_finite_number() -> None:
    data = to_document("registry-alias", {"version": 3}).replace(b": 3", b": NaN")
    with pytest.raises(ArtifactError, match=r"champion\.json is no document of a registry"):
        from_document("registry-alias", data, URI)


def test_document_when_it_is_of_another_kind() -> None:
    with pytest.raises(ArtifactError, match=r"found format 'textual-inversion/registry-claim' version 1 at gs://"):
        from_document("registry-alias", to_document("registry-claim", {}), URI)


def test_document_when_it_is_of_a_newer_release() -> None:
    body = {**json.loads(to_document("registry-alias", {})), "version": 2}
    with pytest.raises(ArtifactError, match=r"version 2 at .* expected .* version 1"):
        from_document("registry-alias", json.dumps(body).encode(), URI)

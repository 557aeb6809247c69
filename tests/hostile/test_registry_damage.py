"""A registry of which something is damaged, lost or made by hand: it goes on, says what, and is mended."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.common.artifact_folder import canonical_json, sha256_of
from components.common.errors import ArtifactError, TextualInversionError
from components.common.registry import registry
from components.common.registry.aliases import advance_alias
from components.common.registry.versions import publish_version
from components.common.storage import ObjectStore, open_store
from components.publish.__main__ import main
from components.publish.config import PublishConfig
from components.publish.publish import publish
from tests.publish.conftest import write_inputs
from tests.publish.test_versions import make_bundle

TRIES = 300
CONCEPT = "cat-toy"
DOCUMENTS = ("versions/1/claim.json", "versions/1/manifest.json", "aliases/champion.json")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A registry with two versions of a concept; the alias is at the second."""
    store = concept(str(tmp_path))
    for number, content in ((1, "one"), (2, "two")):
        publish_version(store, make_bundle(content), f"run-{number}")
        advance_alias(store, "champion", number)
    return str(tmp_path)


def concept(uri: str) -> ObjectStore:
    return open_store(f"{uri}/{CONCEPT}")


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.read(info.key) for info in store.list()}


def signed(body: dict[str, Any]) -> bytes:
    """A document made by hand, with a digest that is right."""
    plain = {name: value for name, value in body.items() if name != "digest"}
    return json.dumps({**plain, "digest": sha256_of(canonical_json(plain))}).encode()


def with_content(**changes: Any) -> Callable[[bytes], bytes]:
    """Changes fields of a document's content; `...` takes one out."""

    def change(data: bytes) -> bytes:
        body = json.loads(data)
        content = {name: value for name, value in {**body["content"], **changes}.items() if value is not ...}
        return signed({**body, "content": content})

    return change


def with_body(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda data: signed({**json.loads(data), **changes})


ANY_DOCUMENT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "no UTF-8": lambda _: b"\xff\xfe\x00",
    "a list": lambda _: b"[]",
    "deep": lambda _: b"[" * 200_000,
    "many digits": lambda _: b'{"format": ' + b"9" * 5000 + b"}",
    "a lone surrogate": lambda data: data.replace(b"textual-inversion/", b"\\ud800"),
    "content in a list": with_body(content=[]),
    "content of pairs": with_body(content=[["version", 1]]),
    "no content": with_body(content=None),
    "nothing in it": with_body(content={}),
    "another format": with_body(format="textual-inversion/latent-set"),
    "a format in a list": with_body(format=["textual-inversion/registry-claim"]),
    "a newer version": with_body(version=2),
}
FILES = "files"
NONSENSE: list[tuple[str, str, Callable[[bytes], bytes]]] = [
    *((document, name, change) for document in DOCUMENTS for name, change in ANY_DOCUMENT.items()),
    *(
        (DOCUMENTS[0], f"{field} {value!r}", with_content(**{field: value}))
        for field in ("bundle_digest", "run_id", "created")
        for value in (..., None, 7, [], {})
    ),
    *(
        (DOCUMENTS[1], f"{field} {str(value)[:12]}", with_content(**{field: value}))
        for field, values in {
            "concept": (..., None, 7),
            "concept_version": (..., "1", 1.5, True, 2, 10**30),
            "created": (..., 0),
            "bundle_digest": (..., []),
            "placeholder_token": (..., 7),
            "learnable_property": (..., {}),
            "tokens": (..., "<cat-toy>", [1], {"a": 1}),
            "passed": (..., "yes", 1),
            "reasons": (..., "none", [None]),
            "scores": (..., [], {"after": 1}, {"after": {"clip_i": "high"}}, {"after": {"clip_i": None}}),
            "lineage": (..., [], None),
            FILES: (..., [], None, "README.md"),
        }.items()
        for value in values
    ),
    *(
        (DOCUMENTS[1], f"file {name!r}", with_content(files={name: {"sha256": "0" * 64, "size": 1}}))
        for name in ("../../x", "/etc/passwd", "a/../../x", "a\0b", "", ".", "a//b", "a\nb")
    ),
    *(
        (DOCUMENTS[1], f"record {str(record)[:30]}", with_content(files={"a": record}))
        for record in (
            None,
            [],
            7,
            {"size": 1},
            {"sha256": "0"},
            {"sha256": 0, "size": 1},
            {"sha256": "0", "size": "1"},
        )
    ),
    *(
        (DOCUMENTS[2], f"{field} {value!r}", with_content(**{field: value}))
        for field, values in {
            "version": (..., None, "2", 2.0, True, [2], 10**30),
            "previous": (None, 1, "1", ["1"], [None], {"0": 1}),
            "newest": (..., None, "2"),
        }.items()
        for value in values
    ),
]


@pytest.mark.parametrize(
    ("document", "change"),
    [(document, change) for document, _, change in NONSENSE],
    ids=[f"{document.rpartition('/')[2]} {name}" for document, name, _ in NONSENSE],
)
def test_damaged_document_stops_no_concept(
    document: str, change: Callable[[bytes], bytes], uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = concept(uri)
    store.write(document, change(store.read(document)))
    assert [damage for damage in registry.verify(uri, CONCEPT) if document in damage and "\n" not in damage]
    assert registry.list_concepts(uri) == [CONCEPT]
    assert [entry.version for entry in registry.list_versions(uri, CONCEPT)][-1:] == [2]
    assert registry.resolve(uri, CONCEPT, 2).version == 2
    registry.list_aliases(uri, CONCEPT)
    assert publish_version(store, make_bundle("three"), "run-3").version == 3
    assert f"{CONCEPT}/{document}" in caplog.text


@pytest.mark.parametrize("lost", [False, True], ids=["damaged", "lost"])
@pytest.mark.parametrize("kinds", [("claim.json",), ("manifest.json",), ("README.md", "samples/0.png"), ()])
def test_publishing_again_mends_a_version(kinds: tuple[str, ...], lost: bool, uri: str) -> None:
    store, whole = concept(uri), contents(concept(uri))
    names = kinds or ("README.md", "learned_embeds.safetensors", "samples/0.png", "manifest.json")
    for kind in names:
        if lost:
            store.delete(f"versions/1/{kind}")
        else:
            store.write(f"versions/1/{kind}", b"damaged")
    unpublished = lost and "manifest.json" in names  # as a version that is being published
    assert bool(registry.verify(uri, CONCEPT)) is not unpublished
    assert publish_version(store, make_bundle("one"), "run-9").version == 1
    assert contents(store) == whole
    assert registry.verify(uri, CONCEPT) == []


def test_version_without_owner_keeps_its_number(uri: str) -> None:
    store = concept(uri)
    for name in ("claim.json", "manifest.json"):
        store.write(f"versions/2/{name}", b"damaged")
    assert publish_version(store, make_bundle("two"), "run-2").version == 3
    assert len(registry.verify(uri, CONCEPT)) == 3  # the alias, too


def test_claim_and_manifest_of_different_bundles_are_refused(uri: str) -> None:
    store = concept(uri)
    store.write(
        "versions/1/claim.json",
        with_content(bundle_digest=make_bundle("three").digest)(store.read("versions/1/claim.json")),
    )
    with pytest.raises(ArtifactError, match="delete the one that is wrong"):
        publish_version(store, make_bundle("three"), "run-3")


def test_every_flip_and_cut_is_found_and_mended(uri: str, record_property: Callable[[str, int], None]) -> None:
    store, whole, chance = concept(uri), contents(concept(uri)), random.Random(0)
    keys = sorted(key for key in whole if not key.startswith("versions/2/"))
    for attempt in range(TRIES):
        key = keys[attempt % len(keys)]
        data = bytearray(whole[key])
        if attempt % 3 == 0:
            del data[chance.randrange(len(data)) :]
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        store.write(key, bytes(data))
        same = key.endswith(".json") and _same_json(bytes(data), whole[key])
        assert [damage for damage in registry.verify(uri, CONCEPT) if key in damage] or same
        for version in (1, 2, "champion"):
            try:
                assert registry.resolve(uri, CONCEPT, version).concept == CONCEPT
            except TextualInversionError as error:
                assert "\n" not in str(error)
        assert publish_version(store, make_bundle("one"), "run-9").version == 1
        if key.startswith("aliases/"):
            registry.move_alias(uri, CONCEPT, "champion", 2)
            store.write(key, whole[key])
        assert registry.verify(uri, CONCEPT) == []
    record_property("tried", TRIES)


def _same_json(found: bytes, expected: bytes) -> bool:
    try:
        return bool(json.loads(found) == json.loads(expected))
    except ValueError:
        return False


def test_damaged_alias_is_left_by_publishing_and_written_by_promoting(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    concept(uri).write("aliases/champion.json", b"damaged")
    inputs = write_inputs(tmp_path / "inputs")
    entry = publish(PublishConfig(registry_uri=uri, concept_name=CONCEPT), output=tmp_path / "out", **vars(inputs))
    assert (entry.version, concept(uri).read("aliases/champion.json")) == (3, b"damaged")
    assert "promote a version" in caplog.text
    assert registry.move_alias(uri, CONCEPT, "champion", 3).version == 3
    assert registry.verify(uri, CONCEPT) == []


@pytest.mark.parametrize("names", [("a", "a/b"), ("x" * 300,), (".textual-inversion-x",)], ids=["both", "long", "ours"])
def test_fetch_of_names_that_no_folder_takes_is_refused(names: tuple[str, ...], uri: str, tmp_path: Path) -> None:
    store = concept(uri)
    files = {name: {"sha256": sha256_of(b""), "size": 0} for name in names}
    store.write("versions/1/manifest.json", with_content(files=files)(store.read("versions/1/manifest.json")))
    with pytest.raises(TextualInversionError) as refusal:
        registry.fetch(registry.resolve(uri, CONCEPT, 1), tmp_path / "fetched")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "fetched").exists()


def test_verify_command_lists_what_is_damaged(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["publish", "verify", "--registry-uri", uri])
    main()
    assert f"found nothing damaged in {CONCEPT}" in capsys.readouterr().out
    concept(uri).write("versions/1/README.md", b"changed")
    concept(uri).delete("versions/2/samples/0.png")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == ArtifactError.exit_code
    assert "versions/1/README.md has 7 bytes" in caplog.text
    assert "versions/2/samples/0.png is missing" in caplog.text

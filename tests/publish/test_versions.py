from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from components.common.errors import ArtifactError, ObjectNotFoundError
from components.common.registry.entry import MANIFEST, Bundle, Facts, FileRecord
from components.common.registry.versions import (
    claim_version,
    claimed_numbers,
    publish_version,
    read_claim,
    read_entries,
    read_entry,
)
from components.common.storage import ObjectInfo, ObjectStore, open_store
from tests.publish.faulty_store import Killed, MortalStore

Result = TypeVar("Result")


def make_bundle(content: str = "one") -> Bundle:
    facts = Facts(
        placeholder_token="<cat-toy>",
        learnable_property="object",
        tokens=("<cat-toy>",),
        passed=True,
        reasons=(),
        scores={"after": {"clip_i": 0.7}},
        lineage={"training_key": "key"},
    )
    files = {
        "learned_embeds.safetensors": content.encode(),
        "README.md": b"# card",
        "samples/0.png": b"\x89PNG",
    }
    return Bundle(concept="cat-toy", facts=facts, files=files)


WRITES = 1 + len(make_bundle().files) + 1  # claim, files, manifest


def at_once(functions: list[Callable[[], Result]]) -> list[Result]:
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], Result]) -> Result:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


@pytest.fixture
def store(registry_uri: str) -> ObjectStore:
    return open_store(f"{registry_uri}/cat-toy")


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "cat-toy"))


def test_publish_version_writes_every_file_and_a_manifest_that_reads_back(store: ObjectStore) -> None:
    bundle = make_bundle()
    entry = publish_version(store, bundle, "run-1")
    assert (entry.version, entry.concept, entry.uri) == (1, "cat-toy", store.uri_of("versions/1"))
    assert {name: store.read(f"versions/1/{name}") for name in bundle.files} == bundle.files
    assert entry.files == {name: FileRecord.of(data) for name, data in bundle.files.items()}
    assert entry.facts.lineage == {"training_key": "key", "run_id": "run-1"}
    assert read_entry(store, 1) == entry
    assert read_claim(store, 1).created == entry.created


def test_publish_version_writes_the_manifest_last(local: ObjectStore) -> None:
    for writes in range(WRITES):
        store = open_store(f"{local.uri}/{writes}")
        with pytest.raises(Killed):
            publish_version(MortalStore(store, writes=writes), make_bundle(), "run-1")
        assert not store.exists(f"versions/1/{MANIFEST}")
        assert len(store.list("versions/")) == writes
    publish_version(MortalStore(local, writes=WRITES), make_bundle(), "run-1")


@pytest.mark.parametrize("writes", range(WRITES))
def test_publish_version_when_it_was_killed_between_two_writes(store: ObjectStore, writes: int) -> None:
    bundle = make_bundle()
    with pytest.raises(Killed):
        publish_version(MortalStore(store, writes=writes), bundle, "run-1")
    entry = publish_version(store, bundle, "run-1")
    assert entry.version == 1
    assert read_entries(store) == [entry]
    keys = {item.key for item in store.list("versions/")}
    assert keys == {f"versions/1/{name}" for name in (*bundle.files, "claim.json", MANIFEST)}


def test_publish_version_when_every_attempt_is_killed_after_one_write(local: ObjectStore) -> None:
    for attempt in range(WRITES - 1):
        with pytest.raises(Killed):
            publish_version(MortalStore(local, writes=1), make_bundle(), f"run-{attempt}")
    entry = publish_version(MortalStore(local, writes=1), make_bundle(), "last")
    assert (entry.version, entry.facts.lineage["run_id"]) == (1, "run-0")
    assert read_entries(local) == [entry]


def test_publish_version_when_others_published_after_the_kill(store: ObjectStore) -> None:
    with pytest.raises(Killed):
        publish_version(MortalStore(store, writes=2), make_bundle("one"), "run-1")
    assert publish_version(store, make_bundle("two"), "run-2").version == 2
    assert [entry.version for entry in read_entries(store)] == [2]
    assert publish_version(store, make_bundle("one"), "run-1").version == 1
    assert [entry.version for entry in read_entries(store)] == [1, 2]


def test_publish_version_when_another_run_publishes_the_same(store: ObjectStore) -> None:
    first = publish_version(store, make_bundle(), "run-1")
    assert publish_version(store, make_bundle(), "run-2") == first
    assert claimed_numbers(store) == [1]


def test_publish_version_when_two_race_with_different_bundles(store: ObjectStore) -> None:
    bundles = [make_bundle(str(number)) for number in range(6)]
    entries = at_once([lambda bundle=bundle: publish_version(store, bundle, "run") for bundle in bundles])
    assert sorted(entry.version for entry in entries) == [1, 2, 3, 4, 5, 6]
    assert {entry.bundle_digest for entry in read_entries(store)} == {bundle.digest for bundle in bundles}
    for bundle, entry in zip(bundles, entries, strict=True):
        name = "learned_embeds.safetensors"
        assert store.read(f"versions/{entry.version}/{name}") == bundle.files[name]


def test_publish_version_when_two_race_with_the_same_bundle(store: ObjectStore) -> None:
    publish_version(store, make_bundle("before"), "run-0")
    entries = at_once([lambda run=run: publish_version(store, make_bundle(), f"run-{run}") for run in range(6)])
    assert {entry.version for entry in entries} == {2}
    assert len({entry.to_bytes() for entry in entries}) == 1
    assert claimed_numbers(store) == [1, 2]


def test_claim_version_when_the_next_number_is_taken_in_the_meantime(local: ObjectStore) -> None:
    class Overtaken(MortalStore):
        """Somebody else publishes `theirs` between the look at the claims and the write."""

        theirs = make_bundle("two")

        def list(self, prefix: str = "") -> list[ObjectInfo]:
            found = super().list(prefix)
            claim_version(local, self.theirs, "other")
            return found

    store = Overtaken(local, writes=10)
    assert claim_version(store, make_bundle("one"), "run-1")[0] == 2
    store.theirs = make_bundle("three")
    number, claim = claim_version(store, make_bundle("three"), "run-3")
    assert (number, claim.run_id) == (3, "other")


@pytest.mark.parametrize("writes", [2, WRITES])
def test_publish_version_when_a_file_holds_something_else(
    store: ObjectStore, writes: int, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.suppress(Killed):
        publish_version(MortalStore(store, writes=writes), make_bundle(), "run-1")
    store.write("versions/1/samples/0.png", b"something else")
    entry = publish_version(store, make_bundle(), "run-1")
    assert "versions/1/samples/0.png was damaged: it is written again" in caplog.text
    assert {name: store.read(f"versions/1/{name}") for name in entry.files} == make_bundle().files


def test_publish_version_when_a_claim_is_damaged(local: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    publish_version(local, make_bundle("one"), "run-1")
    local.write("versions/1/claim.json", b"{}")
    assert publish_version(local, make_bundle("two"), "run-2").version == 2
    assert "versions/1/claim.json is no document of a registry" in caplog.text


def test_claimed_numbers_when_there_are_more_than_nine(local: ObjectStore) -> None:
    for number in range(1, 12):
        assert publish_version(local, make_bundle(str(number)), "run").version == number
    local.write("versions/012/claim.json", b"not a number of ours")
    local.write("versions/13/nested/claim.json", b"not a claim")
    assert claimed_numbers(local) == list(range(1, 12))
    assert [entry.version for entry in read_entries(local)] == list(range(1, 12))


def test_read_entry_when_it_is_not_complete(local: ObjectStore) -> None:
    with pytest.raises(Killed):
        publish_version(MortalStore(local, writes=3), make_bundle(), "run-7")
    with pytest.raises(ObjectNotFoundError, match=r"version 1 at .* was claimed by run run-7 .* not complete"):
        read_entry(local, 1)


def test_read_entry_when_there_is_none(local: ObjectStore) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"found no version 1 at .*, which has no versions"):
        read_entry(local, 1)
    publish_version(local, make_bundle(), "run-1")
    with pytest.raises(ObjectNotFoundError, match=r"found no version 2 at .*, which has versions 1 to 1"):
        read_entry(local, 2)


@pytest.mark.parametrize("name", ["../2/README.md", "/etc/passwd"])
def test_read_entry_when_its_manifest_names_files_elsewhere(local: ObjectStore, name: str) -> None:
    entry = publish_version(local, make_bundle(), "run-1")
    foreign = dataclasses.replace(entry, files={name: FileRecord.of(b"")})
    local.write(f"versions/1/{MANIFEST}", foreign.to_bytes())
    with pytest.raises(ArtifactError, match="outside its own folder"):
        read_entry(local, 1)

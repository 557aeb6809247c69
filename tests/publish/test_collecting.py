from __future__ import annotations

import datetime
import itertools
import os
import time
from pathlib import Path

import pytest

from components.common.errors import ObjectNotFoundError
from components.common.registry import registry
from components.common.registry.aliases import set_alias
from components.common.registry.collecting import collect_garbage
from components.common.registry.versions import publish_version, read_entries, read_entry, read_tombstones
from components.common.storage import ObjectStore, open_store
from tests.publish.faulty_store import Killed, MortalStore, OvertakenStore
from tests.publish.test_versions import WRITES, make_bundle

A_DAY = datetime.timedelta(days=1)


def in_days(days: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + days * A_DAY


def die_after(store: ObjectStore, writes: int, content: str = "one") -> None:
    with pytest.raises(Killed):
        publish_version(MortalStore(store, writes=writes), make_bundle(content), "run-1")


def keys_of(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list()}


def check_sound(store: ObjectStore, contents: set[str]) -> None:
    """Every version that is there is whole, and these contents are there."""
    found = read_entries(store)
    for entry in found:
        for name, record in entry.files.items():
            record.check(store.read(f"versions/{entry.version}/{name}"), name)
    assert {make_bundle(content).digest for content in contents} == {entry.bundle_digest for entry in found}


@pytest.fixture
def store(registry_uri: str) -> ObjectStore:
    return open_store(f"{registry_uri}/cat-toy")


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "cat-toy"))


def test_what_was_left_is_removed_once_it_is_old_and_its_number_stays_taken(store: ObjectStore) -> None:
    publish_version(store, make_bundle("one"), "run-1")
    die_after(store, 3, "two")
    before = keys_of(store)
    assert collect_garbage(store) == []
    assert collect_garbage(store, now=in_days(1.1), dry_run=True) == [store.uri_of("versions/2")]
    assert keys_of(store) == before
    assert collect_garbage(store, now=in_days(1.1)) == [store.uri_of("versions/2")]
    assert {key for key in keys_of(store) if key.startswith("versions/2/")} == {"versions/2/manifest.json"}
    with pytest.raises(ObjectNotFoundError, match=r"version 2 at .* was deleted at 20"):
        read_entry(store, 2)
    assert collect_garbage(store, now=in_days(9)) == []
    assert publish_version(store, make_bundle("two"), "run-2").version == 3
    check_sound(store, {"one", "two"})


@pytest.mark.parametrize("writes", range(WRITES))
def test_collector_between_any_two_writes_of_a_publisher_that_goes_on(writes: int, tmp_path: Path) -> None:
    """The publisher was killed after `writes` writes, days ago; now it goes on, and the collector comes."""
    for at in itertools.count():
        if not collector_overtakes_publisher(open_store(str(tmp_path / str(at))), writes=writes, at=at):
            break
    assert at > 1


def collector_overtakes_publisher(concept: ObjectStore, *, writes: int, at: int) -> bool:
    """Whether the publisher that goes on made a change number `at`, just before which the collector came."""
    if writes:
        die_after(concept, writes)
    goes_on = OvertakenStore(concept, at=at, meanwhile=lambda: collect_garbage(concept, now=in_days(2)))
    entry = publish_version(goes_on, make_bundle(), "run-2")
    check_sound(concept, {"one"})
    assert read_entry(concept, entry.version) == entry
    return goes_on.was_overtaken


@pytest.mark.parametrize("writes", range(1, WRITES))
def test_publisher_between_any_two_steps_of_the_collector(writes: int, tmp_path: Path) -> None:
    for at in itertools.count():
        if not publisher_overtakes_collector(open_store(str(tmp_path / str(at))), writes=writes, at=at):
            break
    assert at > 1


def publisher_overtakes_collector(concept: ObjectStore, *, writes: int, at: int) -> bool:
    """Whether the collector made a change number `at`, just before which somebody published what it collects."""
    die_after(concept, writes)
    collector = OvertakenStore(concept, at=at, meanwhile=lambda: publish_version(concept, make_bundle(), "run-2"))
    collect_garbage(collector, now=in_days(2))
    publish_version(concept, make_bundle(), "run-2")
    check_sound(concept, {"one"})
    assert registry.verify(*concept.uri.rsplit("/", 1)) == []
    return collector.was_overtaken


def test_who_goes_on_with_an_old_claim_makes_it_young(local: ObjectStore, tmp_path: Path) -> None:
    die_after(local, WRITES - 1)
    three_days_ago = time.time() - 3 * 86400
    for file in (tmp_path / "cat-toy").rglob("*"):
        os.utime(file, (three_days_ago, three_days_ago))
    assert collect_garbage(local, dry_run=True) == [local.uri_of("versions/1")]
    with pytest.raises(Killed):  # the claim is written first, and then no manifest
        publish_version(MortalStore(local, writes=1), make_bundle(), "run-2")
    assert collect_garbage(local) == []
    assert publish_version(local, make_bundle(), "run-2").version == 1


def test_damaged_claim_and_files_without_one_are_removed(local: ObjectStore) -> None:
    local.write("versions/1/claim.json", b"damaged")
    local.write("versions/2/README.md", b"late")
    assert len(collect_garbage(local, now=in_days(2))) == 2
    assert set(read_tombstones(local)) == {1, 2}


def test_damaged_version_and_what_is_nobodys_stay(local: ObjectStore) -> None:
    publish_version(local, make_bundle(), "run-1")
    local.write("versions/1/manifest.json", b"damaged")
    local.write("versions/x/notes.txt", b"mine")
    before = keys_of(local)
    assert collect_garbage(local, now=in_days(9)) == []
    assert keys_of(local) == before


def test_tombstones_go_when_they_are_old_and_nothing_else_is_left(local: ObjectStore) -> None:
    die_after(local, 2)
    set_alias(local, "champion", 1)
    collect_garbage(local, now=in_days(2))
    assert collect_garbage(local, now=in_days(9)) == []
    local.delete("aliases/champion.json")
    assert collect_garbage(local) == []
    assert collect_garbage(local, now=in_days(2)) == [local.uri_of("versions/1/manifest.json")]
    assert keys_of(local) == set()

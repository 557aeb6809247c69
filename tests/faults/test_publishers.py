"""Publishers at once, killed and started again, beside a collector and a deletion, on the servers of object storage."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest

from components.common.registry.aliases import advance_alias, read_alias
from components.common.registry.entry import RegistryEntry
from components.common.registry.versions import claimed_numbers, publish_version, read_claim, read_entries
from components.common.storage import ObjectStore, open_store
from tests.publish.faulty_store import Killed, MortalStore
from tests.publish.test_collecting import check_sound, collector_overtakes_publisher, publisher_overtakes_collector
from tests.publish.test_deleting import check_that_a_concept_is_deleted
from tests.publish.test_versions import WRITES, at_once, make_bundle

PUBLISHERS = 8
ROUNDS = 20

CountFaults = Callable[[int, str], None]


@pytest.fixture(params=["gs", "s3"])
def uri(request: pytest.FixtureRequest) -> str:
    """A prefix of this test on fake-gcs-server, and on SeaweedFS."""
    found: str = request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[request.param])
    return found


def publish(store: ObjectStore, content: str, *, dies_after: int | None = None) -> RegistryEntry:
    """Publishes and moves the alias, as the step does; first as one that is killed after so many writes."""
    if dies_after is not None:
        with contextlib.suppress(Killed):  # its retry follows
            publish(MortalStore(store, writes=dies_after), content)
    entry = publish_version(store, make_bundle(content), f"run-{content}")
    advance_alias(store, "champion", entry.version)
    return entry


def check_registry(store: ObjectStore, entries: list[RegistryEntry], contents: list[str]) -> None:
    """Nothing is lost or torn, each content has one version, and the alias went forwards only, to the last one."""
    check_sound(store, set(contents))
    numbers = list(range(1, len(set(contents)) + 1))
    assert claimed_numbers(store) == [entry.version for entry in read_entries(store)] == numbers
    for entry, content in zip(entries, contents, strict=True):
        claim = read_claim(store, entry.version)
        assert claim.bundle_digest == entry.bundle_digest == make_bundle(content).digest
    alias = read_alias(store, "champion")
    assert (alias.version, alias.newest) == (numbers[-1], numbers[-1])
    assert list(alias.previous) == sorted(set(alias.previous) & set(numbers) - {alias.version}, reverse=True)


def test_publishers_at_once_lose_no_version(uri: str, count_faults: CountFaults) -> None:
    """In every round two publish the same, and one is killed at a write that is another one each time."""
    for number in range(ROUNDS):
        store = open_store(f"{uri}/concept-{number}")
        contents = [str(publisher % (PUBLISHERS - 1)) for publisher in range(PUBLISHERS)]
        deaths = [number % (WRITES + 1), *[None] * (PUBLISHERS - 1)]
        publishers = [
            lambda content=content, dies_after=dies_after: publish(store, content, dies_after=dies_after)  # noqa: B023
            for content, dies_after in zip(contents, deaths, strict=True)
        ]
        check_registry(store, at_once(publishers), contents)
    count_faults(PUBLISHERS * ROUNDS, f"publishers {PUBLISHERS} at once on {uri[:2]}://")


def test_publisher_is_killed_at_every_write(uri: str, count_faults: CountFaults) -> None:
    store = open_store(f"{uri}/concept")
    contents = [str(number) for number in range(WRITES + 1)]
    entries = [publish(store, content, dies_after=writes) for writes, content in enumerate(contents)]
    check_registry(store, entries, contents)
    count_faults(len(contents), f"publishers killed at a write on {uri[:2]}://")


@pytest.mark.parametrize("overtake", [collector_overtakes_publisher, publisher_overtakes_collector])
def test_publisher_and_collector_overtake_each_other(
    overtake: Callable[..., bool], uri: str, count_faults: CountFaults
) -> None:
    for at in itertools.count():
        if not overtake(open_store(f"{uri}/{at}"), writes=3, at=at):
            break
    assert at > 1
    count_faults(at, f"moments of a publisher beside a collector on {uri[:2]}://")


def test_concept_is_deleted_on_a_server(gcs_bucket_uri: str, count_faults: CountFaults) -> None:
    check_that_a_concept_is_deleted(gcs_bucket_uri)
    count_faults(1, "deletion of a concept on gs://")

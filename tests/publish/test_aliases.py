from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.common.errors import ArtifactError, ObjectNotFoundError, StorageError
from components.common.registry.aliases import (
    Alias,
    advance_alias,
    list_aliases,
    read_alias,
    roll_back_alias,
    set_alias,
    take_alias,
)
from components.common.storage import ObjectStore, open_store
from tests.publish.faulty_store import MortalStore


@pytest.fixture
def store(registry_uri: str) -> ObjectStore:
    return open_store(f"{registry_uri}/cat-toy")


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "cat-toy"))


def test_advance_alias_moves_forwards_and_remembers_where_it_was(store: ObjectStore) -> None:
    assert advance_alias(store, "champion", 1) == Alias(version=1, newest=1)
    assert advance_alias(store, "champion", 2) == Alias(version=2, previous=(1,), newest=2)
    assert advance_alias(store, "champion", 2) == Alias(version=2, previous=(1,), newest=2)
    assert read_alias(store, "champion") == Alias(version=2, previous=(1,), newest=2)


def test_advance_alias_when_an_older_version_is_retried_late(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    advance_alias(store, "champion", 5)
    assert advance_alias(store, "champion", 3) == Alias(version=5, newest=5)
    assert "stays at version 5" in caplog.text


def test_advance_alias_when_its_version_was_rolled_back(store: ObjectStore) -> None:
    for version in (1, 2):
        advance_alias(store, "champion", version)
    roll_back_alias(store, "champion")
    assert advance_alias(store, "champion", 2).version == 1
    assert advance_alias(store, "champion", 3) == Alias(version=3, previous=(1,), newest=3)


def test_take_alias_moves_it_from_the_version_that_was_judged_against_only(local: ObjectStore) -> None:
    assert take_alias(local, "champion", 1, judged_against=0) == Alias(version=1, newest=1)
    assert take_alias(local, "champion", 2, judged_against=1) == Alias(version=2, previous=(1,), newest=2)
    for version, judged_against in ((2, 1), (3, 1), (3, 0), (1, 2)):
        assert take_alias(local, "champion", version, judged_against=judged_against).version == 2


def test_take_alias_when_somebody_else_moves_it_between_look_and_write(local: ObjectStore) -> None:
    advance_alias(local, "champion", 1)

    class Overtaken(MortalStore):
        def write(self, key: str, data: bytes, **condition: object) -> str:
            set_alias(local, "champion", 7)
            return super().write(key, data, **condition)  # type: ignore[arg-type]

    assert take_alias(Overtaken(local, writes=9), "champion", 8, judged_against=1).version == 7
    assert read_alias(local, "champion") == Alias(version=7, previous=(1,), newest=7)


def test_set_alias_moves_backwards_too(store: ObjectStore) -> None:
    advance_alias(store, "champion", 5)
    assert set_alias(store, "champion", 2) == Alias(version=2, previous=(5,), newest=5)
    assert set_alias(store, "champion", 2) == Alias(version=2, previous=(5,), newest=5)
    assert set_alias(store, "staging", 4) == Alias(version=4, newest=4)


def test_roll_back_alias_goes_back_step_by_step(store: ObjectStore) -> None:
    for version in (1, 2, 4):
        advance_alias(store, "champion", version)
    assert roll_back_alias(store, "champion") == Alias(version=2, previous=(1,), newest=4)
    assert roll_back_alias(store, "champion") == Alias(version=1, previous=(), newest=4)
    with pytest.raises(ObjectNotFoundError, match="version 1 alone: nothing to roll back to"):
        roll_back_alias(store, "champion")


def test_roll_back_alias_when_somebody_else_moves_it(local: ObjectStore) -> None:
    for version in (1, 2):
        advance_alias(local, "champion", version)

    class Overtaken(MortalStore):
        """Somebody promotes version 7 between the look and the write."""

        def write(self, key: str, data: bytes, **condition: object) -> str:
            set_alias(local, "champion", 7)
            return super().write(key, data, **condition)  # type: ignore[arg-type]

    with pytest.raises(StorageError, match="moved by somebody else just now"):
        roll_back_alias(Overtaken(local, writes=9), "champion")
    assert read_alias(local, "champion").version == 7


def test_roll_back_alias_when_its_answer_was_lost(local: ObjectStore) -> None:
    """The write is done but reported as refused: it must not go back twice."""
    for version in (1, 2, 3):
        advance_alias(local, "champion", version)

    class Forgetful(MortalStore):
        def write(self, key: str, data: bytes, **condition: object) -> str:
            super().write(key, data, **condition)  # type: ignore[arg-type]
            return super().write(key, data, **condition)  # type: ignore[arg-type]

    assert roll_back_alias(Forgetful(local, writes=9), "champion").version == 2
    assert read_alias(local, "champion") == Alias(version=2, previous=(1,), newest=3)


def test_aliases_when_many_publishers_race(store: ObjectStore) -> None:
    versions = list(range(1, 9))
    random.Random(0).shuffle(versions)
    barrier = threading.Barrier(len(versions))

    def publish(version: int) -> None:
        barrier.wait()
        advance_alias(store, "champion", version)

    with ThreadPoolExecutor(len(versions)) as pool:
        list(pool.map(publish, versions))
    alias = read_alias(store, "champion")
    assert (alias.version, alias.newest) == (8, 8)
    assert list(alias.previous) == sorted(alias.previous, reverse=True)


def test_advance_alias_when_others_never_stop_moving_it(local: ObjectStore) -> None:
    class Overtaken(MortalStore):
        number = 100

        def write(self, key: str, data: bytes, **condition: object) -> str:
            Overtaken.number += 1
            set_alias(local, "champion", Overtaken.number)
            return super().write(key, data, **condition)  # type: ignore[arg-type]

    with pytest.raises(StorageError, match=r"champion\.json was moved by others 10 times"):
        advance_alias(Overtaken(local, writes=99), "champion", 1000)


def test_previous_versions_are_kept_to_a_bound(local: ObjectStore) -> None:
    for version in range(1, 31):
        advance_alias(local, "champion", version)
    assert read_alias(local, "champion").previous == tuple(range(29, 9, -1))


def test_list_aliases_when_there_are_none_and_some(local: ObjectStore) -> None:
    assert list_aliases(local) == {}
    set_alias(local, "staging", 2)
    set_alias(local, "champion", 1)
    assert {name: alias.version for name, alias in list_aliases(local).items()} == {
        "champion": 1,
        "staging": 2,
    }


def test_read_alias_when_it_is_damaged(local: ObjectStore) -> None:
    local.write("aliases/champion.json", b"{")
    with pytest.raises(ArtifactError, match=r"aliases/champion\.json is no document of a registry"):
        advance_alias(local, "champion", 1)

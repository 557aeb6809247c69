"""A push that is broken off at any request or write, and made again, leaves what one that was not leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.base_model import CACHE_VARIABLE
from components.common.errors import TextualInversionError
from components.common.registry.entry import RegistryEntry
from components.common.storage import ObjectStore, open_store
from components.common.storage.retries import RETRY_SECONDS_VARIABLE
from components.publish.destinations import full_pipeline
from components.publish.destinations.destination import Destination
from components.publish.destinations.full_pipeline import FullPipeline
from components.publish.destinations.hub import Hub
from components.publish.destinations.model_registry import ModelRegistry
from tests.publish.destinations.conftest import model_registry as model_registry
from tests.publish.destinations.conftest import publish as publish
from tests.publish.destinations.conftest import writable_hub as writable_hub
from tests.publish.destinations.model_registry_server import ModelRegistryServer
from tests.publish.destinations.test_full_pipeline import SPRITES, published
from tests.publish.destinations.test_hub import content
from tests.publish.destinations.test_hub import pytestmark as pytestmark
from tests.publish.destinations.writable_hub import FIRST_FILES, Fault, WritableHub
from tests.publish.faulty_store import Killed, MortalStore

Publish = Callable[..., RegistryEntry]
CountFaults = Callable[[int, str], None]
MOST_REQUESTS = 60


def push_broken_off(server: WritableHub | ModelRegistryServer, destination: Destination, entry: RegistryEntry) -> int:
    """How often a push was broken off, at one request further each time until it came to its end."""
    for request in range(MOST_REQUESTS):
        fault = Fault("", "", 0, skip=request // 2, late=bool(request % 2))
        server.faults = [fault]
        try:
            destination.push(entry)
        except TextualInversionError:
            continue
        if fault.times:  # it was over before
            return request
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("newer", [False, True], ids=["newest", "older"])
def test_push_to_the_hub_broken_off_at_every_request_in_turn(
    publish: Publish,
    writable_hub: WritableHub,
    newer: bool,
    monkeypatch: pytest.MonkeyPatch,
    count_faults: CountFaults,
):
    entry = publish(1)
    if newer:
        Hub("", private=True).push(publish(2))
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "0")
    faults = push_broken_off(writable_hub, Hub("", private=True), entry)
    assert faults > 8
    count_faults(faults, "pushes to the Hub broken off")
    repository = writable_hub.repositories["someone/cat-toy"]
    assert repository.messages.count("Version 1 of cat-toy") == 1
    assert repository.files("v1") == {**FIRST_FILES, **content(entry)}
    assert set(repository.branches) == {"main"}
    assert set(repository.tags) == ({"v1", "v2"} if newer else {"v1"})


def test_push_to_the_model_registry_broken_off_at_every_request_in_turn(
    publish: Publish, model_registry: ModelRegistryServer, monkeypatch: pytest.MonkeyPatch, count_faults: CountFaults
):
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "0")
    faults = push_broken_off(model_registry, ModelRegistry(model_registry.url), publish())
    assert faults > 8
    count_faults(faults, "pushes to a Model Registry broken off")
    assert [len(model_registry.models), len(model_registry.versions), len(model_registry.artifacts)] == [1, 1, 1]


def test_full_pipeline_killed_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count_faults: CountFaults
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    entry, reference = published(tmp_path, SPRITES)

    def push(folder: str) -> dict[str, bytes]:
        store = open_store(FullPipeline(str(tmp_path / folder), lambda _: reference).push(entry))
        return {info.key: store.read(info.key) for info in store.list()}

    whole = push("whole")
    for writes in range(len(whole)):

        def mortal(uri: str, writes: int = writes) -> ObjectStore:
            return MortalStore(open_store(uri), writes=writes)

        with monkeypatch.context() as patch:
            patch.setattr(full_pipeline, "open_store", mortal)
            with pytest.raises(Killed):
                push(str(writes))
        assert not (tmp_path / str(writes) / "cat-toy/1/model_index.json").exists()
        assert push(str(writes)) == whole
    count_faults(len(whole), "kills of a push of a complete pipeline")

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.base_model import CACHE_VARIABLE
from components.common.errors import ConfigError
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import move_alias
from components.publish.__main__ import main
from components.publish.config import PublishConfig
from tests.publish.destinations.model_registry_server import ModelRegistryServer
from tests.publish.destinations.test_full_pipeline import SPRITES, published
from tests.publish.destinations.test_hub import pytestmark as pytestmark
from tests.publish.destinations.writable_hub import WritableHub

Publish = Callable[..., RegistryEntry]


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs `push` on the registry `tmp_path`/registry and gives what it printed."""

    def push(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["publish", "push", *arguments, "--registry-uri", str(tmp_path / "registry")])
        main()
        return capsys.readouterr().out

    return push


def test_push_brings_the_version_of_an_alias_to_where_it_is_told(
    push: Callable[..., str],
    publish: Publish,
    writable_hub: WritableHub,
    model_registry: ModelRegistryServer,
    tmp_path: Path,
):
    publish(1), publish(2)
    move_alias(str(tmp_path / "registry"), "cat-toy", "staging", 1)
    where = ("--to", "hub", "model-registry", "--hub-model-id", "team/cat", "--model-registry-uri", model_registry.url)
    told = push("cat-toy", "staging", *where, "--dry-run").splitlines()
    assert [line.partition(":")[0] for line in told] == ["hub", "model-registry"]
    assert f"to {writable_hub.url}/team/cat, made private where there is none, and tags the commit v1" in told[0]
    assert not writable_hub.requests and not model_registry.requests
    assert push("cat-toy", "staging", *where).splitlines()[0] == f"hub: {writable_hub.url}/team/cat/tree/v1"
    assert model_registry.aliases() == {"1": "staging"}


def test_push_finds_the_base_model_of_a_version_in_the_store_beside_the_registry(
    push: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    published(tmp_path, SPRITES)
    assert str(SPRITES) in push("cat-toy", "1", "--to", "full-pipeline", "--dry-run")
    told = push("cat-toy", "1", "--to", "full-pipeline")
    assert told == f"full-pipeline: file://{tmp_path}/registry/cat-toy/full-pipelines/1\n"
    assert (tmp_path / "registry/cat-toy/full-pipelines/1/model_index.json").is_file()


def test_push_when_an_address_is_missing(push: Callable[..., str], caplog: pytest.LogCaptureFixture):
    with pytest.raises(SystemExit) as stop:
        push("cat-toy", "1", "--to", "model-registry")
    assert stop.value.code == 2
    assert "model_registry_uri: found nothing" in caplog.text


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        ({"hub_model_id": "team/cat"}, "hub_model_id: found 'team/cat' without push_to_hub"),
        ({"hub_model_id": "a/b/c", "push_to_hub": True}, "hub_model_id: found 'a/b/c', expected owner/name"),
        ({"hub_model_id": "a--b", "push_to_hub": True}, "hub_model_id: found 'a--b', expected owner/name"),
        ({"full_pipeline_uri": "gs://b/full"}, "full_pipeline_uri: found 'gs://b/full' without save_as_full_pipeline"),
        ({"model_registry_uri": "registry:8080"}, "model_registry_uri: found 'registry:8080', expected the address"),
        ({"model_registry_uri": "http://host:port"}, "model_registry_uri: found 'http://host:port', expected"),
        (
            {"model_registry_uri": "http://me:secret@host"},
            r"model_registry_uri: found a secret in 'http://\*\*\*@host'",
        ),
    ],
)
def test_options_that_cannot_be_right(given: dict[str, object], mistake: str):
    with pytest.raises(ConfigError, match=mistake):
        PublishConfig(registry_uri="gs://b/r", **given)  # type: ignore[arg-type]

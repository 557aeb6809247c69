from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.errors import DestinationError
from components.common.printable import printable
from components.common.registry.registry import concept_store, list_versions, resolve
from components.common.storage.retries import RETRY_SECONDS_VARIABLE
from components.publish.config import PublishConfig
from components.publish.step import Said, publish_if_learned
from tests.publish.conftest import Inputs
from tests.publish.destinations.model_registry_server import TOKEN as REGISTRY_TOKEN
from tests.publish.destinations.model_registry_server import ModelRegistryServer
from tests.publish.destinations.test_hub import pytestmark as pytestmark
from tests.publish.destinations.writable_hub import TOKEN as HUB_TOKEN
from tests.publish.destinations.writable_hub import Fault, WritableHub


def run(config: PublishConfig, inputs: Inputs, output: Path) -> Said:
    return publish_if_learned(config, **dataclasses.asdict(inputs), output=output)


@pytest.fixture
def config(tmp_path: Path, writable_hub: WritableHub, model_registry: ModelRegistryServer) -> PublishConfig:
    """What is told to a step that is to reach both servers."""
    return PublishConfig(
        registry_uri=str(tmp_path / "registry"), push_to_hub=True, model_registry_uri=model_registry.url
    )


def test_step_puts_a_version_everywhere_and_says_where(
    config: PublishConfig,
    inputs: Inputs,
    writable_hub: WritableHub,
    model_registry: ModelRegistryServer,
    tmp_path: Path,
):
    said = run(config, inputs, tmp_path / "out")
    assert said.metadata["hub"] == f"{writable_hub.url}/someone/cat-toy/tree/v1"
    assert said.metadata["model-registry"] == f"{model_registry.url}/api/model_registry/v1/model_versions/2"
    assert model_registry.aliases() == {"1": "champion"}


def test_step_moves_the_champion_there_as_here(
    config: PublishConfig, make_inputs: Callable[..., Inputs], model_registry: ModelRegistryServer, tmp_path: Path
):
    for seed in (1, 2):
        run(dataclasses.replace(config, push_to_hub=False), make_inputs(seed=seed), tmp_path / "out")
    assert model_registry.aliases() == {"1": "", "2": "champion"}


def test_step_when_a_destination_fails_leaves_the_registry_right_and_completes_it_when_it_is_retried(
    config: PublishConfig,
    inputs: Inputs,
    writable_hub: WritableHub,
    model_registry: ModelRegistryServer,
    tmp_path: Path,
):
    writable_hub.faults = [Fault("POST", "/commit/", 400)]
    with pytest.raises(DestinationError) as error:
        run(config, inputs, tmp_path / "out")
    (mistake,) = error.value.mistakes
    assert "version 1 of cat-toy is published at file://" in mistake and "but not at hub: " in mistake
    assert f"registry push cat-toy 1 --registry-uri {config.registry_uri} --to hub --hub-private=true" in mistake
    assert resolve(config.registry_uri, "cat-toy", "champion").version == 1
    assert len(model_registry.versions) == 1, "the others are reached all the same"
    assert not writable_hub.repositories["someone/cat-toy"].tags
    run(config, inputs, tmp_path / "out")
    assert set(writable_hub.repositories["someone/cat-toy"].tags) == {"v1"}
    assert len(list_versions(config.registry_uri, "cat-toy")) == len(model_registry.versions) == 1


def test_step_when_destinations_are_not_required_warns(
    config: PublishConfig, inputs: Inputs, writable_hub: WritableHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    writable_hub.faults = [Fault("POST", "/commit/", 400)]
    said = run(dataclasses.replace(config, destinations_required=False), inputs, tmp_path / "out")
    assert "hub" not in said.metadata and "model-registry" in said.metadata
    assert "is published at file://" in caplog.text and "but not at hub: the Hub refuses the request" in caplog.text


def test_secrets_are_in_nothing_that_is_made_or_said(
    config: PublishConfig,
    inputs: Inputs,
    writable_hub: WritableHub,
    model_registry: ModelRegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("DEBUG", "components")
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "1")
    monkeypatch.setenv("MODEL_REGISTRY_TOKEN", REGISTRY_TOKEN)
    model_registry.token = REGISTRY_TOKEN
    echo = f'{{"error": "you said {HUB_TOKEN} and {REGISTRY_TOKEN}"}}'
    writable_hub.faults = [
        Fault("POST", "/commit/", 400, body=echo),
        Fault("POST", "/commit/", 500, body=echo, times=9),
    ]
    model_registry.faults = [Fault("POST", "/artifacts", 400, body=echo)]
    shown = []
    for _ in range(2):
        with pytest.raises(DestinationError) as error:
            run(config, inputs, tmp_path / "out")
        shown.append(str(error.value))
    writable_hub.faults = []
    shown.append(str(run(config, inputs, tmp_path / "out")))
    assert "you said" in shown[0] and {f"Bearer {REGISTRY_TOKEN}"} == model_registry.tokens_seen
    made = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    made += [data.decode("latin-1") for data in writable_hub.repositories["someone/cat-toy"].files("v1").values()]
    made.append(str([model_registry.models, model_registry.versions, model_registry.artifacts]))
    logged = [printable(message) for message in caplog.messages]  # as the steps' formatter does
    for secret in (HUB_TOKEN, REGISTRY_TOKEN):
        assert not [text for text in (*shown, *made, *logged) if secret in text]
    assert concept_store(config.registry_uri, "cat-toy").exists("versions/1/manifest.json")

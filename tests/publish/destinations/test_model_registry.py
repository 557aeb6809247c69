from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from mr_openapi import ApiClient, Configuration, ModelRegistryServiceApi
from mr_openapi.models.model_version import ModelVersion

from components.common.errors import DestinationError, StorageError, TextualInversionError
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import move_alias
from components.publish.destinations.model_registry import ModelRegistry
from components.publish.destinations.model_registry_client import TOKEN_PATH_VARIABLES, TOKEN_VARIABLE
from tests.publish.destinations.model_registry_server import TOKEN, ModelRegistryServer
from tests.publish.destinations.writable_hub import Fault

Publish = Callable[..., RegistryEntry]


def push(server: ModelRegistryServer, entry: RegistryEntry) -> str:
    return ModelRegistry(f"{server.url}/").push(entry)


@pytest.mark.parametrize("api", ["v1", "v1alpha3"])
def test_push_registers_model_version_and_artifact(publish: Publish, model_registry: ModelRegistryServer, api: str):
    model_registry.api = api
    entry = publish()
    assert push(model_registry, entry) == f"{model_registry.url}/api/model_registry/{api}/model_versions/2"
    (model,), (version,), (artifact,) = model_registry.models, model_registry.versions, model_registry.artifacts
    assert (model["name"], model["externalId"]) == ("cat-toy", entry.uri.removesuffix("/versions/1"))
    assert (version["name"], version["registeredModelId"], version["externalId"]) == ("1", model["id"], entry.uri)
    properties = {name: list(value.values())[1] for name, value in version["customProperties"].items()}
    assert properties["scores.after.clip_i"] == 0.78
    assert properties["passed"] is True
    assert properties["lineage.plan_version"] == "1"
    assert properties["lineage.base_model_digest"] == entry.facts.lineage["base_model_digest"]
    assert (artifact["uri"], artifact["modelSourceId"], artifact["version"]) == (entry.uri, "run-1", version["id"])


def test_what_was_registered_is_read_by_the_official_client(publish: Publish, model_registry: ModelRegistryServer):
    entry = publish()
    push(model_registry, entry)

    async def read() -> tuple[ModelVersion, str | None]:
        async with ApiClient(Configuration(host=model_registry.url)) as client:
            service = ModelRegistryServiceApi(client)
            model = await service.find_registered_model(name="cat-toy")
            version = await service.find_model_version(name="1", parent_resource_id=model.id)
            artifacts = await service.get_model_version_artifacts(version.id, page_size="9")
            return version, artifacts.items[0].actual_instance.uri

    version, uri = asyncio.run(read())
    assert version.custom_properties["scores.after.clip_t"].actual_instance.double_value == 0.29
    assert uri == entry.uri


def test_push_when_it_is_there_already_writes_nothing(publish: Publish, model_registry: ModelRegistryServer):
    entry = publish()
    address = push(model_registry, entry)
    before = model_registry.writes()
    assert push(model_registry, entry) == address
    assert model_registry.writes() == before


def test_push_keeps_the_aliases_of_all_versions_in_step(
    publish: Publish, model_registry: ModelRegistryServer, tmp_path: Path
):
    registry = str(tmp_path / "registry")
    for seed in (1, 2, 3):
        entry = publish(seed)
        move_alias(registry, "cat-toy", "champion", seed)
        push(model_registry, entry)
        assert model_registry.aliases() == {str(n): "champion" if n == seed else "" for n in range(1, seed + 1)}
    model_registry.versions[0]["customProperties"]["theirs"] = {
        "metadataType": "MetadataStringValue",
        "string_value": "kept",
    }
    move_alias(registry, "cat-toy", "champion", 1)
    move_alias(registry, "cat-toy", "candidate", 1)
    push(model_registry, entry)
    assert model_registry.aliases() == {"1": "candidate, champion", "2": "", "3": ""}
    assert model_registry.versions[0]["customProperties"]["theirs"]["string_value"] == "kept"


def test_push_when_something_fails_registers_once(
    publish: Publish, model_registry: ModelRegistryServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.common.storage.retries.FIRST_DELAY_S", 0.001)
    monkeypatch.setattr("components.common.storage.retries.LONGEST_DELAY_S", 0.01)
    for path in ("/registered_models", "/model_versions", "/artifacts"):
        model_registry.faults += [Fault("POST", path, status) for status in (503, 409, 0)]
        model_registry.faults.append(Fault("POST", path, 0, late=True))
    push(model_registry, publish())
    assert not any(fault.times for fault in model_registry.faults)
    assert [len(model_registry.models), len(model_registry.versions), len(model_registry.artifacts)] == [1, 1, 1]


def test_push_when_there_are_too_many_requests_waits_as_long_as_it_is_told(
    publish: Publish, model_registry: ModelRegistryServer, caplog: pytest.LogCaptureFixture
):
    model_registry.faults = [Fault("POST", "/model_versions", 429, {"Retry-After": "1"})]
    push(model_registry, publish())
    assert "next in 1.0 s" in caplog.text


def test_push_when_the_version_there_is_another_one(publish: Publish, model_registry: ModelRegistryServer):
    entry = publish()
    push(model_registry, entry)
    model_registry.versions[0]["customProperties"]["bundle_digest"]["string_value"] = "ab" * 32
    with pytest.raises(DestinationError, match=r"has a version 1 of cat-toy with the bundle 'abababababab', expected"):
        push(model_registry, entry)


def test_push_when_the_model_there_is_of_another_registry(publish: Publish, model_registry: ModelRegistryServer):
    model_registry.add(model_registry.models, {"name": "cat-toy", "externalId": "gs://theirs/cat-toy"})
    with pytest.raises(DestinationError, match="has a model cat-toy of gs://theirs/cat-toy, expected file://"):
        push(model_registry, publish())
    assert not model_registry.versions


@pytest.mark.parametrize("variable", [TOKEN_VARIABLE, *TOKEN_PATH_VARIABLES])
def test_push_with_a_token(
    publish: Publish,
    model_registry: ModelRegistryServer,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    model_registry.token = TOKEN
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv(variable, str(tmp_path / "token") if variable.endswith("PATH") else TOKEN)
    push(model_registry, publish())
    assert model_registry.tokens_seen == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("status", [401, 302])
def test_push_when_the_token_is_not_taken_never_shows_it(
    publish: Publish,
    model_registry: ModelRegistryServer,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("MODEL_REGISTRY_TOKEN_PATH", str(tmp_path / "token"))
    echoed = f"you are {TOKEN}"
    model_registry.faults = [Fault("GET", "/", status, {"Location": "/login"}, body=echoed)]
    with pytest.raises(
        DestinationError, match=r"wants to know who asks .*you are \*\*\*.*MODEL_REGISTRY_TOKEN"
    ) as error:
        push(model_registry, publish())
    assert TOKEN not in caplog.text + str(error.value)


def test_push_when_the_server_stays_away(
    publish: Publish, model_registry: ModelRegistryServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TEXTUAL_INVERSION_RETRY_SECONDS", "0.2")
    model_registry.stop()
    with pytest.raises(StorageError, match=r"no usable answer in 0\.2 s .*Check that the Model Registry is up"):
        push(model_registry, publish())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/registered_model", "<html>"),
        ("/registered_model", '{"id": 3}'),
        ("/versions", "[]"),
        ("/versions", '{"items": [3], "nextPageToken": {}}'),
    ],
)
def test_push_when_an_answer_makes_no_sense_is_one_line(
    publish: Publish, model_registry: ModelRegistryServer, path: str, body: str
):
    entry = publish()
    push(model_registry, entry)
    model_registry.faults = [Fault("GET", path, 200, body=body, times=100)]
    with pytest.raises(TextualInversionError, match="gives no usable answer") as error:
        push(model_registry, entry)
    assert len(str(error.value).splitlines()) == 1

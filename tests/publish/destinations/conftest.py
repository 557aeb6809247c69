"""Published versions, and the servers of further destinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.versions import publish_version
from components.common.storage.retries import RETRY_SECONDS_VARIABLE
from components.publish.bundle import make_bundle
from components.publish.destinations.model_registry_client import TOKEN_PATH_VARIABLES, TOKEN_VARIABLE
from tests.publish.conftest import REFERENCE, write_inputs
from tests.publish.destinations.model_registry_server import ModelRegistryServer
from tests.publish.destinations.writable_hub import WritableHub
from tests.servers import running


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., RegistryEntry]:
    """Publishes an embedding whose rows depend on `seed` in the registry `tmp_path`/registry."""

    def publish(seed: int = 1) -> RegistryEntry:
        inputs = write_inputs(tmp_path / f"inputs-{seed}", seed=seed)
        bundle = make_bundle(
            "", reference=REFERENCE, learned_embedding=inputs.learned_embedding, evaluation=inputs.evaluation
        )
        return publish_version(concept_store(str(tmp_path / "registry"), bundle.concept), bundle, "run-1")

    return publish


@pytest.fixture
def writable_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A Hub without repositories, whose token is in the environment."""
    import huggingface_hub

    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "5")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # read once, when it is imported
    with running(WritableHub()) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def model_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRegistryServer]:
    """A Model Registry that holds nothing and asks for no token."""
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "5")
    for variable in (TOKEN_VARIABLE, *TOKEN_PATH_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    with running(ModelRegistryServer()) as server:
        yield server

"""A version as a ModelVersion of a Kubeflow Model Registry.

    RegisteredModel   the concept
    ModelVersion      the version, with scores, lineage and the aliases that point at it as custom properties
    ModelArtifact     the address of the version's folder

Its REST API is spoken directly: the official client refuses to register what is there, so that it cannot go on after a
lost answer, and brings an event loop and a dozen packages. `tests` hold what is sent against that client.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from components.common.artifact_folder import canonical_json
from components.common.errors import DestinationError
from components.common.registry import aliases, registry
from components.common.registry.entry import RegistryEntry
from components.publish.destinations.destination import Destination
from components.publish.destinations.model_registry_client import Client, Resource, with_client

logger = logging.getLogger(__name__)

_ALIASES = "aliases"
_BUNDLE_DIGEST = "bundle_digest"
_INTEGERS_END = 10**9  # the API's pattern has nine digits


class ModelRegistry(Destination):
    """A Kubeflow Model Registry; see `model_registry_client` for how a token and authorities are given."""

    name = "model-registry"

    def __init__(self, uri: str) -> None:
        """Takes the address of the server."""
        self._uri = uri.rstrip("/")
        self.flags = ["--model-registry-uri", uri]

    def plan(self, entry: RegistryEntry) -> str:
        """See `Destination.plan`."""
        return f"registers {entry.uri} as version {entry.version} of the model {entry.concept} at {self._uri}"

    def push(self, entry: RegistryEntry) -> str:
        """See `Destination.push`. The aliases of all versions there are brought into step as well."""

        def register(client: Client) -> str:
            model = _registered_model(client, entry)
            version = _model_version(client, entry, model)
            _add_artifact(client, entry, version)
            _keep_aliases(client, entry, model)
            return client.address(f"model_versions/{version.id}")

        address = with_client(self._uri, register)
        logger.info("the Model Registry has it: %s", address)
        return address


def _registered_model(client: Client, entry: RegistryEntry) -> Resource:
    uri = registry.store_of(entry).uri
    found = client.find("registered_model", name=entry.concept)
    if found is None:
        content = {
            "name": entry.concept,
            "externalId": uri,
            "description": f"The word {entry.facts.placeholder_token} ({entry.facts.learnable_property}), a textual "
            "inversion",
            "customProperties": {"placeholder_token": metadata_value(entry.facts.placeholder_token)},
        }
        return client.create("registered_models", content)
    if found.externalId not in (None, "", uri):
        raise DestinationError(
            f"the Model Registry has a model {entry.concept} of {found.externalId}, expected {uri}: give another "
            "concept_name"
        )
    return found


def _model_version(client: Client, entry: RegistryEntry, model: Resource) -> Resource:
    found = client.find("model_version", name=str(entry.version), parentResourceId=model.id)
    if found is None:
        content = {
            "name": str(entry.version),
            "externalId": entry.uri,
            "registeredModelId": model.id,
            "description": "; ".join(entry.facts.reasons),
            "customProperties": _properties(entry),
        }
        return client.create("model_versions", content)
    digest = found.text(_BUNDLE_DIGEST)
    if digest != entry.bundle_digest:
        raise DestinationError(
            f"the Model Registry has a version {entry.version} of {entry.concept} with the bundle {digest[:12]!r}, "
            f"expected {entry.bundle_digest[:12]}, as versions never change: archive that model there, or give another "
            "concept_name"
        )
    return found


def _add_artifact(client: Client, entry: RegistryEntry, version: Resource) -> None:
    path = f"model_versions/{version.id}/artifacts"
    if any(each.uri == entry.uri for each in client.all(path)):
        return
    run_id = str(entry.facts.lineage.get("run_id", ""))
    source = {"modelSourceKind": "kfp", "modelSourceClass": "pipelinerun", "modelSourceId": run_id} if run_id else {}
    content = {
        "artifactType": "model-artifact",
        "name": entry.concept,
        "uri": entry.uri,
        "modelFormatName": "safetensors",
        "state": "LIVE",
        "customProperties": {_BUNDLE_DIGEST: metadata_value(entry.bundle_digest)},
        **source,
    }
    client.create(path, content)


def _keep_aliases(client: Client, entry: RegistryEntry, model: Resource) -> None:
    """Makes the aliases of every version there those that the registry has, other properties staying as they are."""
    pointing = aliases.list_aliases(registry.store_of(entry))
    for version in client.all(f"registered_models/{model.id}/versions"):
        names = sorted(name for name, alias in pointing.items() if str(alias.version) == version.name)
        if version.text(_ALIASES) != ", ".join(names):
            properties = {**(version.customProperties or {}), _ALIASES: metadata_value(", ".join(names))}
            client.change(f"model_versions/{version.id}", {"customProperties": properties})


def _properties(entry: RegistryEntry) -> dict[str, Any]:
    facts = entry.facts
    values: dict[str, Any] = {
        _BUNDLE_DIGEST: entry.bundle_digest,
        "created": entry.created,
        "passed": facts.passed,
        "placeholder_token": facts.placeholder_token,
        "tokens": " ".join(facts.tokens),
        **{f"scores.{at}.{name}": score for at, scores in facts.scores.items() for name, score in scores.items()},
        **{f"lineage.{name}": value for name, value in facts.lineage.items() if value not in ("", None)},
    }
    return {name: metadata_value(value) for name, value in values.items()}


def metadata_value(value: Any) -> Mapping[str, Any]:
    """A JSON value as the custom property of a Model Registry; what it has no type for as its JSON text."""
    match value:
        case bool():
            return {"metadataType": "MetadataBoolValue", "bool_value": value}
        case int() if abs(value) < _INTEGERS_END:
            return {"metadataType": "MetadataIntValue", "int_value": str(value)}
        case float():
            return {"metadataType": "MetadataDoubleValue", "double_value": value}
        case str():
            return {"metadataType": "MetadataStringValue", "string_value": value}
    return metadata_value(canonical_json(value).decode())

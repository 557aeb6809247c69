"""Where a version is put beside the registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from urllib.parse import urlsplit

from components.common.options import Config, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class DestinationOptions(Config):
    """Where a version is put beside the registry; nowhere unless asked for."""

    title = "Further destinations"

    push_to_hub: bool = option(
        "put each version on the Hugging Face Hub as well, with the token in HF_TOKEN: one commit and a tag such as v3",
        False,
    )
    hub_model_id: str = option(
        "repository on the Hub, owner/name or a name of the token's own user; empty takes the concept's name", ""
    )
    hub_private: bool = option("a repository on the Hub that is made is private", True)
    model_registry_uri: str = option(
        "a Kubeflow Model Registry to register each version in as well, such as "
        "http://model-registry-service.kubeflow.svc:8080; empty for none",
        "",
    )
    save_as_full_pipeline: bool = option(
        "write each version as a complete diffusers folder as well, with the word in its tokenizer and text encoder: "
        "as large as the base model",
        False,
    )
    full_pipeline_uri: str = option(
        "folder for complete pipelines, to which concept and version are added; empty puts them beside the versions in "
        "the registry",
        "",
    )
    destinations_required: bool = option(
        "the publishing step fails, after the version is published, when a destination is not reached; without it the "
        "step warns",
        True,
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        if self.hub_model_id and not self.push_to_hub:
            yield f"hub_model_id: found {self.hub_model_id!r} without push_to_hub, expected both: set push_to_hub=true"
        if self.hub_model_id:
            yield from _mistakes_of_repository("hub_model_id", self.hub_model_id)
        if self.full_pipeline_uri and not self.save_as_full_pipeline:
            yield (
                f"full_pipeline_uri: found {self.full_pipeline_uri!r} without save_as_full_pipeline, expected both: "
                "set save_as_full_pipeline=true"
            )
        if self.model_registry_uri and not _is_server(self.model_registry_uri):
            yield (
                f"model_registry_uri: found {self.model_registry_uri!r}, expected the address of a server, such as "
                "http://model-registry-service.kubeflow.svc:8080"
            )

    def mistakes_with(self, concept: str) -> Iterable[str]:
        """What is wrong for the concept of that name in the registry."""
        if self.push_to_hub and not self.hub_model_id and any(_mistakes_of_repository("hub_model_id", concept)):
            yield (
                f"hub_model_id: found nothing for the concept {concept!r}, which the Hub takes for no name, expected "
                "one of letters, digits, '-', '_' and '.'"
            )


def _mistakes_of_repository(name: str, repository: str) -> Iterable[str]:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        yield (
            f"{name}: found {repository!r}, expected owner/name or a name, of at most 96 letters, digits, '-', '_' and "
            "'.', beginning and ending with a letter or a digit"
        )


def _is_server(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)

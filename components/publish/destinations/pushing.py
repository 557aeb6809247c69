"""Bringing a published version to every further destination, and saying what is missing and how to complete it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence

from components.common.base_model import ModelReference
from components.common.errors import DestinationError, TextualInversionError
from components.common.registry.entry import RegistryEntry
from components.publish.config import PublishConfig
from components.publish.destinations.destination import Destination
from components.publish.destinations.full_pipeline import FullPipeline
from components.publish.destinations.hub import Hub
from components.publish.destinations.model_registry import ModelRegistry

logger = logging.getLogger(__name__)


def destinations_of(
    config: PublishConfig, find_base_model: Callable[[RegistryEntry], ModelReference]
) -> list[Destination]:
    """The further destinations that a config asks for.

    Args:
        config: where versions are published.
        find_base_model: gives the base model that a version was trained on, for a complete pipeline.
    """
    destinations: list[Destination] = []
    if config.push_to_hub:
        destinations.append(Hub(config.hub_model_id, private=config.hub_private))
    if config.model_registry_uri:
        destinations.append(ModelRegistry(config.model_registry_uri))
    if config.save_as_full_pipeline:
        destinations.append(FullPipeline(config.full_pipeline_uri, find_base_model))
    return destinations


def push_everywhere(
    destinations: Sequence[Destination], entry: RegistryEntry, *, registry_uri: str, required: bool
) -> dict[str, str]:
    """The address of the version at each destination that has it now, by the destination's name.

    All are tried, whatever becomes of the others. What is published stays published.

    Raises:
        DestinationError: with `required`, when one does not have it: naming each, and how to complete them.
    """
    addresses, mistakes = dict[str, str](), list[str]()
    for destination in destinations:
        try:
            addresses[destination.name] = destination.push(entry)
        except TextualInversionError as error:
            where = ["--registry-uri", registry_uri, "--to", destination.name, *destination.flags]
            command = shlex.join(["registry", "push", entry.concept, str(entry.version), *where])
            mistakes.append(
                f"version {entry.version} of {entry.concept} is published at {entry.uri}, but not at "
                f"{destination.name}: {error}. Then retry this step, or: textual-inversion {command}"
            )
    if mistakes and required:
        raise DestinationError(*mistakes)
    for mistake in mistakes:
        logger.warning("%s", mistake)
    return addresses

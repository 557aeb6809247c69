"""The champion that a new version will be held against, as the registry says now."""

from __future__ import annotations

import logging

from components.common.champion import ChampionAddress
from components.common.errors import ArtifactError, ObjectNotFoundError
from components.common.prompts import concept_name
from components.common.registry.aliases import read_alias
from components.common.registry.registry import concept_store
from components.common.registry.versions import read_entry, version_key
from components.publish.config import ALWAYS, PublishOptions

logger = logging.getLogger(__name__)


def find_champion(registry_uri: str, options: PublishOptions, placeholder_token: str) -> ChampionAddress | None:
    """Where the concept's alias points; None when nothing depends on it. What is damaged is told by a warning.

    Args:
        registry_uri: folder of the registry.
        options: the concept's name, the alias and what moves it.
        placeholder_token: gives the name where there is none.

    Raises:
        StorageError: when the registry cannot be read.
    """
    alias = options.registry_alias
    if not alias or options.promote_if == ALWAYS:
        return None
    store = concept_store(registry_uri, options.concept_name or concept_name(placeholder_token))
    try:
        version = read_alias(store, alias).version
    except ObjectNotFoundError:
        logger.info("%s has no %s yet: what is learned is judged alone", store.uri, alias)
        return ChampionAddress(alias=alias)
    except ArtifactError as error:
        logger.warning("%s; what is learned is judged alone", error)
        return ChampionAddress(alias=alias)
    uri = store.uri_of(version_key(version))
    try:
        digest = read_entry(store, version).bundle_digest
    except (ObjectNotFoundError, ArtifactError) as error:
        logger.warning("the %s cannot be used, and what is learned is judged alone: %s", alias, error)
        return ChampionAddress(alias=alias, version=version, uri=uri)
    logger.info("what is learned is held against the %s, version %d: %s", alias, version, uri)
    return ChampionAddress(alias=alias, version=version, uri=uri, digest=digest)

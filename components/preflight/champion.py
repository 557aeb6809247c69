"""The champion of a concept, as the registry says now: what is held against it, and what starts from it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from components.common.champion import ChampionAddress
from components.common.errors import ArtifactError, BaseModelError, InputError, ObjectNotFoundError
from components.common.families import TextEncoder
from components.common.learned_files import ExistingEmbedding, read_published_embedding
from components.common.prompts import concept_name
from components.common.registry.aliases import read_alias
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.versions import read_entry, version_key
from components.common.sources.models import ModelSource
from components.common.storage import ObjectStore
from components.preflight.new_word import check_embedding_fits
from components.publish.config import ALWAYS, PublishOptions

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Champion:
    """The version that a concept's alias points at.

    Attributes:
        store: of the concept.
        alias: the alias; empty when none is asked for.
        version: the version; 0 when there is none.
        entry: what its manifest says; None when there is none, or it cannot be used.
        problem: why it cannot be used; empty when it can, and when there is none.
    """

    store: ObjectStore
    alias: str
    version: int = 0
    entry: RegistryEntry | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return f"the {self.alias} (version {self.version})" if self.version else f"the {self.alias}"


def find_champion(registry_uri: str, options: PublishOptions, placeholder_token: str) -> Champion:
    """Where the concept's alias points.

    Args:
        registry_uri: folder of the registry.
        options: the concept's name and the alias.
        placeholder_token: gives the name where there is none.

    Raises:
        StorageError: when the registry cannot be read.
    """
    store = concept_store(registry_uri, options.concept_name or concept_name(placeholder_token))
    champion = Champion(store=store, alias=options.registry_alias)
    if not champion.alias:
        return champion
    try:
        champion = dataclasses.replace(champion, version=read_alias(store, champion.alias).version)
    except ObjectNotFoundError:
        return champion
    except ArtifactError as error:
        return dataclasses.replace(champion, problem=str(error))
    try:
        return dataclasses.replace(champion, entry=read_entry(store, champion.version))
    except (ObjectNotFoundError, ArtifactError) as error:
        return dataclasses.replace(champion, problem=str(error))


def judged_against(champion: Champion, options: PublishOptions) -> ChampionAddress | None:
    """The champion that a new version will be held against; None when nothing depends on it."""
    if not champion.alias or options.promote_if == ALWAYS:
        return None
    address = ChampionAddress(alias=champion.alias)
    if champion.version:
        uri = champion.store.uri_of(version_key(champion.version))
        digest = champion.entry.bundle_digest if champion.entry else ""
        address = dataclasses.replace(address, version=champion.version, uri=uri, digest=digest)
    if champion.problem:
        logger.warning("%s cannot be used, and what is learned is judged alone: %s", champion.name, champion.problem)
    elif not champion.entry:
        logger.info("%s has no %s yet: what is learned is judged alone", champion.store.uri, champion.alias)
    else:
        logger.info("what is learned is held against %s: %s", champion.name, address.uri)
    return address


def tell_of_another_kind(
    champion: Champion, options: PublishOptions, base_model: ModelSource, text_encoders: Sequence[TextEncoder]
) -> None:
    """Warns when the champion's rows are for other text encoders than the base model's, for then the alias stays."""
    if not champion.entry or options.promote_if == ALWAYS:
        return
    try:
        check_embedding_fits(read_published_embedding(champion.entry), base_model, text_encoders)
    except BaseModelError:
        logger.warning(
            "%s is for other text encoders than the base model's: it stays where it is, and what is learned is judged "
            "alone (promote_if, concept_name)",
            champion.name,
        )
    except InputError as error:
        logger.warning("%s cannot be used, and what is learned is judged alone: %s", champion.name, error)


def rows_to_start_from(
    champion: Champion, base_model: ModelSource, text_encoders: Sequence[TextEncoder]
) -> ExistingEmbedding | None:
    """The champion's rows; None where there are none that fit the model, which is told.

    Raises:
        StorageError: when they cannot be read.
    """
    problem = champion.problem
    if champion.entry:
        try:
            existing = read_published_embedding(champion.entry)
            check_embedding_fits(existing, base_model, text_encoders)
        except InputError as error:
            problem = str(error)
        else:
            logger.info("the word starts from %s", champion.name)
            return existing
    if problem:
        logger.warning("%s cannot be used, and the word starts from initializer_token: %s", champion.name, problem)
    else:
        logger.info("there is no %s yet: the word starts from initializer_token", champion.alias)
    return None

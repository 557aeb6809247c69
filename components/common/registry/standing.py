"""How a concept stands: its champion, the champion before, and its newest version, without reading all the others."""

from __future__ import annotations

import dataclasses

from components.common.errors import ArtifactError, ObjectNotFoundError
from components.common.registry import versions
from components.common.registry.aliases import read_alias
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import concept_store
from components.common.storage import ObjectStore

COMPARED = ("clip_i", "clip_t")
"""The scores that are held against each other."""

_ALIKE = ("base_model_digest", "image_set_digest")
"""What of its lineage two versions must share for their scores to be of the same thing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """Three versions of a concept; None where there is none.

    Attributes:
        champion: what the alias points at.
        before: what it pointed at before, if that is sound.
        latest: the newest sound version.
    """

    champion: RegistryEntry | None
    before: RegistryEntry | None
    latest: RegistryEntry | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """How far the scores of one version are above those of another.

    Attributes:
        scores: by score, of those that both have.
        is_of_the_same: whether both were learned from the same pictures on the same base model.
    """

    scores: dict[str, float]
    is_of_the_same: bool


def read_standing(registry_uri: str, concept: str, alias: str) -> Standing:
    """How a concept stands; nothing but None of one that is not in the registry.

    Raises:
        ArtifactError: when the alias, or the version that it points at, is damaged.
        StorageError: when the registry cannot be read, or that version is not there.
    """
    store = concept_store(registry_uri, concept)
    try:
        found = read_alias(store, alias)
        champion, before = found.version, found.previous[:1]
    except ObjectNotFoundError:
        champion, before = 0, ()
    newest_first = (_sound_entry(store, number) for number in reversed(versions.claimed_numbers(store)))
    return Standing(
        champion=versions.read_entry(store, champion) if champion else None,
        before=_sound_entry(store, before[0]) if before else None,
        latest=next(filter(None, newest_first), None),
    )


def scores_of(entry: RegistryEntry) -> dict[str, float]:
    """The compared scores of the learned concept."""
    after = entry.facts.scores.get("after", {})
    return {name: after[name] for name in COMPARED if name in after}


def moved(entry: RegistryEntry, other: RegistryEntry) -> Move:
    """How far the scores of a version are above another's."""
    own, others = scores_of(entry), scores_of(other)
    return Move(
        scores={name: own[name] - others[name] for name in own if name in others},
        is_of_the_same=all(entry.facts.lineage.get(name) == other.facts.lineage.get(name) for name in _ALIKE),
    )


def _sound_entry(store: ObjectStore, number: int) -> RegistryEntry | None:
    try:
        return versions.read_entry(store, number)
    except (ArtifactError, ObjectNotFoundError):
        return None

"""All that a registry holds, at once: what is damaged is told beside what is sound, and stops nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from components.common.errors import ArtifactError, ConfigError, ObjectNotFoundError
from components.common.registry import aliases, versions
from components.common.registry.aliases import Alias
from components.common.registry.entry import RegistryEntry
from components.common.registry.names import check_concept_name
from components.common.registry.registry import list_concepts
from components.common.registry.tombstones import DeletedVersionError
from components.common.storage import ObjectStore
from components.common.storage.below import StoreBelow
from components.common.storage.store import run_parallel

_READERS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionState:
    """A version number that is taken.

    Attributes:
        number: 1, 2, 3, ...
        entry: what the registry says of it; None where that is damaged or not there yet.
        problem: why there is no entry, in one sentence; empty where there is one.
        is_damaged: whether it is damaged; else a version without an entry is still being published.
    """

    number: int
    entry: RegistryEntry | None = None
    problem: str = ""
    is_damaged: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConceptOverview:
    """A concept of a registry.

    Attributes:
        name: its folder.
        versions: every number that is taken, the newest first, but for those that were deleted.
        aliases: where its aliases point, by name.
        problems: what is wrong with its aliases, a sentence each.
    """

    name: str
    versions: tuple[VersionState, ...]
    aliases: Mapping[str, Alias]
    problems: tuple[str, ...]


def read_overview(registry: ObjectStore) -> list[ConceptOverview]:
    """The concepts of the registry that a store is, sorted by name.

    Raises:
        StorageError: when the registry cannot be read.
    """
    return [_read_concept(registry, name) for name in list_concepts(registry.uri)]


def _read_concept(registry: ObjectStore, name: str) -> ConceptOverview:
    try:
        check_concept_name(name)
    except ConfigError as error:
        return ConceptOverview(name=name, versions=(), aliases={}, problems=(str(error),))
    store = StoreBelow(registry, name)
    numbers = versions.claimed_numbers(store)[::-1]
    states = run_parallel(_read_version, [(store, number) for number in numbers], workers=_READERS)
    taken = tuple(state for state in states if state)
    sound, problems = dict[str, Alias](), []
    for alias_name in aliases.alias_names(store):
        try:
            sound[alias_name] = alias = aliases.read_alias(store, alias_name)
        except (ArtifactError, ObjectNotFoundError) as error:
            problems.append(f"{alias_name}: {error}")
            continue
        if alias.version not in {state.number for state in taken}:
            problems.append(f"{alias_name} points at version {alias.version}, which is not there")
    return ConceptOverview(name=name, versions=taken, aliases=sound, problems=tuple(problems))


def _read_version(store: ObjectStore, number: int) -> VersionState | None:
    """What there is of a version number; None where the version was deleted."""
    try:
        return VersionState(number=number, entry=versions.read_entry(store, number))
    except DeletedVersionError:
        return None
    except (ArtifactError, ObjectNotFoundError) as error:
        return VersionState(number=number, problem=str(error), is_damaged=isinstance(error, ArtifactError))

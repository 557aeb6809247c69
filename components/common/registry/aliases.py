"""Aliases: names such as `champion` that point at a version and move by compare-and-set.

    aliases/champion.json   {"version": 5, "previous": [4, 3], "newest": 5}

Publishing moves an alias forwards only: past `newest`, the highest version it ever pointed at. So the late
retry of an older version does not take the alias from a newer one, and no retry undoes a rollback; a person
may move it anywhere. A version that was held against the one that the alias points at takes it from that one
alone: of two that were judged at the same time, the second to publish does not.
All functions take the store of one concept, `<registry_uri>/<concept>`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable

from components.common.errors import ArtifactError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.registry.documents import from_document, record_from, to_document
from components.common.storage import ObjectStore

logger = logging.getLogger(__name__)

_KIND = "registry-alias"
_ALIAS_KEY = re.compile(r"aliases/([^/]+)\.json")
_ATTEMPTS = 10
_KEPT = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alias:
    """Where an alias points.

    Attributes:
        version: the version it points at.
        previous: the versions it pointed at before, latest first, the last 20 of them.
        newest: the highest version it ever pointed at.
    """

    version: int
    previous: tuple[int, ...] = ()
    newest: int

    def moved_to(self, version: int) -> Alias:
        """This alias after it was moved to `version`."""
        previous = (self.version, *self.previous)[:_KEPT]
        return Alias(version=version, previous=previous, newest=max(version, self.newest))

    def rolled_back(self) -> Alias:
        """This alias at the version before; `newest` remembers that it has been further."""
        return Alias(version=self.previous[0], previous=self.previous[1:], newest=self.newest)


def alias_key(name: str) -> str:
    """The key of an alias."""
    return f"aliases/{name}.json"


def read_alias(store: ObjectStore, name: str) -> Alias:
    """Where the alias points.

    Raises:
        ObjectNotFoundError: when there is no such alias.
        ArtifactError: when it is damaged.
    """
    return _read(store, name)[0]


def list_aliases(store: ObjectStore) -> dict[str, Alias]:
    """The aliases of a concept by name; damaged ones are passed over with a warning."""
    found = {}
    for name in alias_names(store):
        try:
            found[name] = read_alias(store, name)
        except ArtifactError as error:
            logger.warning("passing over a damaged alias: %s", error)
    return found


def alias_names(store: ObjectStore) -> list[str]:
    """The names of a concept's aliases, sorted."""
    matches = (_ALIAS_KEY.fullmatch(item.key) for item in store.list("aliases/"))
    return [match.group(1) for match in matches if match]


def advance_alias(store: ObjectStore, name: str, version: int) -> Alias:
    """The alias after publishing `version`: moved there, unless it was there or further before.

    Raises:
        StorageError: when others keep moving the alias.
    """

    def change(found: Alias | None) -> Alias:
        if found is None:
            return Alias(version=version, newest=version)
        return found.moved_to(version) if version > found.newest else found

    alias = _change(store, name, change)
    if alias.version != version:
        logger.warning(
            "%s stays at version %d: it has pointed at version %d already, so publishing version %d does not "
            "move it; promote does",
            _uri(store, name),
            alias.version,
            alias.newest,
            version,
        )
    return alias


def take_alias(store: ObjectStore, name: str, version: int, *, judged_against: int) -> Alias:
    """The alias after publishing a version that was held against another: moved there if it points at that other one.

    Args:
        store: of the concept.
        name: the alias.
        version: the version that was published.
        judged_against: the version that the alias pointed at then; 0 when there was no alias.

    Raises:
        ArtifactError: when the alias is damaged.
        StorageError: when others keep moving the alias.
    """

    def change(found: Alias | None) -> Alias:
        if found is None:
            return Alias(version=version, newest=version)
        is_the_same = found.version == judged_against and version > found.newest
        return found.moved_to(version) if is_the_same else found

    return _change(store, name, change)


def set_alias(store: ObjectStore, name: str, version: int) -> Alias:
    """The alias after it was moved to `version`, wherever it pointed before; a damaged one is written anew.

    Raises:
        StorageError: when others keep moving the alias.
    """

    def change(found: Alias | None) -> Alias:
        if found is None:
            return Alias(version=version, newest=version)
        return found if found.version == version else found.moved_to(version)

    try:
        return _change(store, name, change)
    except ArtifactError as error:
        logger.warning("%s; it is written anew", error)
        alias = Alias(version=version, newest=version)
        store.write(alias_key(name), _document(alias))
        return alias


def roll_back_alias(store: ObjectStore, name: str) -> Alias:
    """The alias after it was moved to the version it pointed at before.

    Raises:
        ObjectNotFoundError: when there is no such alias, or nothing before.
        StorageError: when somebody else moves the alias in the meantime.
    """
    seen, _ = _read(store, name)
    if not seen.previous:
        raise ObjectNotFoundError(
            f"{_uri(store, name)} has pointed at version {seen.version} alone: nothing to roll back to"
        )
    wanted = seen.rolled_back()

    def change(found: Alias | None) -> Alias:
        if found not in (seen, wanted):
            raise StorageError(f"{_uri(store, name)} was moved by somebody else just now: look at it and decide again")
        return wanted

    return _change(store, name, change)


def _change(store: ObjectStore, name: str, change: Callable[[Alias | None], Alias]) -> Alias:
    for _ in range(_ATTEMPTS):
        try:
            found, token = _read(store, name)
        except ObjectNotFoundError:
            found, token = None, None
        wanted = change(found)
        if wanted == found:
            return wanted
        try:
            store.write(alias_key(name), _document(wanted), if_version=token, if_absent=token is None)
        except PreconditionError:
            continue
        logger.info("%s points at version %d now", _uri(store, name), wanted.version)
        return wanted
    raise StorageError(
        f"{_uri(store, name)} was moved by others {_ATTEMPTS} times while this step tried to: run it again, "
        "and look for what keeps moving it"
    )


def _document(alias: Alias) -> bytes:
    return to_document(_KIND, {**dataclasses.asdict(alias), "previous": list(alias.previous)})


def _read(store: ObjectStore, name: str) -> tuple[Alias, str]:
    data, token = store.read_versioned(alias_key(name))
    uri = _uri(store, name)
    return record_from(_KIND, Alias, from_document(_KIND, data, uri), uri), token


def _key(name: str) -> str:
    return f"aliases/{name}.json"


def _uri(store: ObjectStore, name: str) -> str:
    return store.uri_of(alias_key(name))

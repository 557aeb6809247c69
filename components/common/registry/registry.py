"""Reading a registry, moving its aliases, and proving that it can be written.

<registry_uri>/<concept>/versions/<n>/...     see `versions.py`
<registry_uri>/<concept>/aliases/<name>.json  see `aliases.py`
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from pathlib import Path

from components.common.errors import (
    ArtifactError,
    InputError,
    ObjectNotFoundError,
    PreconditionError,
    StorageError,
)
from components.common.registry import aliases, versions
from components.common.registry.aliases import Alias
from components.common.registry.entry import MANIFEST, FileRecord, RegistryEntry
from components.common.registry.names import check_alias, check_concept_name
from components.common.storage import ObjectStore, open_store
from components.common.storage.local_files import local_errors
from components.common.storage.store import run_parallel

_OF_KEY = re.compile(r"(?P<concept>[^/]+)/versions/(?P<number>[1-9][0-9]*)/(?P<name>.+)")


def concept_store(registry_uri: str, concept: str) -> ObjectStore:
    """The store of one concept of a registry.

    Raises:
        ConfigError: when `concept` cannot be a concept's name.
    """
    check_concept_name(concept)
    return open_store(f"{registry_uri.rstrip('/')}/{concept}")


def store_of(entry: RegistryEntry) -> ObjectStore:
    """The store of the concept that a version is of."""
    return open_store(entry.uri.removesuffix(f"/{versions.version_key(entry.version)}"))


def list_concepts(registry_uri: str) -> list[str]:
    """The names of the concepts in a registry, sorted; those of which only tombstones are left are none any more."""

    def is_there(concept: str, files: dict[int, set[str]]) -> bool:
        complete = {number for number, names in files.items() if MANIFEST in names}
        is_claimed = any("claim.json" in names for names in files.values())
        return is_claimed or complete > versions.read_tombstones(concept_store(registry_uri, concept)).keys()

    return [concept for concept, files in _files_of_concepts(registry_uri).items() if is_there(concept, files)]


def list_concept_folders(registry_uri: str) -> list[str]:
    """The names of all concepts of which a registry holds anything, sorted; see `list_concepts`."""
    return list(_files_of_concepts(registry_uri))


def _files_of_concepts(registry_uri: str) -> dict[str, dict[int, set[str]]]:
    """The names of the files by version number and concept."""
    found: dict[str, dict[int, set[str]]] = {}
    for match in filter(None, (_OF_KEY.fullmatch(item.key) for item in open_store(registry_uri).list())):
        found.setdefault(match["concept"], {}).setdefault(int(match["number"]), set()).add(match["name"])
    return dict(sorted(found.items()))


def list_versions(registry_uri: str, concept: str) -> list[RegistryEntry]:
    """The published versions of a concept, oldest first; those that are not complete are left out.

    Those whose manifests are damaged are passed over with a warning.
    """
    return versions.read_entries(concept_store(registry_uri, concept))


def list_aliases(registry_uri: str, concept: str) -> dict[str, Alias]:
    """The aliases of a concept by name; damaged ones are passed over with a warning."""
    return aliases.list_aliases(concept_store(registry_uri, concept))


def resolve(registry_uri: str, concept: str, version_or_alias: int | str) -> RegistryEntry:
    """The entry that a version number or an alias stands for.

    Raises:
        ObjectNotFoundError: when there is no such alias or version, or the version is not complete.
        ArtifactError: when its documents are damaged.
    """
    store = concept_store(registry_uri, concept)
    return versions.read_entry(store, _number(store, version_or_alias))


def verify(registry_uri: str, concept: str) -> list[str]:
    """What is damaged of a concept, a sentence each: claims, manifests and files of its versions, and its aliases.

    Every file of every version is read. Versions that are claimed and not published yet are sound so far.

    Raises:
        ConfigError: when `concept` cannot be a concept's name.
        StorageError: when the registry cannot be read.
    """
    store = concept_store(registry_uri, concept)
    damages: list[str] = []
    for number in sorted(set(versions.claimed_numbers(store)) - versions.read_tombstones(store).keys()):
        try:
            versions.read_claim(store, number)
        except (ObjectNotFoundError, ArtifactError) as error:
            damages.append(str(error))
        try:
            entry = versions.read_entry(store, number)
        except ObjectNotFoundError:
            continue
        except ArtifactError as error:
            damages.append(str(error))
            continue
        damages += _damaged_files(entry)
    for name in aliases.alias_names(store):
        try:
            versions.read_entry(store, aliases.read_alias(store, name).version)
        except (ObjectNotFoundError, ArtifactError) as error:
            damages.append(f"alias {name}: {error}")
    return damages


def read_file(entry: RegistryEntry, name: str) -> bytes:
    """The bytes of a version's file, once they were checked against its manifest.

    Raises:
        ArtifactError: when it is missing, damaged, or none of the version's.
    """
    if name not in entry.files:
        raise ArtifactError(
            f"{entry.uri} has no file {name}, expected one as this project publishes it: use another one"
        )
    data = _read_file(store := open_store(entry.uri), name)
    entry.files[name].check(data, store.uri_of(name))
    return data


def _damaged_files(entry: RegistryEntry) -> list[str]:
    """What is wrong with the files of a version, a sentence each."""
    store = open_store(entry.uri)

    def damage(name: str, record: FileRecord) -> str | None:
        try:
            record.check(_read_file(store, name), store.uri_of(name))
        except ArtifactError as error:
            return str(error)
        return None

    return [found for found in run_parallel(damage, entry.files.items()) if found]


def fetch(entry: RegistryEntry, folder: Path) -> Path:
    """The folder, filled with all files of a version after each was checked against the manifest.

    Raises:
        ArtifactError: when a file is missing or damaged; the folder is left as it was.
        InputError: when `folder` is a file or has something in it.
        StorageError: when the files cannot be read, or written there.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"found something at {folder}, expected a folder that is new or empty to download to")
    store = open_store(entry.uri)
    with local_errors(str(folder)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for name, record in entry.files.items():
                target = fresh / name
                target.parent.mkdir(parents=True, exist_ok=True)
                data = _read_file(store, name)
                record.check(data, store.uri_of(name))
                target.write_bytes(data)
            (fresh / MANIFEST).write_bytes(entry.to_bytes())
            fresh.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            os.replace(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def move_alias(registry_uri: str, concept: str, alias: str, version_or_alias: int | str) -> Alias:
    """The alias after it was moved to a version, forwards or backwards, as a person decides.

    Raises:
        ConfigError: when `alias` cannot be an alias.
        ObjectNotFoundError: when there is no such version, or it is not complete.
        StorageError: when others keep moving the alias.
    """
    check_alias(alias)
    store = concept_store(registry_uri, concept)
    entry = versions.read_entry(store, _number(store, version_or_alias))
    moved = aliases.set_alias(store, alias, entry.version)
    versions.read_entry(store, entry.version)  # who deletes it in between looks at the aliases before or after this
    return moved


def rollback(registry_uri: str, concept: str, alias: str) -> Alias:
    """The alias after it was moved back to the version it pointed at before.

    Raises:
        ConfigError: when `alias` cannot be an alias.
        ObjectNotFoundError: when there is no such alias, nothing before, or that version is gone.
        StorageError: when somebody else moves the alias in the meantime.
    """
    check_alias(alias)
    store = concept_store(registry_uri, concept)
    for version in _alias(store, alias).previous[:1]:
        versions.read_entry(store, version)
    return aliases.roll_back_alias(store, alias)


def check_registry(registry_uri: str) -> None:
    """Proves that versions can be published here: writes, compares, overwrites and deletes one small object.

    Raises:
        InputError: when the address is of no known kind.
        StorageError: when the store cannot be written or does not keep conditions, which would lose versions.
    """
    store = open_store(registry_uri)
    key = f"probe-{uuid.uuid4().hex}.json"
    try:
        first = store.write(key, b"1", if_absent=True)
        store.write(key, b"2")
        ignored = _is_written(store, key, b"3", if_absent=True) or _is_written(store, key, b"4", if_version=first)
        store.delete(key)
    except StorageError as error:
        raise StorageError(
            f"the registry {registry_uri} cannot be written: {error}; create the bucket, or allow "
            "this step's account to create, read, overwrite, list and delete objects there"
        ) from error
    if ignored:
        raise StorageError(
            f"the store of the registry {registry_uri} ignores the condition of a write: two publishers "
            "could take each other's version; use Google Cloud Storage, or an S3 server that honours "
            "If-Match and If-None-Match"
        )


def _is_written(
    store: ObjectStore, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False
) -> bool:
    try:
        store.write(key, data, if_version=if_version, if_absent=if_absent)
    except PreconditionError:
        return False
    return True


def _number(store: ObjectStore, version_or_alias: int | str) -> int:
    text = str(version_or_alias)
    if re.fullmatch("[1-9][0-9]*", text):
        return int(text)
    check_alias(text)
    return _alias(store, text).version


def _alias(store: ObjectStore, name: str) -> Alias:
    try:
        return aliases.read_alias(store, name)
    except ObjectNotFoundError:
        known = ", ".join(aliases.list_aliases(store)) or "none"
        raise ObjectNotFoundError(f"found no alias {name!r} of {store.uri}, whose aliases are: {known}") from None


def _read_file(store: ObjectStore, name: str) -> bytes:
    try:
        return store.read(name)
    except ObjectNotFoundError:
        raise ArtifactError(
            f"{store.uri_of(name)} is missing: the version is damaged; publish the same embedding again, which "
            "mends it, or use another one"
        ) from None

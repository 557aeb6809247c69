"""Deletes a version, or a concept with all that was made on the way to it.

Who deletes buries first (see `tombstones.py`) and only then deletes files: a version is there whole or not at all,
whoever publishes or reads at that moment. What lies in the checkpoint store is found by the training keys in the
manifests, so it goes before them: who is stopped on the way does it again and finds all that is left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Collection, Iterable

from components.common.errors import ArtifactError, InputError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.registry import aliases
from components.common.registry.entry import MANIFEST, RegistryEntry
from components.common.registry.registry import concept_store, list_concepts, list_versions
from components.common.registry.tombstones import Tombstone, bury, clear
from components.common.registry.versions import (
    objects_by_version,
    read_entries,
    read_entry,
    read_tombstones,
    version_key,
)
from components.common.run_storage import checkpoints_uri
from components.common.storage import ObjectStore, open_store
from components.common.storage.store import run_parallel
from components.common.training import beside
from components.common.training.checkpoints import CHECKPOINT_KEY

_TRAINING_KEY = re.compile("[0-9a-f]{64}")
_OWN_FOLDERS = ("versions/", "aliases/")
_ATTEMPTS = 10
_SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deletion:
    """What deleting a concept means.

    Attributes:
        concept: its name.
        store: of the concept.
        checkpoints: of the checkpoints, where the storage of runs was named.
        checkpoint_keys: what is deleted there.
        other_keys: what is deleted of the concept's folder beside versions and aliases.
        deleted: what is deleted, a phrase and an address each.
        kept: what belongs to it and stays, and why.
        unknown: what there may be of it where nobody has looked.
    """

    concept: str
    store: ObjectStore
    checkpoints: ObjectStore | None
    checkpoint_keys: tuple[str, ...]
    other_keys: tuple[str, ...]
    deleted: tuple[str, ...]
    kept: tuple[str, ...]
    unknown: tuple[str, ...]


def plan_deletion(registry_uri: str, concept: str, storage_uri: str = "") -> Deletion:
    """What there is of a concept in a registry, and in the storage of its runs; nothing is changed.

    Args:
        registry_uri: the registry.
        concept: the concept's name there.
        storage_uri: what its runs had as `storage_uri`; empty where that is not known.

    Raises:
        ConfigError: when `concept` cannot be a concept's name.
        ObjectNotFoundError: when there is nothing of the concept.
        StorageError: when registry or storage cannot be read.
    """
    store = concept_store(registry_uri, concept)
    entries, tombstones, names = read_entries(store), read_tombstones(store), aliases.alias_names(store)
    folders = {
        number: objects
        for number, objects in objects_by_version(store).items()
        if number not in tombstones or len(objects) > 1
    }
    others = [
        entry
        for other in list_concepts(registry_uri)
        if other != concept
        for entry in list_versions(registry_uri, other)
    ]
    shared = {_training_of(entry): entry for entry in others}
    ever: list[RegistryEntry | Tombstone] = [*entries, *tombstones.values()]
    trainings = sorted({*map(_training_of, ever)} - {""})
    checkpoints = open_store(checkpoints_uri(storage_uri)) if storage_uri else None
    made = {key: _objects_of(checkpoints, key) for key in trainings if checkpoints and key not in shared}
    if not folders and not names and not any(made.values()):
        raise ObjectNotFoundError(f"found nothing of {concept} in the registry {registry_uri}")
    other_keys = [info.key for info in store.list() if not info.key.startswith(_OWN_FOLDERS)]
    runs = sorted({*map(_run_of, ever)} - {""})
    nameless = folders.keys() - tombstones.keys() - {entry.version for entry in entries}
    return Deletion(
        concept=concept,
        store=store,
        checkpoints=checkpoints,
        checkpoint_keys=tuple(key for keys in made.values() for key in keys),
        other_keys=tuple(other_keys),
        deleted=(
            *(
                f"version {number}, {_counted(objects, 'object')}: {store.uri_of(version_key(number))}"
                for number, objects in folders.items()
            ),
            *(f"alias {name}: {store.uri_of(aliases.alias_key(name))}" for name in names),
            *(
                f"{_counted(keys, 'object')} beside them: {store.uri_of(name)}"
                for name, keys in _by_first_part(other_keys).items()
            ),
            *(
                f"training, {_counted(keys, 'object')}: {checkpoints.uri_of(training)}"
                for training, keys in made.items()
                if checkpoints and keys
            ),
        ),
        kept=(
            *(f"training {key}: {_name(shared[key])} was learned in it, too" for key in trainings if key in shared),
            *(f"{_name(entry)}, which started from {concept}" for entry in others if _started_below(entry, store)),
        ),
        unknown=tuple(_unknown(nameless, runs, trainings if checkpoints is None else ())),
    )


def delete_concept(deletion: Deletion) -> None:
    """Deletes what `plan_deletion` has found; tombstones stay, until `collecting` takes them too.

    Raises:
        StorageError: when storage does not do what was asked, or somebody publishes into the concept at the same time;
            doing it again goes on from there.
    """
    store = deletion.store
    if deletion.checkpoints:
        run_parallel(deletion.checkpoints.delete, [(key,) for key in deletion.checkpoint_keys])
    for name in aliases.alias_names(store):
        store.delete(aliases.alias_key(name))
    for number in objects_by_version(store).keys() - read_tombstones(store).keys():
        _bury_whatever_is_there(store, number)
    for objects in objects_by_version(store).values():
        clear(store, objects)
    run_parallel(store.delete, [(key,) for key in deletion.other_keys])
    left = [info.key for info in store.list() if not info.key.endswith(f"/{MANIFEST}")]
    if left:
        raise StorageError(
            f"found {', '.join(map(store.uri_of, left[:_SHOWN]))} after {deletion.concept} was deleted: somebody "
            "writes into it; look for who does, and delete the concept again"
        )


def delete_version(registry_uri: str, concept: str, number: int, *, dry_run: bool = False) -> str:
    """The address of the version that was deleted, or with `dry_run` would be; its training's checkpoints stay.

    Raises:
        ConfigError: when `concept` cannot be a concept's name.
        InputError: when an alias points at it; then it stays.
        ObjectNotFoundError: when there is no such version, or it is not complete.
        ArtifactError: when an alias is damaged, so that nobody knows where it points.
        StorageError: when storage does not do what was asked, or somebody changes the version at the same time.
    """
    store = concept_store(registry_uri, concept)
    key = version_key(number, MANIFEST)
    _check_that_no_alias_points_at(store, number)
    if number in read_tombstones(store) or not store.exists(key):
        read_entry(store, number)  # which says why there is none
    if not dry_run:
        manifest, seen = store.read_versioned(key)
        tombstone = _bury(store, number, if_version=seen)
        try:
            _check_that_no_alias_points_at(store, number)  # somebody may have promoted it before it was buried
        except InputError:
            store.write(key, manifest, if_version=tombstone)
            raise
        clear(store, objects_by_version(store)[number])
    return store.uri_of(version_key(number))


def _check_that_no_alias_points_at(store: ObjectStore, number: int) -> None:
    for name in aliases.alias_names(store):
        if aliases.read_alias(store, name).version == number:
            raise InputError(
                f"version {number} at {store.uri} stays: the alias {name} points at it; promote another version to "
                f"{name} first"
            )


def _bury_whatever_is_there(store: ObjectStore, number: int) -> None:
    """Buries a version that is complete or not, whatever its publisher does meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            version = store.stat(version_key(number, MANIFEST)).version
        except ObjectNotFoundError:
            version = None
        with contextlib.suppress(PreconditionError):
            _bury(store, number, if_version=version)
            return
    raise StorageError(f"{store.uri_of(version_key(number))} was changed by others {_ATTEMPTS} times: delete it again")


def _bury(store: ObjectStore, number: int, *, if_version: str | None) -> str:
    """The storage's version of a tombstone that says what the manifest in its place says."""
    try:
        entry = read_entry(store, number)
    except (ObjectNotFoundError, ArtifactError):
        return bury(store, number, if_version=if_version)
    return bury(store, number, if_version=if_version, training_key=_training_of(entry), run_id=_run_of(entry))


def _objects_of(checkpoints: ObjectStore, training: str) -> list[str]:
    """The keys of a training's checkpoints, and of what lies beside them; of what is called otherwise, none."""
    keys = (info.key for info in checkpoints.list(f"{training}/"))
    return [key for key in keys if CHECKPOINT_KEY.fullmatch(key) or beside.training_of(key)]


def _by_first_part(keys: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(key.partition("/")[0], []).append(key)
    return found


def _unknown(nameless: Collection[int], runs: Collection[str], trainings: Collection[str]) -> Iterable[str]:
    if trainings:
        yield (
            f"checkpoints, curves and previews of {_counted(trainings, 'training')}: say by --storage-uri where the "
            "runs kept them"
        )
    if nameless:
        yield f"the training of version {', '.join(map(str, sorted(nameless)))}, which has no sound manifest"
    if runs:
        yield f"what Kubeflow Pipelines keeps of the runs {', '.join(runs)}"
    yield "the pictures it was learned from; curves in a logging_dir or with a tracker; copies, as on the Hub"


def _training_of(version: RegistryEntry | Tombstone) -> str:
    """The training key of a version; empty where its manifest names none."""
    key = _fact(version, "training_key")
    return key if _TRAINING_KEY.fullmatch(key) else ""


def _run_of(version: RegistryEntry | Tombstone) -> str:
    return _fact(version, "run_id")


def _fact(version: RegistryEntry | Tombstone, name: str) -> str:
    return str(getattr(version, name) if isinstance(version, Tombstone) else version.facts.lineage.get(name, ""))


def _started_below(entry: RegistryEntry, store: ObjectStore) -> bool:
    return str(entry.facts.lineage.get("initializer_embedding", "")).startswith(f"{store.uri}/")


def _name(entry: RegistryEntry) -> str:
    return f"version {entry.version} of {entry.concept}"


def _counted(things: Collection[object], noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"

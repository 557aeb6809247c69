"""Removes what publishers have left behind that never became a version: their claims, and the files beside them.

It is safe beside publishers at work, also one that goes on just now where it stopped days ago:

1. A version is there from when its manifest is, which a publisher writes last and only if there is none. Burying is the
   same write at the same place: storage lets one of the two win.
2. Where the publisher wins, burying fails, and nothing is deleted.
3. Where the collector wins, the publisher's last write fails; it finds the tombstone and publishes again under another
   number. Only then are claim and files deleted: nothing that anybody still writes there is part of a version, and a
   later collection takes it.

So no complete version is ever touched, none is ever torn, and age is a courtesy: who completes a version need not begin
again, for its folder is young. Its age is that of its newest object by the storage's clock, and an old claim is written
again by whoever goes on with it.

Tombstones keep their numbers taken. Only where a concept has nothing else left are they deleted too, once they are old.
A publisher that stood still all that time before its last write would then leave a version without its files, which
`verify` tells: let the age be longer than a step can live.
"""

from __future__ import annotations

import datetime
import logging

from components.common.errors import PreconditionError
from components.common.registry.entry import MANIFEST
from components.common.registry.tombstones import bury, clear
from components.common.registry.versions import objects_by_version, read_tombstones, version_key
from components.common.storage import ObjectInfo, ObjectStore
from components.common.storage.store import run_parallel

logger = logging.getLogger(__name__)

A_DAY = datetime.timedelta(days=1)


def collect_garbage(
    store: ObjectStore,
    *,
    older_than: datetime.timedelta = A_DAY,
    dry_run: bool = False,
    now: datetime.datetime | None = None,
) -> list[str]:
    """The addresses of what was removed of a concept, or with `dry_run` would be: folders of versions, and tombstones.

    Args:
        store: the concept's, `<registry_uri>/<concept>`.
        older_than: age from which on what is incomplete is removed.
        dry_run: remove nothing.
        now: the time to count from, with a time zone; the present if it is not given.

    Raises:
        StorageError: when storage does not do what was asked; the next call goes on from there.
    """
    limit = (now or datetime.datetime.now(datetime.UTC)) - older_than
    folders, buried = objects_by_version(store), read_tombstones(store)
    removed = []
    for number, objects in folders.items():
        if number in buried and len(objects) == 1:
            continue
        is_old = max(_written(info, limit) for info in objects) < limit
        is_garbage = number in buried or (is_old and not _has_manifest(number, objects))
        if is_garbage and (dry_run or _remove(store, number, objects, is_buried=number in buried)):
            removed.append(store.uri_of(version_key(number)))
    left, tombstones = store.list(), {version_key(number, MANIFEST) for number in buried}
    if {info.key for info in left} == tombstones and all(_written(info, limit) < limit for info in left):
        if not dry_run:
            run_parallel(store.delete, [(info.key,) for info in left])
        removed += [store.uri_of(info.key) for info in left]
    return removed


def _remove(store: ObjectStore, number: int, objects: list[ObjectInfo], *, is_buried: bool) -> bool:
    """Whether the folder was removed, but for its tombstone; not when its version was completed just now."""
    if not is_buried:
        try:
            bury(store, number)
        except PreconditionError:
            logger.info("version %d at %s was completed just now: it stays", number, store.uri)
            return False
    clear(store, objects)
    return True


def _has_manifest(number: int, objects: list[ObjectInfo]) -> bool:
    return any(info.key == version_key(number, MANIFEST) for info in objects)


def _written(info: ObjectInfo, otherwise: datetime.datetime) -> datetime.datetime:
    return info.modified or otherwise

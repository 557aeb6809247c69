"""Versions that were given up: a tombstone stands where the manifest would be.

    versions/3/manifest.json   {"format": "textual-inversion/registry-tombstone", ..., "content": {"buried": "..."}}

A version exists from when its manifest is there, and every manifest is written on a condition. So a tombstone at this
key, written on a condition too, decides at once whether a version is there or never will be, whoever else is at work:
see `versions.py` for who completes one, `collecting.py` and `deleting.py` for who buries one. It also keeps the number
taken, so that no address ever comes to mean something else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging

from components.common.errors import ArtifactError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.registry.documents import from_document, record_from, to_document
from components.common.registry.entry import MANIFEST
from components.common.storage import ObjectInfo, ObjectStore
from components.common.storage.store import run_parallel

logger = logging.getLogger(__name__)

_KIND = "registry-tombstone"
_ATTEMPTS = 10


class DeletedVersionError(ObjectNotFoundError):
    """There is a tombstone where the version was."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tombstone:
    """What stands for a version that is gone.

    Attributes:
        buried: when, ISO 8601 in UTC.
        training_key: the training that it was learned in, by which `deleting.py` finds checkpoints; empty when unknown.
        run_id: the run that published it; empty when unknown.
    """

    buried: str
    training_key: str = ""
    run_id: str = ""


def bury(
    store: ObjectStore, number: int, *, if_version: str | None = None, training_key: str = "", run_id: str = ""
) -> str:
    """The storage's version of the tombstone that now stands at a version's manifest.

    Args:
        store: the concept's.
        number: the version's.
        if_version: the manifest that it replaces; without one there must be none.
        training_key: what the manifest says, where it can be read.
        run_id: the same.

    Raises:
        PreconditionError: when there is another manifest, or there is one; then nothing was changed.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    tombstone = Tombstone(buried=now, training_key=training_key, run_id=run_id)
    data = to_document(_KIND, dataclasses.asdict(tombstone))
    return store.write(f"versions/{number}/{MANIFEST}", data, if_version=if_version, if_absent=if_version is None)


def tombstone_in(data: bytes, uri: str) -> Tombstone | None:
    """The tombstone that was read at the address of a manifest; None for anything else."""
    try:
        return record_from(_KIND, Tombstone, from_document(_KIND, data, uri), uri)
    except ArtifactError:
        return None


def clear(store: ObjectStore, objects: list[ObjectInfo]) -> list[str]:
    """The keys of what was deleted of a buried version: all of its objects but for the tombstone.

    Nothing that somebody still writes there counts any more, so no condition is needed.
    """
    keys = [info.key for info in objects if not info.key.endswith(f"/{MANIFEST}")]
    run_parallel(store.delete, [(key,) for key in keys])
    return keys


def write_or_mend(store: ObjectStore, key: str, data: bytes) -> bool:
    """Makes the object, or where it has other content writes it again, with a warning; False where a tombstone stands.

    It is replaced only while it has the content that was seen, so that a tombstone that comes in between stays.

    Raises:
        StorageError: when others keep changing the object.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(PreconditionError):
            store.write(key, data, if_absent=True)
            return True
        with contextlib.suppress(ObjectNotFoundError, PreconditionError):
            found, version = store.read_versioned(key)
            if found == data:
                return True
            if tombstone_in(found, store.uri_of(key)):
                return False
            logger.warning("%s was damaged: it is written again", store.uri_of(key))
            store.write(key, data, if_version=version)
            return True
    raise StorageError(f"{store.uri_of(key)} was changed by others {_ATTEMPTS} times: look for what writes it")

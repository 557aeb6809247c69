"""A part of a store as a store of its own: opening one anew costs its clients and their credentials."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from components.common.storage.store import ObjectInfo, ObjectInfos, ObjectStore, checked_key


class StoreBelow(ObjectStore):
    """The objects of another store below a prefix; see `ObjectStore` for what the methods do."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        """Takes the store, and what its keys begin with before a `/`.

        Raises:
            InputError: if the prefix cannot be a key.
        """
        super().__init__(store.uri_of(prefix))
        self._store, self._prefix = store, prefix

    def uri_of(self, key: str) -> str:
        """See `ObjectStore.uri_of`."""
        return self._store.uri_of(self._full(key))

    def read_versioned(self, key: str) -> tuple[bytes, str]:
        """See `ObjectStore.read_versioned`."""
        return self._store.read_versioned(self._full(key))

    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.write`."""
        return self._store.write(self._full(key), data, if_version=if_version, if_absent=if_absent)

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        return self._named_here(self._store.stat(self._full(key)))

    def list(self, prefix: str = "") -> ObjectInfos:
        """See `ObjectStore.list`."""
        return [self._named_here(info) for info in self._store.list(f"{self._prefix}/{prefix}")]

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._store.delete(self._full(key))

    def upload_file(self, path: Path, key: str, *, if_absent: bool = False) -> None:
        """See `ObjectStore.upload_file`."""
        self._store.upload_file(path, self._full(key), if_absent=if_absent)

    def download_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.download_file`."""
        self._store.download_file(self._full(key), path)

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}"

    def _named_here(self, info: ObjectInfo) -> ObjectInfo:
        return dataclasses.replace(info, key=info.key[len(self._prefix) + 1 :])

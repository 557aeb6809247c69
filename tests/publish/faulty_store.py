"""A store whose user dies: what a killed pod leaves behind is what it had written until then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from components.common.storage import ObjectInfo, ObjectStore


class Killed(BaseException):
    """The process ends here; nothing of ours may catch it."""


class MortalStore(ObjectStore):
    """The real `store`, until `writes` objects are written; the next write kills its caller instead."""

    def __init__(self, store: ObjectStore, *, writes: int) -> None:
        super().__init__(store.uri)
        self._store = store
        self._left = writes

    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        if self._left == 0:
            raise Killed(key)
        version = self._store.write(key, data, if_version=if_version, if_absent=if_absent)
        self._left -= 1
        return version

    def uri_of(self, key: str) -> str:
        return self._store.uri_of(key)

    def read_versioned(self, key: str) -> tuple[bytes, str]:
        return self._store.read_versioned(key)

    def stat(self, key: str) -> ObjectInfo:
        return self._store.stat(key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def upload_file(self, path: Path, key: str, *, if_absent: bool = False) -> None:
        if self._left == 0:
            raise Killed(key)
        self._store.upload_file(path, key, if_absent=if_absent)
        self._left -= 1

    def download_file(self, key: str, path: Path) -> None:
        self._store.download_file(key, path)


class OvertakenStore(MortalStore):
    """The real `store`, where somebody else does something just before the change number `at`: a write or a delete."""

    def __init__(self, store: ObjectStore, *, at: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(store, writes=10**6)
        self._before = at
        self._meanwhile = meanwhile

    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        self._count()
        return super().write(key, data, if_version=if_version, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    @property
    def was_overtaken(self) -> bool:
        """Whether there was a change of that number."""
        return self._before < 0

    def _count(self) -> None:
        if self._before == 0:
            self._meanwhile()
        self._before -= 1

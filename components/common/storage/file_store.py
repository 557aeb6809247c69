"""Objects as files of a local folder, which may be a volume shared by several pods."""

from __future__ import annotations

import datetime
import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from components.common.errors import InputError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.storage.addresses import local_uri
from components.common.storage.local_files import (
    RESERVED_PREFIX,
    files_below,
    flush_to_disk,
    local_errors,
    locked_file,
    readable_name,
    temporary_beside,
)
from components.common.storage.store import ObjectInfo, ObjectInfos, ObjectStore, check_condition, checked_key

logger = logging.getLogger(__name__)

HASHED_BYTES = 2**20
"""Up to here a version is the content's digest; above, size and time: listing must not read gigabytes."""
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NAMES_SHOWN = 5
_LOCK_NAME = RESERVED_PREFIX + "lock"


class FileStore(ObjectStore):
    """The files below one folder, whose writers exclude each other by a lock file that lists never show."""

    def __init__(self, folder: Path) -> None:
        """Takes an absolute folder; it is made by the first write."""
        super().__init__(local_uri(folder))
        self.folder = folder

    def path_of(self, key: str) -> Path:
        """The file that holds an object.

        Raises:
            InputError: if the key leaves the folder or is the name of a temporary or lock file.
        """
        if any(part.startswith(RESERVED_PREFIX) for part in checked_key(key).split("/")):
            raise InputError(f"found the object key {key!r}: names that begin with {RESERVED_PREFIX} are reserved")
        return self.folder / key

    def uri_of(self, key: str) -> str:
        """The `file://` URI of one object, percent-encoded."""
        return local_uri(self.path_of(key))

    def read_versioned(self, key: str) -> tuple[bytes, str]:
        """See `ObjectStore.read_versioned`."""
        with local_errors(self.uri_of(key)), self._existing(key).open("rb") as file:
            data = file.read()
            return data, _version(os.fstat(file.fileno()), lambda: data)

    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.write`."""
        check_condition(if_version, if_absent)
        return self._put(key, lambda temporary: temporary.write_bytes(data), if_version, if_absent)

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        with local_errors(self.uri_of(key)):
            return _info(key, self._existing(key))

    def list(self, prefix: str = "") -> ObjectInfos:
        """See `ObjectStore.list`; files that vanish meanwhile are left out.

        Links that lead nowhere are refused; hidden ones, as editors make for locks, are left out with a warning.
        """
        start = self.folder / checked_key(prefix.rpartition("/")[0]) if "/" in prefix else self.folder
        found, dead = [], []
        with local_errors(self.uri):
            for path in files_below(start):
                key = path.relative_to(self.folder).as_posix()
                if key.startswith(prefix):
                    try:
                        found.append(_info(key, path))
                    except OSError as error:
                        if error.errno not in _NOWHERE:
                            raise
                        if path.is_symlink():
                            dead.append(key)
        self._tell_of_dead_links(dead)
        return sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`; the folders stay."""
        path = self.path_of(key)
        if not path.parent.is_dir():
            return
        with local_errors(self.uri_of(key)), locked_file(path.parent / _LOCK_NAME):
            path.unlink(missing_ok=True)

    def upload_file(self, path: Path, key: str, *, if_absent: bool = False) -> None:
        """See `ObjectStore.upload_file`."""
        if not path.is_file():
            raise InputError(f"found no file {path} to upload to {self.uri_of(key)}")
        self._put(key, lambda target: _copy(path, target), None, if_absent)

    def download_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.download_file`."""
        with local_errors(self.uri_of(key)), temporary_beside(path) as temporary:
            _copy(self._existing(key), temporary)
            flush_to_disk(temporary)
            os.replace(temporary, path)

    def _tell_of_dead_links(self, keys: Sequence[str]) -> None:
        hidden = [key for key in keys if any(part.startswith(".") for part in key.split("/"))]
        if hidden:
            logger.warning("%s: left out links that lead nowhere: %s", self.uri, self._links(hidden))
        if seen := [key for key in keys if key not in hidden]:
            raise StorageError(
                f"{self.uri}: found {len(seen)} symbolic links that lead nowhere, expected files:"
                f" {self._links(seen)}: bring back what they point to, or remove them"
            )

    def _links(self, keys: Sequence[str]) -> str:
        shown = sorted(keys)[:_NAMES_SHOWN]
        links = [f"{readable_name(key)} -> {readable_name((self.folder / key).readlink())}" for key in shown]
        return ", ".join(links) + (f" and {len(keys) - len(shown)} more" if len(keys) > len(shown) else "")

    def _existing(self, key: str) -> Path:
        path = self.path_of(key)
        if not path.is_file():
            raise ObjectNotFoundError(f"{self.uri_of(key)}: there is no such file")
        return path

    def _put(self, key: str, fill: Callable[[Path], object], if_version: str | None, if_absent: bool) -> str:
        path = self.path_of(key)
        with local_errors(self.uri_of(key)), temporary_beside(path) as temporary:
            fill(temporary)
            flush_to_disk(temporary)
            version = _info(key, temporary).version
            with locked_file(path.parent / _LOCK_NAME):
                if if_absent and path.exists():
                    raise PreconditionError(f"{self.uri_of(key)}: exists already, and was to be made")
                if if_version is not None and (found := _version_or_none(path)) != if_version:
                    raise PreconditionError(
                        f"{self.uri_of(key)}: found version {found}, expected {if_version}: somebody else changed it"
                    )
                os.replace(temporary, path)
            return version


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    if source.stat().st_size != target.stat().st_size:
        raise StorageError(f"{source} changed while it was copied: run the step again when nothing writes to it")


def _version(status: os.stat_result, content: Callable[[], bytes]) -> str:
    if status.st_size > HASHED_BYTES:
        return f"{status.st_size:x}-{status.st_mtime_ns:x}"
    return hashlib.sha256(content()).hexdigest()


def _info(key: str, path: Path) -> ObjectInfo:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        modified = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)
        return ObjectInfo(key=key, size=status.st_size, version=_version(status, file.read), modified=modified)


def _version_or_none(path: Path) -> str | None:
    return _info("", path).version if path.exists() else None

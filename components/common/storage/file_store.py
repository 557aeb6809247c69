"""Objects as files of a local folder, which may be a volume shared by several pods."""

from __future__ import annotations

import datetime
import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from components.common.errors import InputError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.storage.addresses import local_uri
from components.common.storage.local_files import (
    RESERVED_PREFIX,
    check_stays_within,
    files_below,
    flush_to_disk,
    local_errors,
    locked_file,
    open_regular,
    readable_name,
    temporary_beside,
)
from components.common.storage.store import ObjectInfo, ObjectInfos, ObjectStore, check_condition, checked_key, is_key

logger = logging.getLogger(__name__)

HASHED_BYTES = 2**20
"""Up to here a version is the content's digest; above, size and time: listing must not read gigabytes."""
LARGEST_READ = 2**30
"""Bytes of a file that are read into memory; a larger one can only be copied."""
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NAMES_SHOWN = 5
_COPIED_BYTES = 2**20
_LOCK_NAME = RESERVED_PREFIX + "lock"


class FileStore(ObjectStore):
    """The files below one folder, whose writers exclude each other by a lock file that lists never show.

    The folder may be a link, and links below it may lead to other places in it, but not out of it; see `open_regular`.
    """

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
        with local_errors(self.uri_of(key)), self._opened(key) as file:
            status = os.fstat(file.fileno())
            if status.st_size > LARGEST_READ:
                found = f"{self.uri_of(key)} has {status.st_size} bytes"
                raise StorageError(f"{found}, expected at most {LARGEST_READ}: is it the right file?")
            data = file.read(status.st_size + 1)
            if len(data) != status.st_size:
                raise _changed(self.uri_of(key), "read")
            return data, _version(status, lambda: data)

    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.write`."""
        check_condition(if_version, if_absent)
        return self._put(key, lambda temporary: temporary.write_bytes(data), if_version, if_absent)

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        with local_errors(self.uri_of(key)), self._opened(key) as file:
            return _info(key, file)

    def local_file(self, key: str) -> Path:
        """The path, free of links, of the file that holds an object.

        Raises:
            ObjectNotFoundError: if there is no such object.
        """
        with local_errors(self.uri_of(key)), self._opened(key):
            return Path(os.path.realpath(self.path_of(key)))

    def list(self, prefix: str = "") -> ObjectInfos:
        """See `ObjectStore.list`; files that vanish meanwhile are left out.

        Links that lead nowhere or out of the folder, and what is no regular file, are refused; hidden ones, as editors
        make for locks, are left out with a warning, and so are names that are no keys.
        """
        start = self.folder / checked_key(prefix.rpartition("/")[0]) if "/" in prefix else self.folder
        check_stays_within(start, self.folder)
        found, strange = [], dict[str, str]()
        with local_errors(self.uri):
            for path in files_below(start, self.folder):
                key = path.relative_to(self.folder).as_posix()
                if not key.startswith(prefix):
                    continue
                if not is_key(key):
                    logger.warning("%s: left out %r: a name with a control character: rename the file", self.uri, key)
                    continue
                try:
                    with open_regular(path, self.folder) as file:
                        found.append(_info(key, file))
                except StorageError as error:
                    strange[key] = str(error)
                except OSError as error:
                    if error.errno not in _NOWHERE:
                        raise
                    if path.is_symlink():
                        strange[key] = ""
        self._tell_of_strange_files(strange)
        return sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`; the folders stay."""
        path = self.path_of(key)
        check_stays_within(path.parent, self.folder)
        if not path.parent.is_dir():
            return
        with local_errors(self.uri_of(key)), locked_file(path.parent / _LOCK_NAME):
            path.unlink(missing_ok=True)

    def upload_file(self, path: Path, key: str, *, if_absent: bool = False) -> None:
        """See `ObjectStore.upload_file`."""
        if not path.is_file():
            raise InputError(f"found no file {path} to upload to {self.uri_of(key)}")
        with open_regular(path) as file:
            self._put(key, lambda target: _copy(path, file, target), None, if_absent)

    def download_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.download_file`."""
        with local_errors(self.uri_of(key)), temporary_beside(path) as temporary:
            with self._opened(key) as file:
                _copy(self.path_of(key), file, temporary)
            flush_to_disk(temporary)
            os.replace(temporary, path)

    def _tell_of_strange_files(self, strange: Mapping[str, str]) -> None:
        """Given what is wrong with each file by key; empty for a link that leads nowhere."""
        hidden = [key for key in strange if any(part.startswith(".") for part in key.split("/"))]
        if dead := [key for key in hidden if not strange[key]]:
            logger.warning("%s: left out links that lead nowhere: %s", self.uri, self._links(dead))
        for key in hidden:
            if strange[key]:
                logger.warning("%s: left out: %s", self.uri, strange[key])
        seen = sorted(strange.keys() - set(hidden))
        problems = [strange[key] for key in seen if strange[key]][:_NAMES_SHOWN]
        if dead := [key for key in seen if not strange[key]]:
            problems.append(
                f"{self.uri}: found {len(dead)} symbolic links that lead nowhere, expected files: {self._links(dead)}:"
                " bring back what they point to, or remove them"
            )
        if problems:
            raise StorageError(*problems)

    def _links(self, keys: Sequence[str]) -> str:
        shown = sorted(keys)[:_NAMES_SHOWN]
        links = [f"{readable_name(key)} -> {readable_name((self.folder / key).readlink())}" for key in shown]
        return ", ".join(links) + (f" and {len(keys) - len(shown)} more" if len(keys) > len(shown) else "")

    def _opened(self, key: str) -> BinaryIO:
        path = self.path_of(key)
        if path.is_dir() or not path.exists():
            raise ObjectNotFoundError(f"{self.uri_of(key)}: there is no such file")
        return open_regular(path, self.folder)

    def _put(self, key: str, fill: Callable[[Path], object], if_version: str | None, if_absent: bool) -> str:
        path = self.path_of(key)
        check_stays_within(path.parent, self.folder)
        with local_errors(self.uri_of(key)), temporary_beside(path) as temporary:
            fill(temporary)
            flush_to_disk(temporary)
            version = _version_of(temporary)
            with locked_file(path.parent / _LOCK_NAME):
                if if_absent and path.exists():
                    raise PreconditionError(f"{self.uri_of(key)}: exists already, and was to be made")
                if if_version is not None and (found := _version_of(path) if path.exists() else None) != if_version:
                    raise PreconditionError(
                        f"{self.uri_of(key)}: found version {found}, expected {if_version}: somebody else changed it"
                    )
                os.replace(temporary, path)
            return version


def _copy(path: Path, source: BinaryIO, target: Path) -> None:
    """Copies the open file of a path."""
    expected = os.fstat(source.fileno()).st_size
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, _COPIED_BYTES)
    if target.stat().st_size != expected:
        raise _changed(readable_name(path), "copied")


def _changed(what: str, done: str) -> StorageError:
    return StorageError(f"{what} changed while it was {done}: run the step again when nothing writes to it")


def _version(status: os.stat_result, content: Callable[[], bytes]) -> str:
    if status.st_size > HASHED_BYTES:
        return f"{status.st_size:x}-{status.st_mtime_ns:x}"
    return hashlib.sha256(content()).hexdigest()


def _info(key: str, file: BinaryIO) -> ObjectInfo:
    status = os.fstat(file.fileno())
    modified = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)
    version = _version(status, lambda: file.read(HASHED_BYTES + 1))
    return ObjectInfo(key=key, size=status.st_size, version=version, modified=modified)


def _version_of(path: Path) -> str:
    with open_regular(path) as file:
        return _info("", file).version

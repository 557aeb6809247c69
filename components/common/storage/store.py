"""The interface that every kind of object storage is used through."""

from __future__ import annotations

import abc
import concurrent.futures
import datetime
import logging
import mimetypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from components.common.errors import InputError, ObjectNotFoundError
from components.common.storage.local_files import files_below, local_errors, open_regular, readable_name

logger = logging.getLogger(__name__)

FOLDER_WORKERS = 8
"""Files of a folder that are transferred at the same time."""
_NAMES_SHOWN = 5

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """What a store says about one object without giving its content.

    Attributes:
        key: name below the store's URI, `/`-separated.
        size: bytes.
        version: opaque token that changes when the object is overwritten: a gs:// generation, an s3:// ETag,
            a digest of a local file.
        modified: when it was written, with a time zone, by the store's clock; None where the source does not say.
            No part of what makes two infos equal.
    """

    key: str
    size: int
    version: str
    modified: datetime.datetime | None = field(default=None, compare=False)


ObjectInfos = list[ObjectInfo]
"""What `ObjectStore.list` gives; inside the class the name `list` is the method's."""


class ObjectStore(abc.ABC):
    """The objects below one URI: a bucket and a prefix, or a local folder.

    Keys are relative and `/`-separated; a key that would leave the prefix is an `InputError`. Every method
    raises `StorageError` when storage does not do what was asked, and tries again first where that can help.
    Objects appear whole or not at all. A store may be used from several threads; a forked process opens its
    own.
    """

    def __init__(self, uri: str) -> None:
        """Remembers the URI; a trailing slash changes nothing."""
        self.uri = uri.rstrip("/") if not uri.endswith("://") else uri

    def __repr__(self) -> str:
        """The class and the URI."""
        return f"{type(self).__name__}({self.uri!r})"

    def uri_of(self, key: str) -> str:
        """The address of one object."""
        return f"{self.uri}/{checked_key(key)}"

    @abc.abstractmethod
    def read_versioned(self, key: str) -> tuple[bytes, str]:
        """The content of an object and the version that has this content.

        Raises:
            ObjectNotFoundError: if there is no such object.
        """

    def read(self, key: str) -> bytes:
        """The content of an object.

        Raises:
            ObjectNotFoundError: if there is no such object.
        """
        return self.read_versioned(key)[0]

    @abc.abstractmethod
    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        """The version of the object now that it has the content `data`.

        With `if_version` the object is replaced only while it has that version, with `if_absent` it is only
        made. Of several writers that ask for the same, one wins. When an answer was lost and the object has
        just the content that was to be written, it counts as one's own: content that must belong to one
        writer needs something in it that the others do not write. Conditional writes are meant for small
        objects (at most 8 MiB).

        Raises:
            PreconditionError: if the object changed, exists already or is gone.
        """

    @abc.abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Size and version of an object.

        Raises:
            ObjectNotFoundError: if there is no such object.
        """

    def exists(self, key: str) -> bool:
        """Whether there is an object of this name."""
        try:
            self.stat(key)
        except ObjectNotFoundError:
            return False
        return True

    @abc.abstractmethod
    def list(self, prefix: str = "") -> ObjectInfos:
        """Every object whose key begins with the text `prefix` (`"a"` finds `ab/c`), sorted by key."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Removes an object; one that is absent is fine."""

    @abc.abstractmethod
    def upload_file(self, path: Path, key: str, *, if_absent: bool = False) -> None:
        """Makes an object from a local file of any size, checked by size and the provider's checksum.

        Raises:
            InputError: if there is no such file.
            PreconditionError: with `if_absent`, if the object exists already.
        """

    @abc.abstractmethod
    def download_file(self, key: str, path: Path) -> None:
        """Makes a local file from an object; it appears whole, checked by size and the provider's checksum.

        Raises:
            ObjectNotFoundError: if there is no such object.
        """

    def upload_folder(self, folder: Path, prefix: str) -> None:
        """Makes `prefix/...` from every file of a local folder; other objects that are there stay.

        Raises:
            InputError: if there is no such folder, or a link in it leads nowhere.
            StorageError: if a link leads out of the folder, or something in it is no regular file.
        """
        if not folder.is_dir():
            raise InputError(f"found no folder {folder} to upload to {self.uri}/{prefix}")
        with local_errors(str(folder)):
            files = sorted(files_below(folder))
        for path in filter(Path.exists, files):  # of links that lead nowhere the upload tells
            with local_errors(str(path)):
                open_regular(path, folder).close()
        keys = [_below(prefix, path.relative_to(folder).as_posix()) for path in files]
        run_parallel(self.upload_file, zip(files, keys, strict=True))

    def download_folder(self, prefix: str, folder: Path) -> None:
        """Makes `folder/...` from every object below `prefix/`; other files that are there stay.

        Raises:
            ObjectNotFoundError: if there is no object below `prefix/`.
        """
        start = _below(prefix, "")
        keys = [info.key for info in self.list(start)]
        if not keys:
            raise ObjectNotFoundError(f"{self.uri}/{start}: there is no object below this address")
        run_parallel(self.download_file, [(key, folder / checked_key(key[len(start) :])) for key in keys])


class BucketStore(ObjectStore):
    """A store on a bucket, where the full name of an object is the URI's prefix and the key."""

    def __init__(self, uri: str) -> None:
        """Splits the URI.

        Raises:
            InputError: if the URI names no bucket.
        """
        super().__init__(uri)
        self.bucket_name, _, prefix = self.uri.partition("://")[2].partition("/")
        if not self.bucket_name:
            raise InputError(
                f"found {uri!r}, which names no bucket: expected {uri.partition('://')[0]}://bucket/prefix"
            )
        self.prefix = f"{checked_key(prefix)}/" if prefix else ""

    def full_name(self, key: str) -> str:
        """The object's name in its bucket.

        Raises:
            InputError: if the key is none, or no UTF-8.
        """
        if readable_name(key) != key:
            raise InputError(
                f"found the name {readable_name(key)}, expected UTF-8, as in every bucket: rename the file"
            )
        return self.prefix + checked_key(key)

    def listed(self, infos: Iterable[ObjectInfo]) -> ObjectInfos:
        """What a list shows of the objects that the bucket names, sorted by key.

        Left out are the empty objects that consoles make to show a folder, and, with a warning, objects whose
        names are no keys: a bucket takes names with empty or `..` parts, which mean something else in a folder.
        """
        found, strange = [], []
        for info in infos:
            if is_key(info.key):
                found.append(info)
            elif info.size > 0 or not (self.prefix + info.key).endswith("/"):
                strange.append(self.prefix + info.key)
        if strange:
            more = f" and {len(strange) - _NAMES_SHOWN} more" if len(strange) > _NAMES_SHOWN else ""
            logger.warning(
                "%s: left out %s%s: a name with an empty, '.' or '..' part, a slash at its end or a control character"
                " cannot be used here: rename the object",
                self.uri,
                ", ".join(map(repr, sorted(strange)[:_NAMES_SHOWN])),
                more,
            )
        return sorted(found, key=lambda info: info.key)


def checked_key(key: str) -> str:
    """The key itself, when it stays below the store's URI.

    Raises:
        InputError: if the key is empty, absolute, has an empty, `.` or `..` part, or a control character.
    """
    if not is_key(key):
        raise InputError(f"found the object key {key!r}, expected a relative name such as folder/name, without '..'")
    return key


def is_key(key: str) -> bool:
    """Whether a name can be an object's key."""
    return all(part not in ("", ".", "..") for part in key.split("/")) and all(ord(letter) >= 32 for letter in key)


def check_condition(if_version: str | None, if_absent: bool) -> None:
    """Refuses a write that is to replace one version and to find nothing.

    Raises:
        ValueError: if both conditions are given.
    """
    if if_version is not None and if_absent:
        raise ValueError("if_version and if_absent exclude each other")


def media_type(key: str) -> str:
    """The MIME type that a browser should see, from the key's ending."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"


def run_parallel(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], *, workers: int = FOLDER_WORKERS
) -> list[Result]:
    """What `function` returns for each tuple of arguments, in order; the first failure stops the rest."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        calls = [pool.submit(function, *each) for each in arguments]
        try:
            for call in concurrent.futures.as_completed(calls):
                call.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [call.result() for call in calls]


def _below(prefix: str, name: str) -> str:
    prefix = prefix.strip("/")
    return f"{prefix}/{name}" if prefix else name

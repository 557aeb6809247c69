"""Files that appear whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from components.common.errors import ObjectNotFoundError, StorageError

RESERVED_PREFIX = ".textual-inversion-"
"""How the names of temporary and lock files begin; no object has such a name."""


def readable_name(name: str | Path) -> str:
    r"""A file's name as text: bytes that are no UTF-8, which Python keeps as surrogates, are written as `\xe4`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A name for a file to move to `path`, in the same folder; what is left at the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{RESERVED_PREFIX}{os.getpid()}-{secrets.token_hex(8)}.part"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Returns when the content of a file is on the disk, so that a rename cannot come before it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Holds a lock against threads and processes on the file `path`, made if absent, never removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:  # opened for writing: NFS gives exclusive locks to no other handle
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back, as the end of the process does


@contextlib.contextmanager
def local_errors(uri: str) -> Iterator[None]:
    """Turns an OSError of the local file system into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise local_problem(uri, error) from error


def local_problem(uri: str, error: OSError) -> StorageError:
    """The error to raise for a failure of the local file system while working on `uri`."""
    name = readable_name(error.filename) if error.filename else ""
    where = f"{uri}: {error.strerror or error}" + (f" ({name})" if name else "")
    match error.errno:
        case errno.ENOENT if not name:  # what tempfile says
            return StorageError(f"{where}: set TMPDIR to a folder that can be written")
        case errno.ENOENT:
            return ObjectNotFoundError(f"{uri}: there is no such file" + ("" if name in uri else f" ({name})"))
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageError(f"{where}: give the user that runs this step (uid {os.getuid()}) access to it")
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return StorageError(f"{where}: free some space, or point the address to a larger volume")
        case errno.EISDIR | errno.ENOTDIR | errno.EEXIST:
            return StorageError(f"{where}: a file and a folder have the same name; remove one or rename the key")
        case _:
            return StorageError(where)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, also through links, but no temporary or lock files; links that lead nowhere too.

    Raises:
        OSError: if a folder cannot be read. One that is not there, or vanishes meanwhile, has no files.
    """
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_unless_absent):
        here = os.path.realpath(where) + os.sep
        folders[:] = [
            name for name in folders if not here.startswith(os.path.realpath(os.path.join(where, name)) + os.sep)
        ]
        yield from (Path(where, name) for name in files if not name.startswith(RESERVED_PREFIX))


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error

"""Files that appear whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from components.common.errors import ConfigError, ObjectNotFoundError, StorageError

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
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """Keeps other processes out of a folder, made if need be, that they enter by the same lock.

    Args:
        folder: the folder; its lock is the file of the name `.textual-inversion-lock` in it, never removed.
        what: what works in the folder, for the message of a second process that would.

    Raises:
        ConfigError: when another process is in it; says which.
        OSError: when the folder cannot be made or its lock cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{RESERVED_PREFIX}lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "a process that has just begun"
            raise ConfigError(
                f"found another {what} at work in {readable_name(folder)}: {holder}: wait for its end, stop it, or "
                "give another folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@contextlib.contextmanager
def local_errors(uri: str) -> Iterator[None]:
    """Turns an OSError of the local file system into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise local_problem(uri, error) from error


def local_problem(uri: str, error: OSError) -> StorageError:
    """The error to raise for a failure of the local file system while working on `uri`."""
    where = f"{uri}: {error.strerror or error}" + (f" ({readable_name(error.filename)})" if error.filename else "")
    match error.errno:
        case errno.ENOENT:
            return ObjectNotFoundError(f"{uri}: there is no such file")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageError(f"{where}: give the user that runs this step (uid {os.getuid()}) access to it")
        case errno.ENOSPC | errno.EDQUOT:
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

"""Files that appear whole or not at all, are opened with care, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import logging
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from components.common.errors import ConfigError, ObjectNotFoundError, StorageError

logger = logging.getLogger(__name__)

RESERVED_PREFIX = ".textual-inversion-"
"""How the names of temporary and lock files begin; no object has such a name."""
_TEMPORARY = re.compile(rf"{re.escape(RESERVED_PREFIX)}(?:(?P<place>[0-9a-z]+)-(?P<pid>\d+)-)?.*\.part")
_ABANDONED_SECONDS = 24 * 3600.0

_OPEN_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK  # a FIFO would wait for somebody who writes
_HUB_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")


def readable_name(name: str | Path) -> str:
    r"""A file's name as text: bytes that are no UTF-8, which Python keeps as surrogates, are written as `\xe4`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A name for a file to move to `path`, in the same folder; what is left at the end is removed.

    So is, once in each folder, what processes that are gone have left: those of this machine, and any that nobody has
    written to for a day.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    temporary = path.parent / f"{RESERVED_PREFIX}{_place()}-{os.getpid()}-{secrets.token_hex(8)}.part"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _remove_abandoned(folder: Path) -> None:
    for entry in list(os.scandir(folder)):
        found = _TEMPORARY.fullmatch(entry.name)
        if found and _is_abandoned(entry, found["place"], found["pid"]):
            with contextlib.suppress(OSError):  # another process removes it, too, or it is somebody else's
                os.unlink(entry)
                logger.info("removed %s, which a process that is gone has left", entry.path)


def _is_abandoned(entry: os.DirEntry[str], place: str | None, pid: str | None) -> bool:
    try:
        if entry.stat(follow_symlinks=False).st_mtime < time.time() - _ABANDONED_SECONDS:
            return True
        if place == _place() and pid:
            os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it vanished, or the process is somebody else's
        return False
    return False


@functools.cache
def _place() -> str:
    """Where a process number means this process: since which start of the machine, and in which container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
        return f"{boot}{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:  # no Linux: nobody can tell
        return secrets.token_hex(8)


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
            raise ConfigError(
                f"found another {what} at work in {readable_name(folder)}: {_holder(file)}: wait for its end, stop it, "
                "or give another folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _holder(file: TextIO) -> str:
    """Who has the lock, which writes its name as soon as it has it: looked for during a second."""
    for _ in range(10):
        file.seek(0)
        if holder := file.read(200).strip():
            return holder
        time.sleep(0.1)
    return "a process that has just begun"


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


def open_regular(path: Path, within: Path | None = None) -> BinaryIO:
    """A regular file, opened for reading; where a folder `within` is given, one that lies in it.

    Links are followed as long as they stay in the folder, whose own path may be a link. In a cache of the Hugging Face
    Hub the blobs that a snapshot's links lead to belong to it. What is open is what was checked, whoever changes the
    folder meanwhile.

    Raises:
        StorageError: if it is a folder, a FIFO, a socket or a device, or a link leads out of the folder.
        OSError: if it cannot be opened.
    """
    status = os.stat(path)
    real = Path(os.path.realpath(path))
    home = _home_of(real, within)
    if within is not None and home is None:
        raise StorageError(
            f"{readable_name(path)} leads out of {readable_name(within)}, to {readable_name(real)}: put a copy there"
            " instead of the link"
        )
    _check_regular(path, status)
    descriptor = os.open(path, _OPEN_FILE) if home is None else _open_without_links(home, real)
    try:
        _check_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_stays_within(path: Path, within: Path) -> None:
    """Refuses a path, of a file that may be absent, that leads out of a folder through links.

    Raises:
        StorageError: if it does.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(within)):
        raise StorageError(
            f"{readable_name(path)} leads out of {readable_name(within)}, to {readable_name(real)}: make it a folder"
            " instead of a link"
        )


def _home_of(real: Path, within: Path | None) -> Path | None:
    """The real folder that holds a real path: `within`, or the blobs that its links may lead to; None for neither."""
    if within is None:
        return None
    root = Path(os.path.realpath(within))
    blobs = [
        Path(os.path.realpath(parent.parent / "blobs"))
        for parent in root.parents
        if parent.name == "snapshots" and _HUB_REPOSITORY.fullmatch(parent.parent.name)
    ]
    return next((home for home in (root, *blobs) if real.is_relative_to(home)), None)


def _open_without_links(home: Path, real: Path) -> int:
    *folders, name = real.relative_to(home).parts
    folder = os.open(home, _OPEN_FOLDER)
    try:
        for part in folders:
            inner = os.open(part, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _OPEN_FILE | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    found = kinds.get(stat.S_IFMT(status.st_mode), "a device")
    raise StorageError(f"{readable_name(path)} is {found}, expected a regular file: remove it")


def files_below(folder: Path, within: Path | None = None) -> Iterator[Path]:
    """Every file below a folder, but no temporary or lock files; each real folder once, by its shortest name.

    Links are followed as long as they stay in `within`, by default the folder itself. Those that do not, those that
    lead nowhere, and what is no regular file come as well: `open_regular` says what is wrong with them.

    Raises:
        OSError: if a folder cannot be read. One that is not there, or vanishes meanwhile, has no files.
    """
    within, seen = within or folder, set[str]()
    level, hidden = [str(folder)], list[str]()
    while level or hidden:
        if not level:  # the last to be looked at: a folder may have a visible name as well
            level, hidden = hidden, []
        links, folders = list[str](), list[str]()
        for where in level:
            real = os.path.realpath(where)
            if _home_of(Path(real), within) is None:
                yield Path(where)
            elif real not in seen:
                seen.add(real)
                for entry in _entries(where):
                    if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                        named_alike = hidden if entry.name.startswith(".") else links if entry.is_symlink() else folders
                        named_alike.append(entry.path)
                    elif not entry.name.startswith(RESERVED_PREFIX):
                        yield Path(entry.path)
        level = [*folders, *links]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []

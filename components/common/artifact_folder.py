"""The folder that every artifact is: data files beside one `artifact.json` with format, version and digests.

    {"format": "textual-inversion/latent-set", "version": 1, "digest": "<sha256>",
     "content": {...}, "files": {"latents.safetensors": {"sha256": "...", "size": 1234}}}

The digest covers format, version, content and the table of files: two artifacts with one digest are the same
data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from components.common.errors import ArtifactError, InputError
from components.common.foreign_json import parse_json, record_of
from components.common.storage.store import checked_key

Record = TypeVar("Record")

MANIFEST = "artifact.json"
_PREFIX = "textual-inversion/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtifactFolder:
    """A checked artifact folder: what `artifact.json` says, and where the files lie.

    Attributes:
        path: the folder.
        kind: the format's name without prefix, such as `latent-set`.
        digest: the digest of all of it.
        content: what the manifest holds.
        files: SHA-256 and size of each file, by path relative to the folder.
    """

    path: Path
    kind: str
    digest: str
    content: Mapping[str, Any]
    files: Mapping[str, Any]

    def record(self, record: type[Record], content: Any, **given: Any) -> Record:
        """The dataclass that a part of the content holds, as `record_of` says.

        Raises:
            ArtifactError: when it holds something else.
        """
        try:
            return record_of(record, content, **given)
        except ValueError as error:
            raise self.refusal(str(error)) from error

    def file(self, name: str) -> Path:
        """The file of that name, which was checked.

        Raises:
            ArtifactError: when the manifest does not list it.
        """
        if name not in self.files:
            raise self.refusal(f"its files lack {name!r}")
        return self.path / name

    def refusal(self, reason: str) -> ArtifactError:
        """The error for a manifest that matches its digest, and yet does not describe an artifact of its format."""
        return ArtifactError(
            f"{self.path / MANIFEST} describes no {self.kind} ({reason}): "
            "it was not written by this project; make the artifact again"
        )


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8. Raises `ValueError` on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def sha256_of(data: bytes) -> str:
    """The hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_artifact(
    path: Path, *, kind: str, version: int, content: Mapping[str, Any], files: Mapping[str, bytes]
) -> ArtifactFolder:
    """The artifact folder at `path`, written beside it and moved there whole: it is all there or not at all.

    Args:
        path: where the folder is to be; an earlier artifact or an empty folder there is replaced.
        kind: the format's name without prefix, such as `latent-set`.
        version: the format's version.
        content: what goes into `artifact.json`, JSON values only.
        files: bytes by path relative to the folder.

    Raises:
        ArtifactError: when the content is no JSON, something else lies at `path`, or it cannot be written.
    """
    body = _body(kind, version, content, table_of(files))
    try:
        digest = sha256_of(canonical_json(body))
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the content of the {kind} for {path} cannot be written as JSON: {error}") from error
    _refuse_to_replace_foreign_folder(path)
    manifest = json.dumps({**body, "digest": digest}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        _write_whole(path, {**files, MANIFEST: manifest.encode()})
    except OSError as error:
        raise ArtifactError(f"the {kind} cannot be written to {path}: {error}") from error
    return ArtifactFolder(path=path, kind=kind, digest=digest, content=body["content"], files=body["files"])


def artifact_digest(*, kind: str, version: int, content: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """The digest that an artifact of this content and table of files has, without writing it."""
    return sha256_of(canonical_json(_body(kind, version, content, table)))


def table_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest's table of files: SHA-256 and size of each, by path."""
    return {name: {"sha256": sha256_of(data), "size": len(data)} for name, data in sorted(files.items())}


def _body(kind: str, version: int, content: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": _PREFIX + kind, "version": version, "content": dict(content), "files": dict(table)}


def _write_whole(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent, ignore_cleanup_errors=True) as beside:
        fresh = Path(beside) / "new"
        fresh.mkdir()
        for name, data in files.items():
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        if path.exists():
            os.replace(path, Path(beside) / "earlier")  # removed in place, it would be there in part for a while
        os.replace(fresh, path)


def read_artifact(path: Path, *, kind: str, version: int) -> ArtifactFolder:
    """The artifact folder at `path` after checking format, version and every file's digest.

    Raises:
        ArtifactError: when there is no artifact, it is of another kind, newer than this release, or damaged.
    """
    body = _read_manifest(path)
    expected = _PREFIX + kind
    found = body.get("format")
    if found != expected:
        raise ArtifactError(
            f"found an artifact of format {found!r} at {path}, expected {expected!r}: pass the right one"
        )
    if body.get("version") != version:
        raise ArtifactError(
            f"found version {body.get('version')!r} of {expected} at {path}, expected version {version}: "
            "it was written by another release of this project; "
            "run the step that makes it again, or use that release"
        )
    try:
        digest = body["digest"]
        covered = {key: body[key] for key in ("format", "version", "content", "files")}
    except KeyError as missing:
        raise ArtifactError(f"{path / MANIFEST} lacks {missing}: the artifact is damaged; make it again") from None
    if sha256_of(canonical_json(covered)) != digest:
        raise ArtifactError(f"{path / MANIFEST} does not match its own digest: it was changed by hand; make it again")
    folder = ArtifactFolder(path=path, kind=kind, digest=digest, content=body["content"], files=body["files"])
    _check_parts(folder)
    for name, entry in folder.files.items():
        _check_file(path / name, entry)
    return folder


def kind_of(path: Path) -> str:
    """The kind of the artifact at `path`, such as `latent-set`, as its manifest says it.

    Raises:
        ArtifactError: when there is no artifact.
    """
    return str(_read_manifest(path).get("format")).removeprefix(_PREFIX)


def check_artifact(path: Path) -> None:
    """Raises `ArtifactError` when there is no artifact at `path`, whatever its kind and version, or it is damaged."""
    body = _read_manifest(path)
    read_artifact(path, kind=str(body.get("format")).removeprefix(_PREFIX), version=body.get("version", 0))


def _check_parts(folder: ArtifactFolder) -> None:
    """Raises `ArtifactError` unless content and files are objects, and every file a name below the folder."""
    parts = folder.record(_Parts, {"content": folder.content, "files": folder.files})
    for name in parts.files:
        try:
            checked_key(name)
        except InputError as error:
            raise folder.refusal(f"files: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FileEntry:
    """What the table of files says of one."""

    sha256: str
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """What every manifest holds beside its format."""

    content: Mapping[str, Any]
    files: Mapping[str, _FileEntry]


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = path / MANIFEST
    if not manifest.is_file():
        found = "a file" if path.is_file() else "a folder without artifact.json" if path.exists() else "nothing"
        raise ArtifactError(f"found {found} at {path}, expected an artifact folder: is this the output of a step?")
    try:
        body = parse_json(manifest.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{manifest} is no JSON ({error}): the artifact is damaged or was changed by hand; make it again"
        ) from error
    if not isinstance(body, dict):
        raise ArtifactError(f"{manifest} holds a {type(body).__name__}, expected an object; make the artifact again")
    return body


def _check_file(file: Path, entry: Mapping[str, Any]) -> None:
    try:
        if not file.is_file():
            raise ArtifactError(f"{file} is missing: the artifact is damaged; run the step that makes it again")
        size = file.stat().st_size
        if size != entry["size"]:
            raise ArtifactError(
                f"{file} has {size} bytes, expected {entry['size']}: the artifact is damaged; make it again"
            )
        if sha256_of_file(file) != entry["sha256"]:
            raise ArtifactError(f"{file} does not match its SHA-256: the artifact is damaged; make it again")
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read ({error.strerror}): make the artifact again") from error


def _refuse_to_replace_foreign_folder(path: Path) -> None:
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise ArtifactError(f"{path} is a folder with other things in it: give an output folder that is new or empty")
    if path.exists() and not path.is_dir():  # also a device, such as /dev/null, which root could replace
        raise ArtifactError(f"{path} is no folder: give an output folder that is new or empty")

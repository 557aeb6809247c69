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
from typing import Any

from components.common.errors import ArtifactError

MANIFEST = "artifact.json"
_PREFIX = "textual-inversion/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtifactFolder:
    """A checked artifact folder: what `artifact.json` says, and where the files lie.

    Attributes:
        path: the folder.
        digest: the digest of all of it.
        content: what the manifest holds.
        files: SHA-256 and size of each file, by path relative to the folder.
    """

    path: Path
    digest: str
    content: Mapping[str, Any]
    files: Mapping[str, Any]


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
    return ArtifactFolder(path=path, digest=digest, content=body["content"], files=body["files"])


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
        digest, files, content = body["digest"], body["files"], body["content"]
        covered = {key: body[key] for key in ("format", "version", "content", "files")}
    except KeyError as missing:
        raise ArtifactError(f"{path / MANIFEST} lacks {missing}: the artifact is damaged; make it again") from None
    if _digest_of(covered) != digest:
        raise ArtifactError(f"{path / MANIFEST} does not match its own digest: it was changed by hand; make it again")
    for name, entry in files.items():
        _check_file(path / name, entry)
    return ArtifactFolder(path=path, digest=digest, content=content, files=files)


def _digest_of(covered: Mapping[str, Any]) -> str | None:
    try:
        return sha256_of(canonical_json(covered))
    except ValueError:  # Python reads NaN and lone surrogates, which no manifest of ours holds
        return None


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = path / MANIFEST
    if not manifest.is_file():
        found = "a file" if path.is_file() else "a folder without artifact.json" if path.exists() else "nothing"
        raise ArtifactError(f"found {found} at {path}, expected an artifact folder: is this the output of a step?")
    try:
        body = json.loads(manifest.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{manifest} is no JSON ({error}): the artifact is damaged; make it again") from error
    if not isinstance(body, dict):
        raise ArtifactError(f"{manifest} holds a {type(body).__name__}, expected an object; make the artifact again")
    return body


def _check_file(file: Path, entry: Mapping[str, Any]) -> None:
    if not file.is_file():
        raise ArtifactError(f"{file} is missing: the artifact is damaged; run the step that makes it again")
    size = file.stat().st_size
    if size != entry["size"]:
        raise ArtifactError(
            f"{file} has {size} bytes, expected {entry['size']}: the artifact is damaged; make it again"
        )
    if sha256_of_file(file) != entry["sha256"]:
        raise ArtifactError(f"{file} does not match its SHA-256: the artifact is damaged; make it again")


def _refuse_to_replace_foreign_folder(path: Path) -> None:
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise ArtifactError(f"{path} is a folder with other things in it: give an output folder that is new or empty")
    if path.exists() and not path.is_dir():  # also a device, such as /dev/null, which root could replace
        raise ArtifactError(f"{path} is no folder: give an output folder that is new or empty")

"""The JSON documents of a registry: what one holds, and how a damaged or foreign one is told.

    {"format": "textual-inversion/registry-claim", "version": 1, "digest": "<sha256>", "content": {...}}

The digest covers the rest. A document is a pure function of its content, so two writers of one content write
the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from components.common.artifact_folder import canonical_json, sha256_of
from components.common.errors import ArtifactError
from components.common.foreign_json import parse_json, record_of

Record = TypeVar("Record")

_PREFIX = "textual-inversion/"
_VERSION = 1


def to_document(kind: str, content: Mapping[str, Any]) -> bytes:
    """The document of the given kind, such as `registry-claim`, as the bytes that are stored."""
    body = {"format": _PREFIX + kind, "version": _VERSION, "content": dict(content)}
    body["digest"] = sha256_of(canonical_json(body))
    return (json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def from_document(kind: str, data: bytes, uri: str) -> dict[str, Any]:
    """The content of a document that was read from `uri`.

    Raises:
        ArtifactError: when it is of another kind, of another format version, or damaged.
    """
    try:
        body = parse_json(data)
        found, version, content = (body[key] for key in ("format", "version", "content"))
        digest = body.pop("digest")
        right = digest == sha256_of(canonical_json(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{uri} is no document of a registry ({type(error).__name__}: {error}): it is damaged; "
            "restore it from a backup"
        ) from error
    if (found, version) != (_PREFIX + kind, _VERSION):
        raise ArtifactError(
            f"found format {found!r} version {version!r} at {uri}, expected {_PREFIX + kind!r} version "
            f"{_VERSION}: use the release of this project that wrote it"
        )
    if not right or not isinstance(content, dict):
        raise ArtifactError(f"{uri} does not match its own digest: it was changed; restore it from a backup")
    return content


def record_from(kind: str, record: type[Record], content: Any, uri: str) -> Record:
    """The dataclass that the content of a document holds; see `record_of`.

    Raises:
        ArtifactError: when it holds something else.
    """
    try:
        return record_of(record, content)
    except ValueError as error:
        raise ArtifactError(
            f"{uri} is no {kind} ({error}): it was not written by this project; restore it from a backup"
        ) from error

"""What a registry says of one version: its facts, its lineage, and its files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from components.common.artifact_folder import canonical_json, sha256_of
from components.common.errors import ArtifactError, InputError
from components.common.registry.documents import from_document, record_from, to_document
from components.common.storage.store import checked_key

MANIFEST = "manifest.json"
"""Written last: a version whose manifest is there is whole, and a version without one does not exist yet."""

_KIND = "registry-entry"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is worth knowing of a learned concept before its files are opened.

    Attributes:
        placeholder_token: what stands in a prompt.
        learnable_property: `object` or `style`.
        tokens: what the placeholder becomes in the tokenizer.
        passed: whether the evaluation accepted it; a version that did not pass was published by force.
        reasons: one sentence for each thing that the evaluation did not accept.
        scores: metric values by variant, as in the evaluation.
        lineage: run, base model, and the digests of everything that was used.
        learned_from: what a run was given that determines the rows, by name, as preflight saw it; None where that is
            not known, as of versions of earlier releases.
    """

    placeholder_token: str
    learnable_property: str
    tokens: tuple[str, ...]
    passed: bool
    reasons: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    lineage: Mapping[str, Any]
    learned_from: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The facts by field name, as JSON values; what is not known is left out, as in earlier releases."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.learned_from is None:
            del fields["learned_from"]
        return {**fields, "tokens": list(self.tokens), "reasons": list(self.reasons)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of a version: the hexadecimal SHA-256 of its bytes, and how many there are."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> FileRecord:
        """The record of these bytes."""
        return cls(sha256=sha256_of(data), size=len(data))

    def check(self, data: bytes, uri: str) -> None:
        """Raises `ArtifactError` unless `data`, which was read from `uri`, are the recorded bytes."""
        found = FileRecord.of(data)
        if found.size != self.size:
            raise ArtifactError(
                f"{uri} has {found.size} bytes, the manifest says {self.size}: the version is damaged; "
                "publish the same embedding again, which mends it, or use another one"
            )
        if found.sha256 != self.sha256:
            raise ArtifactError(
                f"{uri} does not match the SHA-256 of the manifest: the version is damaged; "
                "publish the same embedding again, which mends it, or use another one"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """What one version of a concept consists of.

    Attributes:
        concept: the concept's name in the registry.
        facts: what the manifest says of it; `lineage` has no run yet.
        files: bytes by path relative to the version's folder.
    """

    concept: str
    facts: Facts
    files: Mapping[str, bytes]

    @functools.cached_property
    def digest(self) -> str:
        """The hexadecimal SHA-256 of the concept's name, the facts and all files."""
        files = {name: dataclasses.asdict(FileRecord.of(data)) for name, data in self.files.items()}
        return sha256_of(canonical_json({"concept": self.concept, "facts": self.facts.as_json(), "files": files}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    """A published version of a concept.

    Attributes:
        uri: the address of the version's folder.
        concept: the concept's name in the registry.
        version: 1, 2, 3, ...
        created: when the version was claimed, ISO 8601 in UTC.
        bundle_digest: the digest of all that was published, the same for every repetition of it.
        facts: what is worth knowing of it.
        files: a record for each file, by path relative to the folder.
    """

    uri: str
    concept: str
    version: int
    created: str
    bundle_digest: str
    facts: Facts
    files: Mapping[str, FileRecord]

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        return to_document(_KIND, self._content())

    def as_json(self) -> dict[str, Any]:
        """The address and what the manifest says, as JSON values."""
        return {"uri": self.uri, **self._content()}

    def _content(self) -> dict[str, Any]:
        return {
            "concept": self.concept,
            "concept_version": self.version,
            "created": self.created,
            "bundle_digest": self.bundle_digest,
            **self.facts.as_json(),
            "files": {name: dataclasses.asdict(record) for name, record in sorted(self.files.items())},
        }

    @classmethod
    def from_bytes(cls, data: bytes, uri: str) -> RegistryEntry:
        """The entry whose manifest was read in the folder `uri`.

        Raises:
            ArtifactError: when the manifest is damaged, of another release, or names files elsewhere.
        """
        where = f"{uri}/{MANIFEST}"
        content = from_document(_KIND, data, where)
        found = record_from(_KIND, _Manifest, content, where)
        for name in found.files:
            try:
                checked_key(name)
            except InputError as error:
                raise ArtifactError(f"{where} names a file outside its own folder: {error}; do not use it") from error
        return cls(
            uri=uri,
            concept=found.concept,
            version=found.concept_version,
            created=found.created,
            bundle_digest=found.bundle_digest,
            facts=record_from(_KIND, Facts, content, where),
            files=found.files,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Manifest:
    """What a manifest holds beside the facts."""

    concept: str
    concept_version: int
    created: str
    bundle_digest: str
    files: Mapping[str, FileRecord]

"""The import itself: files from a source into the model store, each one checked, hashed and stored once."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.common.artifact_folder import sha256_of_file
from components.common.base_model import (
    ModelFile,
    ModelReference,
    blob_key,
    human_size,
    reference_content,
    reference_from,
    reference_key,
    write_reference,
)
from components.common.errors import ArtifactError, BaseModelError, ObjectNotFoundError
from components.common.foreign_json import parse_json
from components.common.sources.checks import check_file, read_json
from components.common.sources.models import ModelSource, open_source
from components.common.sources.selection import select_files
from components.common.storage import ObjectStore, open_store
from components.common.storage.local_files import local_errors
from components.common.storage.store import run_parallel
from components.import_base_model.progress import Progress

logger = logging.getLogger(__name__)

WORKERS = 4
"""Files that are imported at the same time; each may need scratch space for its whole size."""


def import_base_model(
    source: str,
    store_uri: str,
    output_path: Path,
    *,
    kind: str = "diffusion",
    variant: str = "",
    revision: str = "",
) -> ModelReference:
    """The reference to a base model, in the store from now on; also written to the folder `output_path`.

    A model whose revision was imported before is found by its reference, and nothing is downloaded. Otherwise
    files that the store has already, from another revision or model, are not stored again.

    Args:
        source: local folder, `file://`, `gs://`, `s3://` or `hf://owner/name[@revision]`.
        store_uri: the model store, any address of `open_store`.
        output_path: folder for the reference.
        kind: `diffusion` (a diffusers pipeline) or `clip` (a CLIPModel of transformers).
        variant: of the weights, such as `fp16`; empty for the plain ones.
        revision: what `open_source` gave before; the import then takes this state or fails.

    Raises:
        BaseModelError: if the source is incomplete, damaged, pickled, lacks the variant, or changed.
        StorageError: if the source or the store cannot be used.
    """
    store = open_store(store_uri)
    origin = open_source(source, revision=revision)
    key = reference_key(origin.repository, origin.revision, kind, variant)
    reference = _known_reference(store, key)
    if reference is None:
        logger.info("importing %s", source)
        logger.info("revision %.12s, into %s", origin.revision, store.uri)
        files = _import_files(origin, store, source, kind=kind, variant=variant)
        reference = ModelReference(
            source=source,
            repository=origin.repository,
            revision=origin.revision,
            kind=kind,
            variant=variant,
            store=store.uri,
            files=files,
        )
        # Last: a reference says that all of its files are there.
        store.write(key, json.dumps(reference_content(reference), indent=1).encode())
    else:
        logger.info("there already: %s", source)
        logger.info("revision %.12s, in %s", origin.revision, store.uri)
        reference = dataclasses.replace(reference, source=source, store=store.uri)
    logger.info("%d files, %s, digest %.12s", len(reference.files), human_size(reference.size), reference.digest)
    write_reference(reference, output_path)
    return reference


def _known_reference(store: ObjectStore, key: str) -> ModelReference | None:
    """The reference that an earlier import wrote, if the store still has all of its files."""
    try:
        reference = reference_from(parse_json(store.read(key)), where=store.uri_of(key))
    except ObjectNotFoundError:
        return None
    except (ArtifactError, ValueError) as error:
        logger.warning("%s; this is done now", error)
        return None
    present = run_parallel(lambda file: _has_blob(store, file), [(file,) for file in set(reference.files.values())])
    if not all(present):
        logger.warning("%s lacks files of an earlier import; they are imported again", store.uri)
        return None
    return reference


def _import_files(
    origin: ModelSource, store: ObjectStore, source: str, *, kind: str, variant: str
) -> Mapping[str, ModelFile]:
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        scratch = Path(folder)
        selection = select_files(
            source,
            origin.files,
            kind=kind,
            variant=variant,
            read_json=lambda name: read_json(origin.fetch(name, scratch), f"{source}/{name}"),
        )
        with Progress({name: origin.files[name].size for name in selection.values()}) as progress:

            def import_file(name: str) -> ModelFile:
                with progress.file(name):
                    shown = f"{source}/{name}"
                    with local_errors(shown):
                        return _import_file(origin, name, store, scratch, shown)

            files = run_parallel(import_file, [(name,) for name in selection.values()], workers=WORKERS)
    return dict(sorted(zip(selection, files, strict=True)))


def _import_file(origin: ModelSource, name: str, store: ObjectStore, scratch: Path, shown: str) -> ModelFile:
    expected = origin.files[name]
    if expected.sha256 is not None:
        known = ModelFile(expected.sha256, expected.size)
        if _has_blob(store, known):
            return known
    path = origin.fetch(name, scratch)
    size = path.stat().st_size
    if size != expected.size:
        raise BaseModelError(f"{shown} has {size} bytes, expected {expected.size}: it changed meanwhile; import again")
    check_file(path, shown)
    file = ModelFile(sha256_of_file(path), size)
    if expected.sha256 not in (None, file.sha256):
        raise BaseModelError(
            f"{shown} has SHA-256 {file.sha256}, expected {expected.sha256}: damaged on the way; import again"
        )
    if not _has_blob(store, file):
        store.upload_file(path, blob_key(file.sha256))
    if path.is_relative_to(scratch):
        path.unlink()
    return file


def _has_blob(store: ObjectStore, file: ModelFile) -> bool:
    try:
        return store.stat(blob_key(file.sha256)).size == file.size
    except ObjectNotFoundError:
        return False

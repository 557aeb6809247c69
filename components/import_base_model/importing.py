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
from components.import_base_model.config import ImportConfig
from components.import_base_model.progress import Progress

logger = logging.getLogger(__name__)

VERIFIED = "verified"
"""A store's folder with the versions of its files that were known to be right, under each reference's own key."""
WORKERS = 4
"""Files that are imported at the same time; each may need scratch space for its whole size."""


def import_models(config: ImportConfig, output_path: Path) -> ModelReference:
    """The reference to a model and what is imported beside it, as of `import_base_model`, written to `output_path`.

    A DINO model lies in the subfolder `dino`, a safety checker in `safety_checker` and `feature_extractor`.
    """
    reference = import_base_model(
        config.source,
        config.store_uri,
        output_path,
        kind=config.kind,
        variant=config.variant,
        revision=config.source_fingerprint,
    )
    beside = dict(reference.files)
    with tempfile.TemporaryDirectory(prefix="beside-") as scratch:
        if config.dino:
            dino = import_base_model(
                config.dino, config.store_uri, Path(scratch) / "dino", kind="dino", revision=config.dino_fingerprint
            )
            beside |= {f"dino/{path}": file for path, file in dino.files.items()}
        if config.safety_checker:
            beside |= import_base_model(
                config.safety_checker,
                config.store_uri,
                Path(scratch) / "safety_checker",
                kind="safety_checker",
                variant=config.safety_checker_variant,
                revision=config.safety_checker_fingerprint,
            ).files
    if beside == reference.files:
        return reference
    whole = dataclasses.replace(reference, files=dict(sorted(beside.items())))
    write_reference(whole, output_path)
    return whole


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
    files that the store has already, from another revision or model, are not stored again. A file that was written
    since it was last known to be right is read from the store, and replaced where its content is another.

    Args:
        source: local folder, `file://`, `gs://`, `s3://` or `hf://owner/name[@revision]`.
        store_uri: the model store, any address of `open_store`.
        output_path: folder for the reference.
        kind: `diffusion` (a diffusers pipeline), `clip` (a CLIPModel of transformers), `dino` (a DINO or DINOv2 model
            of transformers) or `safety_checker` (what checks the pictures of a diffusers pipeline).
        variant: of the weights, such as `fp16`; empty for the plain ones.
        revision: what `open_source` gave before; the import then takes this state or fails.

    Raises:
        BaseModelError: if the source is incomplete, damaged, pickled, lacks the variant, or changed.
        StorageError: if the source or the store cannot be used.
    """
    store = open_store(store_uri)
    origin = open_source(source, revision=revision)
    key = reference_key(origin.repository, origin.revision, kind, variant)
    verified = _verified_versions(store, key)
    reference = _known_reference(store, key, verified)
    if reference is None:
        logger.info("importing %s", source)
        logger.info("revision %.12s, into %s", origin.revision, store.uri)
        files = _import_files(origin, store, source, verified, kind=kind, variant=variant)
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
    _keep_versions(store, key, reference, verified)
    logger.info("%d files, %s, digest %.12s", len(reference.files), human_size(reference.size), reference.digest)
    write_reference(reference, output_path)
    return reference


def _known_reference(store: ObjectStore, key: str, verified: Mapping[str, str]) -> ModelReference | None:
    """The reference that an earlier import wrote, if the store still has all of its files, and they are right."""
    try:
        reference = reference_from(parse_json(store.read(key)), where=store.uri_of(key))
    except ObjectNotFoundError:
        return None
    except (ArtifactError, ValueError) as error:
        logger.warning("%s; this is done now", error)
        return None
    sound = run_parallel(_has_sound_blob, [(store, file, verified) for file in set(reference.files.values())])
    if not all(sound):
        logger.warning("%s lacks files of an earlier import; they are imported again", store.uri)
        return None
    return reference


def _verified_versions(store: ObjectStore, key: str) -> dict[str, str]:
    """The versions of the store's files that were known to be right, by SHA-256, as the last import left them."""
    try:
        found = parse_json(store.read(f"{VERIFIED}/{key}"))
    except (ObjectNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep_versions(store: ObjectStore, key: str, reference: ModelReference, verified: Mapping[str, str]) -> None:
    digests = sorted({file.sha256 for file in reference.files.values()})
    infos = run_parallel(store.stat, [(blob_key(digest),) for digest in digests])
    versions = {digest: info.version for digest, info in zip(digests, infos, strict=True)}
    if versions != verified:
        store.write(f"{VERIFIED}/{key}", json.dumps(versions, indent=1).encode())


def _import_files(
    origin: ModelSource, store: ObjectStore, source: str, verified: Mapping[str, str], *, kind: str, variant: str
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
                        return _import_file(origin, name, store, scratch, shown, verified)

            files = run_parallel(import_file, [(name,) for name in selection.values()], workers=WORKERS)
    return dict(sorted(zip(selection, files, strict=True)))


def _import_file(
    origin: ModelSource, name: str, store: ObjectStore, scratch: Path, shown: str, verified: Mapping[str, str]
) -> ModelFile:
    expected = origin.files[name]
    if expected.sha256 is not None:
        known = ModelFile(expected.sha256, expected.size)
        if _has_sound_blob(store, known, verified):
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
    if not _has_sound_blob(store, file, verified):
        store.upload_file(path, blob_key(file.sha256))
    if path.is_relative_to(scratch):
        path.unlink()
    return file


def _has_sound_blob(store: ObjectStore, file: ModelFile, verified: Mapping[str, str]) -> bool:
    """Whether the store has the content, which is read unless its version is the one that was verified."""
    key = blob_key(file.sha256)
    try:
        info = store.stat(key)
        if info.size == file.size and info.version == verified.get(file.sha256):
            return True
        if info.size == file.size:
            with tempfile.TemporaryDirectory(prefix="verify-") as folder:
                store.download_file(key, Path(folder) / "blob")
                if sha256_of_file(Path(folder) / "blob") == file.sha256:
                    return True
    except ObjectNotFoundError:
        return False
    logger.warning("%s is damaged: it is replaced", store.uri_of(key))
    return False

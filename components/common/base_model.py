"""Base models by reference: a small artifact that names every file of a model, and the folder made from it.

The store, filled once by `components.import_base_model`, is content-addressed, so that models share files and
nothing is overwritten:

    <store>/blobs/sha256/<ab>/<digest>                             the files
    <store>/references/<repository>/<revision>/<kind>[.<variant>].json   what an earlier import found
    <store>/verified/references/...                                the versions of these files that were right then

`materialize` gives a folder with the parts that a step needs:

    <cache>/blobs/sha256/<ab>/<digest>         copies of the store's files, read-only
    <cache>/blobs/sha256/<ab>/<digest>.stat    size, times and inode that a copy had when it was verified
    <cache>/models/<digest>/<parts>/...        symbolic links to the copies

The cache shares no file with a store, even one in a local folder, so that whoever writes into a model's folder harms no
store. Copying takes about as long as verifying, a second or so for each GB.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components.common.artifact_folder import (
    canonical_json,
    read_artifact,
    sha256_of,
    sha256_of_file,
    write_artifact,
)
from components.common.errors import (
    ArtifactError,
    BaseModelError,
    InputError,
    ObjectNotFoundError,
    StorageError,
)
from components.common.foreign_json import parse_json, record_of
from components.common.storage import ObjectStore, open_store
from components.common.storage.local_files import local_errors, locked_file, temporary_beside
from components.common.storage.store import checked_key, run_parallel

logger = logging.getLogger(__name__)

KIND = "base-model-reference"
VERSION = 1
CACHE_VARIABLE = "TEXTUAL_INVERSION_CACHE"
"""Environment variable that names the folder for downloaded models."""
DEFAULT_CACHE = "~/.cache/textual-inversion"
MODEL_KINDS = ("diffusion", "clip", "dino", "safety_checker")
"""What can be imported: a Stable Diffusion folder of diffusers, a CLIPModel, DINO or DINOv2 folder of transformers, and
of a Stable Diffusion folder what checks its pictures."""


class ModelFile(NamedTuple):
    """One file of a model: hexadecimal SHA-256 and size in bytes."""

    sha256: str
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelReference:
    """A base model, named by its content.

    Attributes:
        source: what the user gave: `hf://owner/name@revision`, a URI or a folder.
        repository: `owner/name` on the Hub, else the URI of the folder.
        revision: the commit on the Hub, else a digest of the folder's listing.
        kind: one of `MODEL_KINDS`.
        variant: the variant of weights that was asked for, such as `fp16`; empty for the plain ones. It is no
            longer part of file names: `unet/diffusion_pytorch_model.fp16.safetensors` became
            `unet/diffusion_pytorch_model.safetensors`, so that loaders need not be told.
        store: URI of the model store that holds the files.
        files: SHA-256 and size by path in the model's folder.
    """

    source: str
    repository: str
    revision: str
    kind: str
    variant: str
    store: str
    files: Mapping[str, ModelFile]

    def __post_init__(self) -> None:
        """Checks the fields; the table of files may come from a document that somebody else wrote.

        Raises:
            BaseModelError: if a field cannot be right.
        """
        if self.kind not in MODEL_KINDS:
            raise BaseModelError(f"found a base model of kind {self.kind!r}, expected one of {', '.join(MODEL_KINDS)}")
        if not self.files:
            raise BaseModelError(f"found no files in the reference to {self.source}")
        for path, file in self.files.items():
            try:
                checked_key(path)
            except InputError as error:
                raise BaseModelError(f"found the file {path!r} in the reference to {self.source}: {error}") from error
            if not re.fullmatch(r"[0-9a-f]{64}", file.sha256) or file.size < 0:
                raise BaseModelError(f"found {file} for {path} in the reference to {self.source}")

    @property
    def digest(self) -> str:
        """The identity of the model: a SHA-256 over paths, contents and sizes, wherever it came from."""
        return sha256_of(canonical_json({path: list(file) for path, file in self.files.items()}))

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())

    @property
    def subfolders(self) -> tuple[str, ...]:
        """The parts of the model, sorted: `("scheduler", "text_encoder", "tokenizer", "unet", "vae")`."""
        return tuple(sorted({path.split("/")[0] for path in self.files if "/" in path}))

    @property
    def without_subfolders(self) -> ModelReference:
        """The reference to the files at its top: of a scorer the CLIP model alone."""
        return dataclasses.replace(self, files={path: file for path, file in self.files.items() if "/" not in path})

    @property
    def hub_repository(self) -> str | None:
        """`owner/name` if the model came from the Hugging Face Hub."""
        return self.repository if self.source.startswith("hf://") else None


def blob_key(sha256: str) -> str:
    """Where a store or cache keeps the content with this digest."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def reference_key(repository: str, revision: str, kind: str, variant: str) -> str:
    """Where a store keeps the reference to one revision of a model."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", repository).strip("-.")[-80:]
    name = f"{kind}.{variant}" if variant else kind
    return f"references/{readable}-{sha256_of(repository.encode())[:8]}/{revision}/{name}.json"


def reference_content(reference: ModelReference) -> dict[str, Any]:
    """The reference as JSON values; `reference_from` gives it back."""
    return {
        **dataclasses.asdict(reference),
        "files": {name: list(file) for name, file in reference.files.items()},
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Files:
    """The files of a reference as JSON has them: digest and size."""

    files: Mapping[str, tuple[str, int]]


def reference_from(content: Any, *, where: str) -> ModelReference:
    """The reference that JSON values describe.

    Raises:
        ArtifactError: if they describe none; the message begins with `where`.
    """
    try:
        entries = record_of(_Files, content).files
        return record_of(ModelReference, content, files={name: ModelFile(*entry) for name, entry in entries.items()})
    except (ValueError, BaseModelError) as error:
        raise ArtifactError(f"{where} holds no reference to a base model ({error}): import the model again") from error


def find_reference(store_uri: str, digest: str) -> ModelReference:
    """The reference to the model of that digest in a store.

    Raises:
        BaseModelError: if the store has none.
        StorageError: if the store cannot be read.
    """
    store = open_store(store_uri)
    for info in store.list("references/"):
        try:
            reference = reference_from(parse_json(store.read(info.key)), where=store.uri_of(info.key))
        except (ArtifactError, ValueError) as error:
            logger.warning("passing over %s: %s", store.uri_of(info.key), error)
            continue
        if reference.digest == digest:
            return dataclasses.replace(reference, store=store.uri)
    raise BaseModelError(
        f"found no base model with the digest {digest[:12]} in the model store {store.uri}: import it again, or name "
        "the store that has it"
    )


def human_size(size: float) -> str:
    """A number of bytes as a person says it: `317 kB`, `9.2 MB`, `3.44 GB`."""
    for unit, digits, factor in (("kB", 0, 1e3), ("MB", 1, 1e6)):
        if size < 1000 * factor:
            return f"{size / factor:.{digits}f} {unit}"
    return f"{size / 1e9:.2f} GB"


def write_reference(reference: ModelReference, path: Path) -> None:
    """Writes the reference as an artifact folder.

    Raises:
        ArtifactError: if it cannot be written there.
    """
    write_artifact(path, kind=KIND, version=VERSION, content=reference_content(reference), files={})


def read_reference(path: Path) -> ModelReference:
    """The reference that the artifact folder at `path` holds.

    Raises:
        ArtifactError: if there is none, it is newer than this release, or damaged.
    """
    return reference_from(read_artifact(path, kind=KIND, version=VERSION).content, where=str(path))


def materialize(
    reference: ModelReference, subfolders: Sequence[str] | None = None, cache_dir: Path | None = None
) -> Path:
    """A local folder with the named parts of the model and its top-level JSON files; all of it for None.

    Files are verified by SHA-256 when they enter the cache, and again whenever their size, times or inode are no
    longer those of then; a damaged one is fetched again. So a second call reads nothing from the store. Several
    processes may ask at once: one fetches. The folder is shared: it must not be changed.

    Args:
        reference: the model.
        subfolders: such as `["vae"]`; an empty list gives the top-level JSON files alone.
        cache_dir: where models are kept; default: `CACHE_VARIABLE`, else `DEFAULT_CACHE`.

    Raises:
        BaseModelError: if the model has no such part.
        ArtifactError: if the store lacks a file or holds a damaged one.
        StorageError: if the store or the cache cannot be used.
    """
    cache = cache_folder(cache_dir)
    wanted = _files_of(reference, subfolders)
    parts = "all" if subfolders is None else "+".join(sorted(set(subfolders))) or "top"
    folder = cache / "models" / reference.digest / parts
    with local_errors(str(folder)):
        if _unlinked(folder, wanted, cache):
            with locked_file(cache / "locks" / reference.digest):
                missing = _unlinked(folder, wanted, cache)
                files = sorted(set(missing.values()))
                absent = [file for file in files if not _is_sound(cache / blob_key(file.sha256), file)]
                if absent:
                    _fetch(absent, open_store(reference.store), cache)
                for path, file in missing.items():
                    _link(cache / blob_key(file.sha256), folder / path)
    return folder


def cache_folder(cache_dir: Path | None = None) -> Path:
    """The folder that models are kept in on this machine, made if need be; see `materialize`.

    Raises:
        StorageError: if it cannot be made.
    """
    try:
        cache = Path(cache_dir or os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE).expanduser().absolute()
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        raise StorageError(
            f"the folder for downloaded models cannot be made ({error}): set {CACHE_VARIABLE} to one that can"
        ) from error
    return cache


def _files_of(reference: ModelReference, subfolders: Sequence[str] | None) -> dict[str, ModelFile]:
    if subfolders is None:
        return dict(reference.files)
    if isinstance(subfolders, str) or (unknown := sorted(set(subfolders) - set(reference.subfolders))):
        raise BaseModelError(
            f"found no part {subfolders if isinstance(subfolders, str) else ', '.join(unknown)} in the base"
            f" model {reference.source}: it has {', '.join(reference.subfolders) or 'top-level files only'}"
        )
    return {
        path: file
        for path, file in reference.files.items()
        if path.split("/")[0] in subfolders or ("/" not in path and path.endswith(".json"))
    }


def _unlinked(folder: Path, wanted: Mapping[str, ModelFile], cache: Path) -> dict[str, ModelFile]:
    """Those of `wanted` that do not lead to a copy which is as it was when it was verified."""
    return {
        path: file
        for path, file in wanted.items()
        if not (_is_as_verified(blob := cache / blob_key(file.sha256)) and _leads_to(folder / path, blob))
    }


def _leads_to(path: Path, blob: Path) -> bool:
    return path.is_symlink() and os.path.realpath(path) == os.path.realpath(blob)


def _is_as_verified(blob: Path) -> bool:
    """Whether nothing has touched the copy since it was verified."""
    stamp = _stamp_of(blob)
    return stamp.is_file() and blob.is_file() and stamp.read_bytes() == _status(blob)


def _is_sound(blob: Path, file: ModelFile) -> bool:
    """Whether the copy is there with its content, which is read where its stamp does not tell; a warning if not."""
    if _is_as_verified(blob):
        return True
    if not blob.is_file():
        return False
    before = _status(blob)
    with contextlib.suppress(FileNotFoundError):  # somebody removes it at this moment
        if sha256_of_file(blob) == file.sha256:
            _stamp(blob, before)
            return True
    logger.warning("%s was damaged or changed: it is fetched again", blob)
    return False


def _status(blob: Path) -> bytes:
    """What changes with whatever is done to the copy; nothing where it is gone."""
    try:
        found = blob.stat()
    except FileNotFoundError:
        return b""
    return canonical_json([found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino])


def _stamp_of(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.stat")


def _stamp(blob: Path, status: bytes) -> None:
    with temporary_beside(_stamp_of(blob)) as stamp:
        stamp.write_bytes(status)
        os.replace(stamp, _stamp_of(blob))


def _fetch(files: Sequence[ModelFile], store: ObjectStore, cache: Path) -> None:
    started = time.monotonic()
    size = sum(file.size for file in files)
    logger.info("%d files of a model, %s, from %s", len(files), human_size(size), store.uri)
    logger.info("to %s", cache)
    run_parallel(_fetch_one, [(file, store, cache / blob_key(file.sha256)) for file in files])
    seconds = max(time.monotonic() - started, 1e-3)
    logger.info("%s in %.1f s (%s/s)", human_size(size), seconds, human_size(size / seconds))


def _fetch_one(file: ModelFile, store: ObjectStore, blob: Path) -> None:
    with temporary_beside(blob) as download:
        download_file(file, store, download)
        download.chmod(0o444)
        os.replace(download, blob)
    _stamp(blob, _status(blob))


def download_file(file: ModelFile, store: ObjectStore, path: Path) -> None:
    """Makes the local file `path` from a file of a model, read from its store and verified.

    Raises:
        ArtifactError: if the store lacks it or holds a damaged one.
        StorageError: if the store cannot be read.
    """
    uri = store.uri_of(blob_key(file.sha256))
    try:
        store.download_file(blob_key(file.sha256), path)
    except ObjectNotFoundError as error:
        raise ArtifactError(f"{uri}: the model store lacks this file: import the base model again") from error
    if path.stat().st_size != file.size or sha256_of_file(path) != file.sha256:
        raise ArtifactError(
            f"{uri}: the content does not match its SHA-256 ({file.size} bytes expected):"
            " import the base model again, which replaces it"
        )


def _link(blob: Path, path: Path) -> None:
    """Makes `path` a symbolic link to the copy; relative, for pods that mount one cache at different paths."""
    with temporary_beside(path) as link:
        link.symlink_to(os.path.relpath(blob.resolve(), path.parent.resolve()))
        os.replace(link, path)

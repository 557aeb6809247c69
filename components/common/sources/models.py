"""Where base models come from: a folder, a bucket, the Hub; each with a revision that names its state."""

from __future__ import annotations

import abc
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.common.artifact_folder import canonical_json, sha256_of
from components.common.errors import BaseModelError, ConfigError, InputError, StorageError
from components.common.storage import open_store
from components.common.storage.addresses import local_path, scheme_of
from components.common.storage.file_store import FileStore
from components.common.storage.local_files import local_problem
from components.common.storage.retries import one_line, with_retries
from components.common.storage.store import is_key

if TYPE_CHECKING:
    from huggingface_hub.hf_api import HfApi, ModelInfo

MODEL_SUFFIXES = (".safetensors", ".json", ".txt")
"""Files that can be part of a model; others do not count in a folder's revision."""
LARGEST_DOCUMENT = 64 * 2**20
"""Bytes of a configuration or a tokenizer's file, which is read into memory; the largest known have 20 MB."""
_DOCUMENTS = (".json", ".txt")
_SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_ADDRESS = re.compile(r"hf://(?P<name>[^/@]+/[^/@]+)(@(?P<revision>.+))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """What a source says about one file: size in bytes, and the SHA-256 when it is known beforehand."""

    size: int
    sha256: str | None = None


class ModelSource(abc.ABC):
    """One state of one model.

    Attributes:
        repository: what is imported, without revision: `owner/name`, or the URI of the folder.
        revision: the name of the state.
        files: every file by path.
    """

    repository: str
    revision: str
    files: Mapping[str, SourceFile]

    def fetch(self, name: str, scratch: Path) -> Path:
        """A local file with the content of `name`, downloaded below `scratch` unless it is local or there.

        Raises:
            BaseModelError: if it is a document, as against weights, that is too large to be read.
            StorageError: if the source does not give it.
        """
        size = self.files[name].size
        if name.endswith(_DOCUMENTS) and size > LARGEST_DOCUMENT:
            found = f"{self.repository}: {name} has {size} bytes"
            raise BaseModelError(f"{found}, expected at most {LARGEST_DOCUMENT}: is it the right file?")
        return self._fetch(name, scratch)

    @abc.abstractmethod
    def _fetch(self, name: str, scratch: Path) -> Path:
        """See `fetch`."""


def open_source(address: str, *, revision: str = "") -> ModelSource:
    """The model at `address` as it is now, or for `hf://` at the commit `revision`; `~` is the user's home.

    Raises:
        InputError: if it is no address that anything may be read from.
        BaseModelError: if there is no model, or not that revision of it.
        StorageError: if the place does not answer or refuses access.
    """
    scheme = scheme_of(address)
    if address.startswith("~"):
        address = str(local_path(address))
    is_folder = Path(address).is_dir() or _HUB_ADDRESS.fullmatch(address)
    if address.lower().endswith(_SINGLE_FILES) and not is_folder:
        raise BaseModelError(f"{single_file_advice(address)}; expected the folder of a diffusers pipeline")
    source = _HubSource(address, revision) if scheme == "hf" else _FolderSource(address)
    if revision and source.revision != revision:
        raise BaseModelError(
            f"{address} is at revision {source.revision} now, expected {revision}: it changed since this run"
            " was submitted; submit the run again"
        )
    return source


def hub_api() -> HfApi:
    """The client of the Hugging Face Hub, or of `HF_ENDPOINT`; it shows no progress bars, which spoil a pod's log.

    Raises:
        ConfigError: when `HF_ENDPOINT` is no address.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        if endpoint:
            _ = urlsplit(endpoint).port  # the library would fail while it is imported
    except ValueError as error:
        raise ConfigError(f"HF_ENDPOINT: found {endpoint!r} ({error}), expected https://host or http://host") from error
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi(endpoint=endpoint)


def single_file_advice(name: str) -> str:
    """What the single file `name` is taken for, and how a folder is made of it."""
    return (
        f"{name} looks like a single-file checkpoint: convert it with diffusers'"
        " StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER) and import FOLDER"
    )


class _FolderSource(ModelSource):
    """The files below a local folder or a bucket's prefix."""

    def __init__(self, address: str) -> None:
        try:
            self._store = open_store(address)
        except InputError as error:
            raise BaseModelError(f"{error}, or for the Hugging Face Hub hf://owner/name") from error
        self.repository = self._store.uri
        listing = self._store.list()
        if not listing:
            hint = (
                f"; a model of the Hugging Face Hub is written hf://{address}" if _HUB_NAME.fullmatch(address) else ""
            )
            if "://" not in address and not Path(address).exists():
                hint = f": there is no such folder on this machine{hint}"
            raise BaseModelError(f"found no files in {address}, expected the folder of a base model{hint}")
        self.files = {info.key: SourceFile(size=info.size) for info in listing}
        states = [[each.key, each.size, each.version] for each in listing if each.key.endswith(MODEL_SUFFIXES)]
        self.revision = sha256_of(canonical_json(states))

    def _fetch(self, name: str, scratch: Path) -> Path:
        if isinstance(self._store, FileStore):
            return self._store.local_file(name)
        if not (scratch / name).exists():
            self._store.download_file(name, scratch / name)
        return scratch / name


class _HubSource(ModelSource):
    """One commit of a repository on the Hugging Face Hub, at HF_ENDPOINT and with HF_TOKEN where set."""

    def __init__(self, address: str, revision: str) -> None:
        parts = _HUB_ADDRESS.fullmatch(address)
        if parts is None:
            raise BaseModelError(f"found {address!r}, expected hf://owner/name or hf://owner/name@revision")
        self._address = address
        self._api = hub_api()
        self.repository = parts["name"]
        info = self._model_info(revision or parts["revision"])
        self.revision = str(info.sha)
        self.files = {
            each.rfilename: SourceFile(size=each.size or 0, sha256=each.lfs.sha256 if each.lfs else None)
            for each in info.siblings or ()
            if is_key(each.rfilename)
        }

    def _fetch(self, name: str, scratch: Path) -> Path:

        def download(attempt: int) -> str:
            return self._api.hf_hub_download(self.repository, name, revision=self.revision, local_dir=scratch)

        return Path(with_retries(f"{self._address}/{name}", download, self._problem))

    def _model_info(self, revision: str | None) -> ModelInfo:
        def ask(attempt: int) -> ModelInfo:
            return self._api.model_info(self.repository, revision=revision, files_metadata=True)

        return with_retries(self._address, ask, self._problem)

    def _problem(self, error: Exception) -> Exception | None:
        """The error to raise for a failure of the client library; None when trying again can help."""
        from huggingface_hub import errors as hub

        page = f"{self._api.endpoint}/{self.repository}"
        match error:
            case hub.GatedRepoError():
                return BaseModelError(
                    f"{self._address}: access to this model is granted on request: accept its conditions at"
                    f" {page} and set HF_TOKEN to a token of that account"
                )
            case hub.RevisionNotFoundError():
                return BaseModelError(f"{self._address}: there is no such branch, tag or commit: see {page}/commits")
            case hub.RepositoryNotFoundError():
                return BaseModelError(
                    f"{self._address}: there is no such repository, or it is private: check the name at"
                    f" {page}, and set HF_TOKEN for a private one"
                )
            case hub.HFValidationError():
                return BaseModelError(f"{self._address}: {one_line(error)}")
            case hub.OfflineModeIsEnabled():
                return StorageError(f"{self._address}: HF_HUB_OFFLINE is set: unset it to import from the Hub")
            case hub.HfHubHTTPError() if error.response.status_code < 500 and error.response.status_code != 429:
                return StorageError(f"{self._address}: the Hub refuses the request: {one_line(error)}")
            case hub.HfHubHTTPError() | hub.LocalEntryNotFoundError() | ConnectionError() | TimeoutError():
                return None
            case OSError():
                return local_problem(self._address, error)
        # The HTTP client's own errors; it is httpx for releases 1 of huggingface_hub and httpx2 from 2 on.
        return None if type(error).__module__.partition(".")[0] in ("httpx", "httpx2") else error

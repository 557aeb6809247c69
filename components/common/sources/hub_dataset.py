"""Pictures in a dataset repository of the Hugging Face Hub, read at one commit."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from components.common.errors import ImageError, StorageError
from components.common.sources.models import hub_api
from components.common.storage import ObjectInfo
from components.common.storage.retries import one_line, with_retries
from components.common.storage.store import is_key

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo

logger = logging.getLogger(__name__)

_ADDRESS = re.compile(
    r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<folder>.+?))?/?", re.IGNORECASE
)


class HubDataset:
    """The files of `hf://datasets/owner/name[@revision][/folder]`; `HF_ENDPOINT` and `HF_TOKEN` are honoured.

    A branch or tag is resolved to a commit once, so that all files are of one state. A revision with a slash
    is written percent-encoded: `@refs%2Fpr%2F1`.
    """

    def __init__(self, uri: str) -> None:
        """Asks the Hub what is there.

        Raises:
            ImageError: when the address names no dataset or there is no such dataset or revision.
            StorageError: when the Hub cannot be reached or refuses.
        """
        parts = _ADDRESS.fullmatch(uri)
        if parts is None:
            raise ImageError(f"found {uri!r}, expected hf://datasets/owner/name, @revision and /folder if wanted")
        self.uri = uri
        self.name = parts["name"]
        self._below = f"{parts['folder']}/" if parts["folder"] else ""
        self._api = hub_api()
        self._info = self._dataset_info(unquote(parts["revision"]) if parts["revision"] else None)
        logger.info("%s: commit %s", uri, self._info.sha)

    def list(self) -> list[ObjectInfo]:
        """Every file with a name that can be a key, sorted by it; the version is the content's git or LFS digest."""
        found = [
            ObjectInfo(
                key=file.rfilename.removeprefix(self._below),
                size=file.size or 0,
                version=(file.lfs.sha256 if file.lfs else file.blob_id) or str(self._info.sha),
            )
            for file in self._info.siblings or []
            if file.rfilename.startswith(self._below) and is_key(file.rfilename)
        ]
        return sorted(found, key=lambda info: info.key)

    def read(self, key: str) -> bytes:
        """The content of one file.

        Raises:
            StorageError: when the Hub does not give it.
        """

        def download(_: int) -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                path = self._api.hf_hub_download(
                    self.name, self._below + key, repo_type="dataset", revision=self._info.sha, local_dir=folder
                )
                return Path(path).read_bytes()

        return with_retries(f"{self.uri}: {key}", download, self._problem)

    def _dataset_info(self, revision: str | None) -> DatasetInfo:
        def ask(_: int) -> DatasetInfo:
            return self._api.dataset_info(self.name, revision=revision, files_metadata=True)

        return with_retries(self.uri, ask, self._problem)

    def _problem(self, error: Exception) -> Exception | None:
        """The error to raise for a failure of the client library; None when trying again can help."""
        from huggingface_hub import errors as hub

        match error:
            case hub.RevisionNotFoundError():
                return ImageError(f"{self.uri}: the dataset has no such revision: give a branch, tag or commit")
            case hub.RepositoryNotFoundError():  # the Hub answers alike for absent, private and gated ones
                return ImageError(
                    f"{self.uri}: {self._api.endpoint} shows no dataset {self.name}: check its name, and for a "
                    "private or gated one ask for access on its page and set HF_TOKEN"
                )
            case hub.HFValidationError():
                return ImageError(f"{self.uri}: {one_line(error)}")
            case hub.OfflineModeIsEnabled():
                return StorageError(f"{self.uri}: HF_HUB_OFFLINE is set: unset it to read from the Hub")
            case hub.HfHubHTTPError() if error.response.status_code < 500 and error.response.status_code != 429:
                return StorageError(f"{self.uri}: the Hub refuses the request: {one_line(error)}")
            case hub.HTTPError() | hub.LocalEntryNotFoundError():  # the HTTP client's own, of whatever name
                return None
        return error

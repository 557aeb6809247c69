"""Pictures in a dataset repository of the Hugging Face Hub, read at one commit."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from components.common.errors import ImageError, StorageError
from components.common.storage import ObjectInfo

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
        from huggingface_hub import HfApi

        parts = _ADDRESS.fullmatch(uri)
        if parts is None:
            raise ImageError(f"found {uri!r}, expected hf://datasets/owner/name, @revision and /folder if wanted")
        self.uri = uri
        self.name = parts["name"]
        self._below = f"{parts['folder']}/" if parts["folder"] else ""
        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        revision = unquote(parts["revision"]) if parts["revision"] else None
        with self._errors(uri):
            self._info = self._api.dataset_info(self.name, revision=revision, files_metadata=True)
        logger.info("%s: commit %s", uri, self._info.sha)

    def list(self) -> list[ObjectInfo]:
        """Every file, sorted by key; the version is the content's git or LFS digest."""
        found = [
            ObjectInfo(
                key=file.rfilename.removeprefix(self._below),
                size=file.size or 0,
                version=(file.lfs.sha256 if file.lfs else file.blob_id) or str(self._info.sha),
            )
            for file in self._info.siblings or []
            if file.rfilename.startswith(self._below)
        ]
        return sorted(found, key=lambda info: info.key)

    def read(self, key: str) -> bytes:
        """The content of one file.

        Raises:
            StorageError: when the Hub does not give it.
        """
        with self._errors(f"{self.uri}: {key}"), tempfile.TemporaryDirectory() as folder:
            path = self._api.hf_hub_download(
                self.name,
                self._below + key,
                repo_type="dataset",
                revision=self._info.sha,
                local_dir=folder,
            )
            return Path(path).read_bytes()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        # HTTPError is that of the HTTP client beneath, which depends on the release of huggingface_hub.
        from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            yield
        except RepositoryNotFoundError as error:  # the Hub answers alike for absent, private and gated ones
            raise ImageError(
                f"{what}: {self._api.endpoint} shows no dataset {self.name}: check its name, and for a "
                "private or gated one ask for access on its page and set HF_TOKEN"
            ) from error
        except RevisionNotFoundError as error:
            raise ImageError(f"{what}: the dataset has no such revision: give a branch, tag or commit") from error
        except (OSError, HTTPError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise StorageError(f"{what}: {self._api.endpoint} does not answer as expected: {first_line}") from error

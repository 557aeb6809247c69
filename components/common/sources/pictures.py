"""Where pictures are read from: object storage, a local folder, or a dataset of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from components.common.errors import ImageError
from components.common.storage import ObjectInfo, open_store
from components.common.storage.addresses import local_path, scheme_of


class Source(Protocol):
    """Named bytes that can be listed without reading them; what an `ObjectStore` offers too."""

    uri: str

    def list(self) -> Sequence[ObjectInfo]:
        """Every file of the source, sorted by key."""

    def read(self, key: str) -> bytes:
        """The content of one file. May be called from several threads at once."""


def open_source(uri: str) -> Source:
    """The source at `uri`.

    Raises:
        ImageError: when a local folder does not exist, or the Hub has no such dataset.
        InputError: when the scheme is unknown.
        StorageError: when the source cannot be reached.
    """
    scheme = scheme_of(uri)
    if scheme == "hf":
        from components.common.sources.hub_dataset import HubDataset

        return HubDataset(uri)
    if scheme in ("", "file"):
        _check_folder(local_path(uri), uri)
    return open_store(uri)


def _check_folder(folder: Path, uri: str) -> None:
    if folder.is_dir():
        return
    if folder.is_symlink() and not folder.exists():
        raise ImageError(f"found a symbolic link that leads nowhere, {folder} -> {folder.readlink()}: mend it")
    if folder.exists():
        raise ImageError(f"found a file at {folder}, expected a folder of pictures: give the folder it lies in")
    hint = ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", uri):
        hint = f" (a dataset of the Hugging Face Hub is written hf://datasets/{uri})"
    raise ImageError(f"found no folder {folder}, expected a folder of pictures{hint}")

"""Artifacts by address: a step's command reads and writes object storage as if it were a folder.

A pod of a pipeline finds its artifacts in local folders, put there by Kubeflow Pipelines. A pod of a TrainJob has only
their addresses.
"""

from __future__ import annotations

import logging
from pathlib import Path

from components.common.storage import open_store
from components.common.storage.addresses import local_path, scheme_of

logger = logging.getLogger(__name__)


def is_remote(address: str) -> bool:
    """Whether an address is in object storage; a `file://` address and a path are local folders."""
    return scheme_of(address) not in ("", "file")


def fetched(address: str, scratch: Path) -> Path:
    """The folder of the artifact at `address`: itself where it is local, else `scratch`, filled with its objects.

    Raises:
        ObjectNotFoundError: when there is nothing at the address.
        StorageError, InputError: when it cannot be read, or is no address.
    """
    if not is_remote(address):
        return local_path(address)
    open_store(address).download_folder("", scratch)
    return scratch


def written_to(address: str, scratch: Path) -> Path:
    """The folder to write the artifact for `address` to: itself where it is local, else `scratch`, see `deliver`."""
    return scratch if is_remote(address) else local_path(address)


def deliver(folder: Path, address: str) -> None:
    """Uploads what was written to the folder of `written_to`, if this process wrote anything and has to.

    Of several processes of one training one writes the artifact, and so one delivers it.

    Raises:
        StorageError: when it cannot be written.
    """
    if is_remote(address) and folder.exists():
        open_store(address).upload_folder(folder, "")
        logger.info("uploaded to %s", address)

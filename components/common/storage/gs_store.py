"""Objects in Google Cloud Storage, or in the emulator that STORAGE_EMULATOR_HOST names."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import google_crc32c
import requests  # type: ignore[import-untyped]
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage import transfer_manager
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from components.common.errors import InputError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.storage.gs_errors import gs_problem, no_bucket
from components.common.storage.local_files import temporary_beside
from components.common.storage.retries import with_retries
from components.common.storage.store import BucketStore, ObjectInfo, ObjectInfos, check_condition, media_type

PAGE = 1000
"""Objects that one request lists."""
PARALLEL_DOWNLOAD_BYTES = 64 * 2**20
"""From this size on a file is fetched in several ranges at once."""
_RANGE_BYTES = 32 * 2**20
_RANGE_WORKERS = 4
_LARGE_BYTES = 8 * 2**20
"""Up to this size the client library sends a file in one request, and honours a condition in every emulator."""
_INSIDE_LARGE_FILE = DEFAULT_RETRY.with_timeout(60.0)
"""Continues a large file where it broke off; `with_retries` begins it anew, and tells so in the log."""

Result = TypeVar("Result")


class GsStore(BucketStore):
    """A prefix of a bucket. Versions are generations; every transfer carries a CRC32C."""

    def __init__(self, uri: str) -> None:
        """Finds the default credentials; an emulator needs none.

        Raises:
            InputError: if the URI names no bucket, or one that there cannot be.
            StorageError: if there are no credentials, or who is to give them does not for as long as
                `with_retries` tries.
        """
        super().__init__(uri)
        self._client = self._call(None, lambda _: storage.Client(project=None))
        try:
            self._bucket = self._client.bucket(self.bucket_name)
        except ValueError as error:
            raise InputError(f"found {uri!r}, which names no bucket of Google Cloud Storage: {error}") from error

    def read_versioned(self, key: str) -> tuple[bytes, str]:
        """See `ObjectStore.read_versioned`."""

        def download(attempt: int) -> tuple[bytes, str]:
            blob = self._blob(key)
            data = blob.download_as_bytes(checksum="crc32c", retry=None)
            return data, self._generation(blob)  # from the headers of this very download

        return self._call(key, download)

    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.write`."""
        check_condition(if_version, if_absent)
        return self._upload(
            key,
            lambda blob, generation: blob.upload_from_string(
                data,
                content_type=media_type(key),
                checksum="crc32c",
                if_generation_match=generation,
                retry=None,
            ),
            0 if if_absent else None if if_version is None else int(if_version),
            lambda: _crc32c(google_crc32c.Checksum(data)),
        )

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        blob = self._call(key, lambda attempt: self._bucket.get_blob(self.full_name(key), retry=None))
        if blob is None:
            raise ObjectNotFoundError(f"{self.uri_of(key)}: there is no such object")
        return self._info(key, blob)

    def list(self, prefix: str = "") -> ObjectInfos:
        """See `ObjectStore.list`."""

        def fetch(attempt: int) -> ObjectInfos:
            blobs = self._client.list_blobs(
                self._bucket,
                prefix=self.prefix + prefix,
                page_size=PAGE,
                fields="items(name,size,generation,timeCreated),nextPageToken",
                retry=None,
            )
            return [self._info(blob.name[len(self.prefix) :], blob) for blob in blobs]

        return self.listed(self._call(None, fetch))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""

        def remove(attempt: int) -> None:
            self._blob(key).delete(retry=None)

        try:
            self._call(key, remove)
        except ObjectNotFoundError:
            return

    def upload_file(self, path: Path, key: str, *, if_absent: bool = False) -> None:
        """See `ObjectStore.upload_file`."""
        if not path.is_file():
            raise InputError(f"found no file {path} to upload to {self.uri_of(key)}")
        if if_absent and self.exists(key):  # before sending gigabytes; the condition below decides
            raise PreconditionError(f"{self.uri_of(key)}: exists already, and was to be made")

        def send(blob: storage.Blob, generation: int | None) -> None:
            size = path.stat().st_size
            blob.upload_from_filename(
                str(path),
                content_type=media_type(key),
                checksum="crc32c",
                if_generation_match=generation,
                # Of a conditional upload `_upload` has to know every attempt.
                retry=_INSIDE_LARGE_FILE if size > _LARGE_BYTES and generation is None else None,
            )
            if blob.size != size:
                raise StorageError(
                    f"{self.uri_of(key)}: found {blob.size} bytes, sent {size}: {path} changed meanwhile, or"
                    " the upload is damaged; upload it again"
                )

        self._upload(key, send, 0 if if_absent else None, lambda: _crc32c_of_file(path))

    def download_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.download_file`."""

        def fetch(attempt: int) -> None:
            blob = self._bucket.get_blob(self.full_name(key), retry=None)  # pins the generation
            if blob is None:
                raise api.NotFound("no such object")
            with temporary_beside(path) as temporary:
                if blob.size >= PARALLEL_DOWNLOAD_BYTES:
                    transfer_manager.download_chunks_concurrently(
                        blob,
                        str(temporary),
                        chunk_size=_RANGE_BYTES,
                        download_kwargs={"retry": _INSIDE_LARGE_FILE},
                        worker_type=transfer_manager.THREAD,
                        max_workers=_RANGE_WORKERS,
                    )
                else:
                    retry = _INSIDE_LARGE_FILE if blob.size > _LARGE_BYTES else None
                    blob.download_to_filename(str(temporary), checksum="crc32c", retry=retry)
                if temporary.stat().st_size != blob.size:
                    raise DataCorruption(None, f"received {temporary.stat().st_size} of {blob.size} bytes")
                os.replace(temporary, path)

        self._call(key, fetch)

    def _upload(
        self,
        key: str,
        send: Callable[[storage.Blob, int | None], None],
        generation: int | None,
        checksum: Callable[[], str],
    ) -> str:
        def upload(attempt: int) -> str:
            blob = self._blob(key)
            try:
                send(blob, generation)
            except api.PreconditionFailed:
                # After a lost answer the condition fails by one's own write: then the content is ours.
                stored = self._bucket.get_blob(self.full_name(key), retry=None) if attempt > 1 else None
                if stored is None or stored.crc32c != checksum():
                    raise
                blob = stored
            return self._generation(blob)

        return self._call(key, upload)

    def _info(self, key: str, blob: storage.Blob) -> ObjectInfo:
        size = self._given(blob, "size", blob.size)
        return ObjectInfo(key=key, size=size, version=self._generation(blob), modified=blob.time_created)

    def _generation(self, blob: storage.Blob) -> str:
        return str(self._given(blob, "generation", blob.generation))

    def _given(self, blob: storage.Blob, name: str, value: int | None) -> int:
        """A part of an answer that every server gives."""
        if value is None:
            raise StorageError(
                f"gs://{self.bucket_name}/{blob.name}: the answer has no {name}, and without it nobody knows which"
                " version of an object is there: use a server that gives it, as Google Cloud Storage does"
            )
        return value

    def _blob(self, key: str) -> storage.Blob:
        return self._bucket.blob(self.full_name(key))

    def _call(self, key: str | None, operation: Callable[[int], Result]) -> Result:
        uri = self.uri if key is None else self.uri_of(key)

        def problem(error: Exception) -> Exception | None:
            return self._missing(uri) if isinstance(error, api.NotFound) else gs_problem(uri, self.bucket_name, error)

        return with_retries(uri, operation, problem)

    def _missing(self, uri: str) -> Exception | None:
        """Tells a missing object from a missing bucket, which only a list reports in another way."""
        try:
            next(iter(self._client.list_blobs(self._bucket, max_results=1, retry=None)), None)
        except api.NotFound as error:
            return no_bucket(uri, self.bucket_name, error)
        except api.Forbidden:  # an account that may read but not list: the bucket is there
            return ObjectNotFoundError(f"{uri}: there is no such object")
        except (api.ServerError, requests.RequestException, auth.GoogleAuthError):
            return None
        return ObjectNotFoundError(f"{uri}: there is no such object")


def _crc32c(checksum: google_crc32c.Checksum) -> str:
    return base64.b64encode(checksum.digest()).decode("ascii")


def _crc32c_of_file(path: Path) -> str:
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            checksum.update(chunk)
    return _crc32c(checksum)

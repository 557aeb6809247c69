"""Objects in Amazon S3, or at AWS_ENDPOINT_URL in a server that speaks its protocol (SeaweedFS, MinIO)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.exceptions as boto
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from components.common.errors import InputError, PreconditionError, StorageError
from components.common.storage.local_files import temporary_beside
from components.common.storage.retries import one_line, with_retries
from components.common.storage.s3_errors import code_of, no_bucket, s3_problem, status_of
from components.common.storage.store import BucketStore, ObjectInfo, ObjectInfos, check_condition, media_type

PAGE = 1000
"""Objects that one request lists; S3 gives no more."""
_PART_BYTES = 16 * 2**20
_PART_WORKERS = 4
Result = TypeVar("Result")


class S3Store(BucketStore):
    """A prefix of an S3 bucket. Versions are ETags; every transfer carries a CRC32."""

    def __init__(self, uri: str) -> None:
        """Takes region, endpoint and credentials from where boto3 finds them.

        Raises:
            InputError: if the URI names no bucket.
            StorageError: if the endpoint or the profile in the environment cannot be used, or who is to give
                credentials does not for as long as `with_retries` tries.
        """
        super().__init__(uri)
        # One session for each store: boto3's default one would keep the credentials of its first use for ever.
        session = boto3.session.Session()
        # Of a conditional write every attempt has to be known.
        self._client = self._call(None, lambda _: _client(session, uri, attempts=1))
        self._transfers = _client(session, uri, attempts=5)  # a part may fail, its file does not begin anew
        self._config = TransferConfig(multipart_chunksize=_PART_BYTES, max_concurrency=_PART_WORKERS)

    def read_versioned(self, key: str) -> tuple[bytes, str]:
        """See `ObjectStore.read_versioned`."""

        def download(attempt: int) -> tuple[bytes, str]:
            answer = self._client.get_object(**self._at(key))
            return answer["Body"].read(), self._etag(answer, key)

        return self._call(key, download)

    def write(self, key: str, data: bytes, *, if_version: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.write`."""
        check_condition(if_version, if_absent)
        condition = (
            {"IfNoneMatch": "*"} if if_absent else {"IfMatch": f'"{if_version}"'} if if_version is not None else {}
        )

        def upload(attempt: int) -> str:
            try:
                return self._etag(self._client.put_object(**self._typed(key), Body=data, **condition), key)
            except boto.ClientError as error:
                # After a lost answer the condition fails by one's own write: then the content is ours.
                if status_of(error) == 412 and attempt > 1:
                    stored, version = self.read_versioned(key)
                    if stored == data:
                        return version
                if if_version and code_of(error) == "NoSuchKey":
                    raise PreconditionError(f"{self.uri_of(key)}: is gone, expected version {if_version}") from error
                raise

        return self._call(key, upload)

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        answer = self._call(key, lambda attempt: self._client.head_object(**self._at(key)))
        return ObjectInfo(
            key=key,
            size=self._given(answer, "ContentLength", key),
            version=self._etag(answer, key),
            modified=answer.get("LastModified"),
        )

    def list(self, prefix: str = "") -> ObjectInfos:
        """See `ObjectStore.list`."""

        def fetch(attempt: int) -> ObjectInfos:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket_name, Prefix=self.prefix + prefix, PaginationConfig={"PageSize": PAGE}
            )
            return [
                ObjectInfo(
                    key=each["Key"][len(self.prefix) :],
                    size=self._given(each, "Size", None),
                    version=self._etag(each, None),
                    modified=each.get("LastModified"),
                )
                for page in pages
                for each in page.get("Contents", [])
            ]

        return self.listed(self._call(None, fetch))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._call(key, lambda attempt: self._client.delete_object(**self._at(key)))

    def upload_file(self, path: Path, key: str, *, if_absent: bool = False) -> None:
        """See `ObjectStore.upload_file`; with `if_absent` S3 takes at most 5 GiB, in one request."""
        if not path.is_file():
            raise InputError(f"found no file {path} to upload to {self.uri_of(key)}")
        if if_absent and self.exists(key):  # before sending gigabytes; the condition below decides
            raise PreconditionError(f"{self.uri_of(key)}: exists already, and was to be made")
        size = path.stat().st_size

        def send(attempt: int) -> None:
            if if_absent:
                self._put_new_file(path, key, attempt)
            else:
                self._transfers.upload_file(
                    str(path),
                    *self._at(key).values(),
                    ExtraArgs={"ContentType": media_type(key)},
                    Config=self._config,
                )

        self._call(key, send)
        if (found := self.stat(key).size) != size:
            raise StorageError(
                f"{self.uri_of(key)}: found {found} bytes, sent {size}: {path} changed meanwhile, or the"
                " upload is damaged; upload it again"
            )

    def download_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.download_file`."""

        def fetch(attempt: int) -> None:
            expected = self._given(self._head(key), "ContentLength", key)
            with temporary_beside(path) as temporary:
                self._transfers.download_file(*self._at(key).values(), str(temporary), Config=self._config)
                if temporary.stat().st_size != expected:
                    raise boto.IncompleteReadError(actual_bytes=temporary.stat().st_size, expected_bytes=expected)
                os.replace(temporary, path)

        self._call(key, fetch)

    def _put_new_file(self, path: Path, key: str, attempt: int) -> None:
        try:
            with path.open("rb") as body:
                self._client.put_object(**self._typed(key), Body=body, IfNoneMatch="*")
        except boto.ClientError as error:
            if status_of(error) != 412 or attempt == 1 or self.stat(key).version != _md5_of_file(path):
                raise

    def _head(self, key: str) -> dict[str, Any]:
        """The object's metadata; this request does not tell a missing bucket from a missing object, so ask."""
        try:
            answer: dict[str, Any] = self._client.head_object(**self._at(key))
        except boto.ClientError as error:
            if status_of(error) == 404:
                self._check_bucket(self.uri_of(key))
            raise
        return answer

    def _check_bucket(self, uri: str) -> None:
        try:
            self._client.head_bucket(Bucket=self.bucket_name)
        except boto.ClientError as error:
            if status_of(error) == 404:
                raise no_bucket(uri, self.bucket_name, error) from error
            raise

    def _etag(self, answer: dict[str, Any], key: str | None) -> str:
        return str(self._given(answer, "ETag", key)).strip('"')

    def _given(self, answer: dict[str, Any], name: str, key: str | None) -> Any:
        """A part of an answer that every S3 server gives, of one object or of a list."""
        if answer.get(name) in (None, "", '""'):
            uri = f"{self.uri}: the list" if key is None else f"{self.uri_of(key)}: the answer"
            raise StorageError(
                f"{uri} has no {name}, and without it nobody knows which version of an object is there: use a"
                " server that gives it, as Amazon S3, SeaweedFS and MinIO do"
            )
        return answer[name]

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": self.full_name(key)}

    def _typed(self, key: str) -> dict[str, str]:
        return {**self._at(key), "ContentType": media_type(key)}

    def _call(self, key: str | None, operation: Callable[[int], Result]) -> Result:
        uri = self.uri if key is None else self.uri_of(key)
        return with_retries(uri, operation, lambda error: s3_problem(uri, self.bucket_name, error))


def _client(session: boto3.session.Session, uri: str, *, attempts: int) -> Any:
    try:
        return session.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": attempts}))
    except boto.CredentialRetrievalError:
        raise
    except (boto.BotoCoreError, ValueError) as error:
        raise StorageError(
            f"{uri}: {one_line(error)}: the S3 settings in the environment cannot be used (AWS_ENDPOINT_URL,"
            " AWS_PROFILE, AWS_REGION)"
        ) from error


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()

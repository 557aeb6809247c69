"""Storage addresses: which store a URI belongs to, and what its parts are."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from components.common.errors import InputError, StorageError
from components.common.printable import masked
from components.common.storage.store import ObjectStore

EXPECTED = "gs://bucket/prefix, s3://bucket/prefix, minio://bucket/prefix, file:///folder or a local folder"
"""The forms of address that `open_store` takes, as error messages name them."""

LONGEST = 10_000
"""Characters of an address, and of any other text of an option: more than a path or a prompt has."""

NO_SECRET = (
    "expected no password, signature or token in it, since it is kept with what a run makes: give credentials by the "
    "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN), and change "
    "the ones that stood there"
)
"""What is said of a secret in an address or an option."""


def open_store(uri: str) -> ObjectStore:
    """The store for the objects below `uri`; nothing is created, and a bucket has to exist already.

    `minio://` is what Kubeflow Pipelines calls the S3 server it comes with: it is read as `s3://`.

    Raises:
        InputError: if the scheme is unknown or the address has no bucket or absolute folder, or holds a secret.
        StorageError: if the client library is not installed or finds no credentials.
    """
    try:
        match scheme_of(uri):
            case "gs":
                from components.common.storage.gs_store import GsStore

                return GsStore(uri)
            case "s3" | "minio":
                from components.common.storage.s3_store import S3Store

                return S3Store(uri)
            case "file" | "":
                from components.common.storage.file_store import FileStore

                return FileStore(local_path(uri))
            case scheme:
                raise InputError(f"Unsupported storage URI scheme {scheme!r} in {uri!r}: expected one of {EXPECTED}")
    except ModuleNotFoundError as error:
        raise StorageError(
            f"{uri}: the client library for this address is not installed ({error}): install"
            " google-cloud-storage for gs://, boto3 for s3://, or run an image that has it"
        ) from error


def split_uri(uri: str) -> tuple[str, str]:
    """The URI of the folder that holds an object, and its name there: `open_store(parent).read(name)`.

    Raises:
        InputError: if `uri` names a bucket, a folder (it ends with `/`) or nothing.
    """
    scheme, separator, rest = uri.rpartition("://")
    parent, slash, name = rest.rpartition("/")
    if not name or (scheme and not parent and scheme != "file"):
        raise InputError(f"found {uri!r}, expected the address of one object, such as gs://bucket/folder/name")
    if scheme == "file":
        name = os.fsdecode(unquote_to_bytes(name))
    return f"{scheme}{separator}{parent or slash or '.'}", name


def scheme_of(uri: str) -> str:
    """The part of an address before `://`, in lower case; empty for a local path.

    Every source and store is opened by it, so here an address is refused that would take a secret into artifacts.

    Raises:
        InputError: if the address holds a password, a signature or a token, or is longer than `LONGEST`.
    """
    if len(uri) > LONGEST:
        raise InputError(f"found an address of {len(uri)} characters, expected at most {LONGEST}: {uri}")
    if masked(uri) != uri:
        raise InputError(f"found a secret in {uri!r}, {NO_SECRET}")
    return uri.partition("://")[0].lower() if "://" in uri else ""


def local_path(uri: str) -> Path:
    """The absolute folder that a `file://` URI (percent-encoded) or a plain path names.

    Raises:
        InputError: if there is no path, it holds a NUL or names the home of nobody, or a `file://` URI names a host or
            a relative path.
    """
    is_uri = scheme_of(uri) == "file"
    path = os.fsdecode(unquote_to_bytes(uri.partition("://")[2])) if is_uri else uri
    if not path:
        raise InputError(f"found an empty storage address, expected one of {EXPECTED}")
    if "\0" in path:
        raise InputError(f"found {uri!r}, expected a path without NUL, which no file's name can have")
    if is_uri and not path.startswith("/"):
        raise InputError(f"found {uri!r}, expected file:/// and an absolute path")
    path = path if is_uri else os.path.expanduser(path)
    if not is_uri and path.startswith("~"):
        raise InputError(f"found {uri!r}, expected ~ or the name of a user of this machine after it: give a whole path")
    return Path(path).absolute()


def local_uri(path: Path) -> str:
    """The `file://` URI of an absolute path; `local_path` gives the path back."""
    return "file://" + quote(os.fsencode(path))

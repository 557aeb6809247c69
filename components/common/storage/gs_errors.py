"""What a failure of Google's client libraries means: try again, or an error that gives the server's reason first."""

from __future__ import annotations

import os

import requests  # type: ignore[import-untyped]
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption

from components.common.errors import PreconditionError, StorageError
from components.common.storage.local_files import local_problem
from components.common.storage.retries import one_line, shortened

_CREDENTIALS_HINT = (
    "give the pod's account access (Workload Identity), set GOOGLE_APPLICATION_CREDENTIALS,"
    " or run `gcloud auth application-default login`"
)
_PERMISSION_REASONS = ("forbidden", "insufficientPermissions", "")
"""Other refusals of status 403 are about the account or the project, such as billing: no grant mends them."""


def gs_problem(uri: str, bucket: str, error: Exception) -> Exception | None:
    """The error to raise for a failure of the client library; None when trying again can help."""
    match error:
        case api.PreconditionFailed():
            return PreconditionError(f"{uri}: exists already or was changed by somebody else")
        case api.MethodNotImplemented():
            return StorageError(
                f"{uri}: {_answer(error)[0]}: the server cannot do this: use one with conditional writes, as"
                " Google Cloud Storage is"
            )
        case api.TooManyRequests() | api.ServerError() | api.RetryError() | DataCorruption():
            return None
        case api.GoogleAPICallError(code=408):
            return None
        case auth.DefaultCredentialsError() if not isinstance(error, auth.InvalidOperation):
            if os.environ.get("GCE_METADATA_HOST"):  # there is a metadata server, and it is away
                return None
            return StorageError(f"{uri}: {one_line(error)}: no Google credentials: {_CREDENTIALS_HINT}")
        case auth.GoogleAuthError():
            if _is_away(error):
                return None
            return StorageError(f"{uri}: {one_line(error)}: Google refuses the credentials: {_CREDENTIALS_HINT}")
        case api.Unauthorized():
            return StorageError(f"{uri}: {_answer(error)[0]}: Google refuses the credentials: {_CREDENTIALS_HINT}")
        case api.Forbidden() if _answer(error)[1] in _PERMISSION_REASONS:
            return StorageError(
                f"{uri}: {_answer(error)[0]}: permission denied: grant roles/storage.objectUser on"
                f" gs://{bucket} to the account that runs this step"
            )
        case requests.ConnectionError() | requests.Timeout():
            return None
        case requests.exceptions.ChunkedEncodingError() | ConnectionError() | TimeoutError():
            return None
        case api.GoogleAPICallError():
            return StorageError(f"{uri}: {_answer(error)[0]}: Google Cloud Storage refuses the request")
        case api.GoogleAPIError() | requests.RequestException():
            return StorageError(f"{uri}: {one_line(error)}: Google Cloud Storage refuses the request")
        case OSError():
            return local_problem(uri, error)
    return error


def no_bucket(uri: str, bucket: str, error: api.NotFound) -> StorageError:
    """The error to raise where Google knows no such bucket."""
    return StorageError(
        f"{uri}: {_answer(error)[0]}: there is no bucket {bucket}: create it"
        f" (`gcloud storage buckets create gs://{bucket}`) or correct the address"
    )


def _answer(error: api.GoogleAPICallError) -> tuple[str, str]:
    """What the server itself says, and its name for this reason, empty where it gives none."""
    try:
        said = error.response.json()["error"]
        reasons = [str(each.get("reason", "")) for each in said.get("errors", [])]
        return shortened(f"{error.code} {said['message']}").rstrip("."), (reasons or [""])[0]
    except (AttributeError, KeyError, TypeError, ValueError):  # no answer, or none of Google's
        return shortened(f"{error.code} {error.message}").rstrip("."), ""


def _is_away(error: auth.GoogleAuthError) -> bool:
    """Whether who gives the credentials, such as the metadata server of a node, may answer a moment later."""
    return error.retryable or isinstance(error, auth.TransportError) or isinstance(error.__cause__, auth.TransportError)

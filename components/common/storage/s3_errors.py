"""What a failure of the S3 client library means: try again, or an error that gives the server's reason first."""

from __future__ import annotations

import botocore.exceptions as boto
from boto3.exceptions import Boto3Error, RetriesExceededError, S3UploadFailedError

from components.common.errors import ObjectNotFoundError, PreconditionError, StorageError
from components.common.storage.local_files import local_problem
from components.common.storage.retries import one_line, shortened

_CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in a cluster from a secret such as"
    " mlpipeline-minio-artifact), or give the pod's service account a role"
)
_CREDENTIAL_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AuthFailure",
}
_PERMISSION_CODES = {"AccessDenied", "AllAccessDisabled", "Forbidden", "403", ""}
"""Other refusals of status 403 are about the account, the clock or the object, and no permission mends them."""
_TRANSIENT_CODES = {
    "SlowDown",
    "RequestTimeout",
    "ConditionalRequestConflict",
    "OperationAborted",
    "BadDigest",
    "IDPCommunicationError",
}


def s3_problem(uri: str, bucket: str, error: Exception) -> Exception | None:
    """The error to raise for a failure of the client library; None when trying again can help."""
    if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, boto.ClientError):
        error = error.__context__
    match error:
        case boto.ClientError():
            return _refusal(uri, bucket, error)
        case boto.CredentialRetrievalError() if error.kwargs.get("provider") != "custom-process":
            return None  # who gives a pod or a machine its role is away for a moment
        case boto.NoCredentialsError() | boto.PartialCredentialsError() | boto.CredentialRetrievalError():
            return StorageError(f"{uri}: {one_line(error)}: no S3 credentials: {_CREDENTIALS_HINT}")
        case boto.SSLError() | boto.ProxyConnectionError():
            return StorageError(f"{uri}: {one_line(error)}: no secure connection")
        case boto.ConnectionError() | boto.HTTPClientError() | boto.IncompleteReadError():
            return None
        case boto.FlexibleChecksumError() | RetriesExceededError() | ConnectionError() | TimeoutError():
            return None
        case boto.BotoCoreError() | Boto3Error():
            return StorageError(f"{uri}: {one_line(error)}: the S3 client refuses the request")
        case OSError():
            return local_problem(uri, error)
    return error


def _refusal(uri: str, bucket: str, error: boto.ClientError) -> Exception | None:
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        return no_bucket(uri, bucket, error)
    if status == 404:
        return ObjectNotFoundError(f"{uri}: there is no such object")
    if status == 501:
        return StorageError(
            f"{uri}: {_reason(error)}: the server cannot do this: use one with conditional writes (If-None-Match,"
            " If-Match), such as Amazon S3, SeaweedFS or MinIO"
        )
    if status == 412:
        return PreconditionError(f"{uri}: exists already or was changed by somebody else")
    if code in _TRANSIENT_CODES or status == 429 or status >= 500:
        return None
    said = f"{uri}: {_reason(error)}"
    if code in _CREDENTIAL_CODES or status == 401 or error.operation_name.startswith("Assume"):
        return StorageError(f"{said}: the server refuses the credentials: {_CREDENTIALS_HINT}")
    if code in _PERMISSION_CODES:
        return StorageError(
            f"{said}: permission denied: allow s3:GetObject, s3:PutObject, s3:DeleteObject and"
            f" s3:ListBucket on {bucket}"
        )
    return StorageError(f"{said}: the server refuses the request ({error.operation_name}, status {status})")


def no_bucket(uri: str, bucket: str, error: boto.ClientError) -> StorageError:
    """The error to raise where the server knows no such bucket."""
    return StorageError(
        f"{uri}: {_reason(error)}: there is no bucket {bucket}: create it"
        f" (`aws s3 mb s3://{bucket}`) or correct the address"
    )


def _reason(error: boto.ClientError) -> str:
    """What the server itself says, such as `AccessDenied: Access Denied`; a HEAD request has the status alone."""
    message = str(error.response.get("Error", {}).get("Message", ""))
    return shortened(f"{code_of(error)}: {message}".strip(": ."))


def code_of(error: boto.ClientError) -> str:
    """The server's name for what went wrong; of a HEAD request the status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: boto.ClientError) -> int:
    """The HTTP status, 0 where there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))

"""The REST API of a Kubeflow Model Registry, by `requests`: found, made or changed, one resource at a time.

The token is the variable `MODEL_REGISTRY_TOKEN`, or in the file that `MODEL_REGISTRY_TOKEN_PATH` names or, as Kubeflow
sets it for pipelines, `KF_PIPELINES_SA_TOKEN_PATH`; a server without authentication needs none. Certificates are
checked against `REQUESTS_CA_BUNDLE` where it is set.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import requests  # type: ignore[import-untyped]

from components.common.errors import DestinationError
from components.common.foreign_json import parse_json, record_of
from components.common.storage.local_files import local_errors
from components.common.storage.retries import one_line, shortened, with_retries

TOKEN_VARIABLE = "MODEL_REGISTRY_TOKEN"
"""Environment variable with the token."""

TOKEN_PATH_VARIABLES = ("MODEL_REGISTRY_TOKEN_PATH", "KF_PIPELINES_SA_TOKEN_PATH")
"""Environment variables that name a file with it."""

_VERSIONS = ("v1", "v1alpha3")  # of the API, newest first; what is asked here is the same in both
_TIMEOUT_S = 30.0
_PAGE_SIZE = 100
_MOST_PAGES = 1000
_ADVICE = "Check that the Model Registry is up and that its address (model_registry_uri) is right"

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resource:
    """What is worth knowing of a registered model, a version or an artifact; named as the API names it."""

    id: str
    name: str | None = None
    externalId: str | None = None
    uri: str | None = None
    customProperties: Mapping[str, Any] | None = None

    def text(self, name: str) -> str:
        """The custom property of that name; empty where there is none or it is no text."""
        value = (self.customProperties or {}).get(name)
        found = value.get("string_value") if isinstance(value, dict) else None
        return found if isinstance(found, str) else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Page:
    items: tuple[Mapping[str, Any], ...] | None = None
    nextPageToken: str | None = None


class _RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, retry_after: str) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = float(retry_after) if retry_after.isdecimal() else 0.0


class Client:
    """One session with a server."""

    def __init__(self, uri: str, session: requests.Session, token: str) -> None:
        self._uri, self._session, self._token = uri, session, token
        self._api = ""

    def find(self, kind: str, **wanted: str) -> Resource | None:
        """The resource with that name, below a parent where one is given; None when there is none."""
        content = self._ask("GET", kind, params=wanted, none_if_absent=True)
        return None if content is None else record_of(Resource, content)

    def all(self, path: str) -> Iterator[Resource]:
        """Every resource of a list."""
        token = ""
        for _ in range(_MOST_PAGES):
            page = record_of(_Page, self._ask("GET", path, params={"pageSize": _PAGE_SIZE, "nextPageToken": token}))
            yield from (record_of(Resource, item) for item in page.items or ())
            token = page.nextPageToken or ""
            if not token:
                return
        raise ValueError(f"{path} has more than {_MOST_PAGES} pages")

    def create(self, path: str, content: Mapping[str, Any]) -> Resource:
        """The resource that was made."""
        return record_of(Resource, self._ask("POST", path, json=content))

    def change(self, path: str, content: Mapping[str, Any]) -> Resource:
        """The resource after these fields of it were set."""
        return record_of(Resource, self._ask("PATCH", path, json=content))

    def address(self, path: str) -> str:
        """The URL of a resource."""
        if not self._api:
            self._api = self._find_api()
        return f"{self._uri}/api/model_registry/{self._api}/{path}"

    def _find_api(self) -> str:
        for version in _VERSIONS[:-1]:
            url = f"{self._uri}/api/model_registry/{version}/registered_models"
            if self._send("GET", url, params={"pageSize": 1}, none_if_absent=True) is not None:
                return version
        return _VERSIONS[-1]

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        return self._send(method, self.address(path), **more)

    def _send(self, method: str, url: str, *, none_if_absent: bool = False, **more: Any) -> Any:
        """The JSON value of an answer; a redirection, which leads to a page for people, is none."""
        answer = self._session.request(
            method, url, timeout=_TIMEOUT_S, allow_redirects=False, auth=self._authorize, **more
        )
        if answer.status_code == 404 and none_if_absent:
            return None
        if answer.status_code not in (200, 201):
            message = f"{method} {url}: {answer.status_code} {shortened(answer.text)}"
            message = message.replace(self._token, "***") if self._token else message
            raise _RefusedError(answer.status_code, message, answer.headers.get("Retry-After", ""))
        return parse_json(answer.content)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """As `auth`, for a header alone would give way to a password in ~/.netrc."""
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def with_client(uri: str, work: Callable[[Client], Result]) -> Result:
    """What `work` returns, begun again while the server is away or somebody else makes the same.

    Raises:
        DestinationError: when the server refuses what is asked, or is none.
        StorageError: when it stays away, or the token's file cannot be read.
    """
    token = _token()

    def attempt(number: int) -> Result:
        with requests.Session() as session:
            return work(Client(uri, session, token))

    return with_retries(uri, attempt, _problem, asked_wait=_asked_wait, advice=_ADVICE)


def _token() -> str:
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    for variable in TOKEN_PATH_VARIABLES:
        if path := os.environ.get(variable):
            with local_errors(path):
                return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _asked_wait(error: Exception) -> float:
    return error.retry_after if isinstance(error, _RefusedError) else 0.0


def _problem(error: Exception) -> Exception | None:
    """The error to raise for a failure; None when trying again can help."""
    match error:
        case _RefusedError(status=301 | 302 | 303 | 307 | 308 | 401):
            return DestinationError(
                f"the Model Registry wants to know who asks ({error}): set {TOKEN_VARIABLE} to a token that has not "
                f"expired, or {TOKEN_PATH_VARIABLES[0]} to a file with it; pods have it from the secret "
                "textual-inversion-model-registry"
            )
        case _RefusedError(status=403):
            return DestinationError(f"the Model Registry refuses access ({error}): allow the token's account to write")
        case _RefusedError(status=status) if status in (408, 409, 429) or status >= 500:
            return None  # 409: made by somebody else, or by an attempt whose answer was lost; it is found now
        case _RefusedError():
            return DestinationError(f"the Model Registry refuses the request: {error}")
        case requests.exceptions.SSLError():
            return DestinationError(
                f"the Model Registry has a certificate that is not trusted ({one_line(error)}): set REQUESTS_CA_BUNDLE "
                "to a file with its authority"
            )
        case requests.ConnectionError() | requests.Timeout() | requests.exceptions.ChunkedEncodingError():
            return None
        case requests.RequestException() | ValueError():
            return DestinationError(
                f"the Model Registry gives no usable answer ({one_line(error)}): is model_registry_uri the address of "
                "one?"
            )
    return error

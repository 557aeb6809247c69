"""The API of a Kubeflow Pipelines installation, as whoever is logged in."""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import kfp
import kfp_server_api
import urllib3
from kfp.client import ServiceAccountTokenVolumeCredentials

from components.common.errors import ClusterError, ConfigError
from components.common.printable import masked

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
"""The three that `kfp.Client` reads too."""
TOKEN_VARIABLE = "KF_PIPELINES_TOKEN"
COOKIES_VARIABLE = "KF_PIPELINES_COOKIES"
"""Secrets: they have no flags, which everyone on the machine could read."""

PAGE_SIZE = 100

_RETRIES = urllib3.Retry(
    total=5,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "DELETE"),  # a POST whose answer was lost may have made a run: see `Connection.ask`
    raise_on_status=False,
)
_ANSWER_SECONDS = (10, 60)
"""How long a connection and an answer may take."""

_ADVICE = {
    400: "",
    401: f"log in again: the token ({TOKEN_VARIABLE}, {TOKEN_FILE_VARIABLE}) or cookies ({COOKIES_VARIABLE}) are "
    "missing, wrong or expired",
    403: "ask for the right to do this in that namespace, or name your own by --namespace",
    404: "look at the address of --host, and whether it has been deleted",
}

Answer = TypeVar("Answer")


class Connection:
    """The API, as whoever the environment logs in.

    Attributes:
        namespace: the user's own, where the installation has several users; else None.
    """

    def __init__(self, client: kfp.Client, namespace: str | None, ui: str) -> None:
        """See `connect`."""
        self.client, self.namespace = client, namespace
        self._ui = (ui or self.host).rstrip("/")
        pool = self._api_client.rest_client.pool_manager
        pool.connection_pool_kw["retries"] = _RETRIES
        pool.clear()

    def ask(self, what: str, call: Callable[..., Answer], *arguments: Any, **more: Any) -> Answer:
        """What the API answers.

        Args:
            what: what is done, for the error: "creating the run x".
            call: a method of one of the client's generated APIs.
            arguments: for the method.
            more: for the method.

        Raises:
            ClusterError: when it refuses, or gives no answer; `status_of` says which.
        """
        try:
            return call(*arguments, **more, _request_timeout=_ANSWER_SECONDS)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _refusal(what, error, self.host) from error

    def pages(self, what: str, call: Callable[..., Any], field: str, **more: Any) -> Iterator[Any]:
        """Every item of a list, page by page.

        Args:
            what: what is listed, for the error.
            call: a list method of a generated API.
            field: the answer's field that holds the items.
            more: for the method.

        Raises:
            ClusterError: see `ask`.
        """
        token = ""
        while True:
            answer = self.ask(what, call, page_token=token, page_size=PAGE_SIZE, **more)
            yield from getattr(answer, field) or ()
            if not (token := answer.next_page_token or ""):
                return

    @property
    def host(self) -> str:
        """The address of the API."""
        return str(self._api_client.configuration.host)

    def run_link(self, run_id: str) -> str:
        """Where the UI shows a run."""
        return f"{self._ui}/#/runs/details/{run_id}"

    def schedule_link(self, recurring_run_id: str) -> str:
        """Where the UI shows a recurring run."""
        return f"{self._ui}/#/recurringrun/details/{recurring_run_id}"

    def read(self, what: str, path: str, **path_parameters: str) -> bytes:
        """The body of an answer that the generated APIs have no method for.

        Args:
            what: what is read, for the error.
            path: of the API, with `{names}` of the parameters.
            path_parameters: their values.

        Raises:
            ClusterError: see `ask`.
        """
        answer = self.ask(
            what,
            self._api_client.call_api,
            path,
            "GET",
            path_params=path_parameters,
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        return bytes(answer.data)

    @property
    def _api_client(self) -> Any:
        return self.client.runs.run_service_get_run.__self__.api_client


class _Client(kfp.Client):
    """The client of KFP, which asks once whether an installation has several users, and not for half a minute."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> kfp_server_api.V2beta1GetHealthzResponse:
        """See `kfp.Client.get_kfp_healthz`."""
        return self.healthzs.healthz_service_get_healthz(_request_timeout=_ANSWER_SECONDS)


def filter_by_name(name: str) -> str:
    """The filter of a list by display name, as the API takes it."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def status_of(error: ClusterError) -> int | None:
    """The HTTP status that the API refused with; None when there was no answer."""
    return getattr(error.__cause__, "status", None)


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `connect` reads."""
    flags = parser.add_argument_group("Kubeflow Pipelines")
    flags.add_argument(
        "--host",
        default=os.environ.get(HOST_VARIABLE, ""),
        help=f"address of the API, such as https://kubeflow.example.com/pipeline ({HOST_VARIABLE}); without one, that "
        "of the cluster that this runs in, or of the kubeconfig's current context",
    )
    flags.add_argument(
        "--ui-host", default=os.environ.get(UI_VARIABLE, ""), help=f"address of the UI, for links ({UI_VARIABLE})"
    )
    flags.add_argument("--namespace", default="", help="your namespace, where an installation has several users")
    flags.add_argument("--ca-file", default="", help="certificate of the authority that signed the API's, as PEM")


def connect(arguments: argparse.Namespace) -> Connection:
    """The API that the flags and the environment's secrets stand for.

    Raises:
        ConfigError: when a file that is named is not there.
        ClusterError: when nothing answers there.
    """
    if arguments.ca_file and not os.path.isfile(arguments.ca_file):
        raise ConfigError(f"--ca-file: found no file {arguments.ca_file!r}, expected a certificate as PEM")
    token = os.environ.get(TOKEN_VARIABLE, "")
    has_file = not token and os.environ.get(TOKEN_FILE_VARIABLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that it needs a backend of version 2
            client = _Client(
                host=arguments.host or None,
                existing_token=token or None,
                cookies=os.environ.get(COOKIES_VARIABLE) or None,
                credentials=ServiceAccountTokenVolumeCredentials() if has_file else None,
                ssl_ca_cert=arguments.ca_file or None,
                ui_host=arguments.ui_host or None,
                **({"namespace": arguments.namespace} if arguments.namespace else {}),
            )
    except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise _refusal("connecting", error, arguments.host or "this cluster's or kubeconfig's address") from error
    return Connection(client, arguments.namespace or client.get_user_namespace() or None, arguments.ui_host)


def _refusal(what: str, error: Exception, host: str) -> ClusterError:
    if isinstance(error, kfp_server_api.ApiException) and error.status:
        advice = _ADVICE.get(error.status, "the same command may be given again")
        told = f"{what}: Kubeflow Pipelines answers {error.status} ({_message(error)})"
        return ClusterError(f"{told}; {advice}" if advice else told)
    return ClusterError(
        f"{what}: found no usable answer from {host} ({_line(error)}), expected the API of Kubeflow Pipelines; check "
        f"--host ({HOST_VARIABLE}) and --ca-file, and give the same command again"
    )


def _message(error: kfp_server_api.ApiException) -> str:
    """What the API says in its error object, in one line, or the HTTP reason."""
    try:
        told = json.loads(error.body)
        text = told.get("error_message") or told.get("message") or told.get("error")
    except (TypeError, ValueError, AttributeError):
        text = None
    return _line(text or error.reason or "without a reason")


def _line(told: object) -> str:
    return masked(" ".join(str(told).split()))[:500]

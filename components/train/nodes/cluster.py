"""What the launcher asks of Kubernetes: TrainJobs, their pods, logs and events, in one namespace."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config, watch

from components.common.errors import ClusterError
from components.train.nodes.trainjob import GROUP, NODE, PLURAL, VERSION

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POD_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Kubeflow Trainer makes a JobSet of the TrainJob's name, and JobSet gives its pods this label."""
_RUN_OF_POD = "pipeline/runid"

_RETRIES = urllib3.Retry(
    total=12,  # about four minutes: longer than an API server takes to be upgraded
    backoff_factor=0.5,
    backoff_max=30,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,  # also POST: if its answer was lost, the next one finds the object made already
    raise_on_status=False,
)
_ANSWER_SECONDS = (10, 60)
"""How long a connection and an answer may take."""
_URGENT_SECONDS = 0.8
"""The same for the one request that a terminated step can still make."""
_SILENCE_SECONDS = 300
"""A log without a line for so long is asked for anew: the connection may be dead."""
_RIGHTS = (
    "allow the service account of this step to create, get, list, watch, patch and delete"
    f" {PLURAL}.{GROUP}, and to get, list and watch pods, pods/log and events"
)

Result = TypeVar("Result")


class Cluster:
    """The Kubernetes API, as the pod's service account or the kubeconfig's user.

    Requests are repeated while the API server is away; what it refuses is a `ClusterError` from every method.
    """

    def __init__(self) -> None:
        """Reads the account's token, or the kubeconfig's current context, and contacts nobody.

        Raises:
            ClusterError: when there is neither.
        """
        settings = client.Configuration()
        self.namespace = _load(settings)
        settings.retries = _RETRIES
        settings.connection_pool_maxsize = 100  # a log of each pod is a connection
        urgent = copy.copy(settings)
        urgent.retries = False
        self._objects = client.CustomObjectsApi(client.ApiClient(settings))
        self._urgent = client.CustomObjectsApi(client.ApiClient(urgent))
        self._core = client.CoreV1Api(self._objects.api_client)

    def create(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """The TrainJob that was made; None when there is one of that name."""
        try:
            return self._call(
                f"creating {job['metadata']['name']}",
                self._objects.create_namespaced_custom_object,
                *self._trainjobs,
                job,
            )
        except ClusterError as error:
            if _status(error) == 409:
                return None
            raise

    def get(self, name: str) -> dict[str, Any] | None:
        """The TrainJob as it is now; None when there is none."""
        try:
            return self._call(f"reading {name}", self._objects.get_namespaced_custom_object, *self._trainjobs, name)
        except ClusterError as error:
            if _status(error) == 404:
                return None
            raise

    def set_owner(self, name: str, owner: dict[str, Any]) -> dict[str, Any]:
        """The TrainJob, from now on deleted with `owner` and with nothing else."""
        patch = {"metadata": {"ownerReferences": [owner]}}
        return self._call(
            f"taking over {name}", self._objects.patch_namespaced_custom_object, *self._trainjobs, name, patch
        )

    def delete(self, name: str) -> None:
        """Deletes a TrainJob; one that is absent is fine. Its name is free when its pods are gone."""
        self._delete(self._objects, name, _ANSWER_SECONDS)

    def delete_at_once(self, name: str) -> None:
        """The same within a second or not at all: for a process that is being terminated."""
        self._delete(self._urgent, name, _URGENT_SECONDS)

    def wait_for_change(self, job: dict[str, Any], seconds: int) -> None:
        """Returns when a TrainJob is no longer as in `job`, or after `seconds`; it may return early."""
        changes = watch.Watch().stream(
            self._objects.list_namespaced_custom_object,
            *self._trainjobs,
            field_selector=f"metadata.name={job['metadata']['name']}",
            resource_version=job["metadata"]["resourceVersion"],
            timeout_seconds=seconds,
            _request_timeout=(10, seconds + 10),
        )
        try:
            next(changes, None)
        except (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError):
            return  # the connection broke: whoever waits looks again
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            if getattr(error, "status", None) != 410:  # that version is forgotten: look again
                raise _refusal(f"watching {job['metadata']['name']}", error) from error
        finally:
            changes.close()

    def pods(self, name: str) -> list[client.V1Pod]:
        """The pods of a TrainJob, sorted by name."""
        found = self._call(
            f"listing the pods of {name}",
            self._core.list_namespaced_pod,
            self.namespace,
            label_selector=f"{_POD_LABEL}={name}",
        )
        return sorted(found.items, key=lambda pod: str(pod.metadata.name))

    def run_of(self, pod: str) -> str:
        """The pipeline run that a pod is a step of, as Kubeflow Pipelines labels it; empty when it is none."""
        found = self._call(f"reading the pod {pod}", self._core.read_namespaced_pod, pod, self.namespace)
        return str((found.metadata.labels or {}).get(_RUN_OF_POD, ""))

    def follow_log(self, pod: str) -> Iterator[str]:
        """Every line of the trainer's log in a pod, each after its time stamp, until the container ends.

        Raises:
            ClusterError: when there is no log, or the connection broke.
        """
        lines = watch.Watch().stream(
            self._core.read_namespaced_pod_log,
            name=pod,
            namespace=self.namespace,
            container=NODE,
            timestamps=True,
            _request_timeout=(10, _SILENCE_SECONDS),
        )
        try:
            yield from lines
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise _refusal(f"following the log of {pod}", error) from error

    def log_tail(self, pod: str, lines: int) -> list[str]:
        """The last lines of the trainer's log in a pod."""
        text = self._call(
            f"reading the log of {pod}",
            self._core.read_namespaced_pod_log,
            pod,
            self.namespace,
            container=NODE,
            tail_lines=lines,
        )
        return str(text).splitlines()

    def warnings(self, name: str) -> list[str]:
        """What Kubernetes has to complain about the TrainJob and its JobSet, oldest first."""
        found = self._call(
            f"listing the events of {name}",
            self._core.list_namespaced_event,
            self.namespace,
            field_selector=f"involvedObject.name={name},type=Warning",
        )

        def when(event: client.CoreV1Event) -> datetime.datetime:
            return event.last_timestamp or event.event_time or event.metadata.creation_timestamp

        return list(dict.fromkeys(f"{event.reason}: {event.message}" for event in sorted(found.items, key=when)))

    @property
    def _trainjobs(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _delete(self, api: client.CustomObjectsApi, name: str, timeout: Any) -> None:
        try:
            _answered(
                f"deleting {name}",
                lambda: api.delete_namespaced_custom_object(
                    *self._trainjobs, name, propagation_policy="Foreground", _request_timeout=timeout
                ),
            )
        except ClusterError as error:
            if _status(error) != 404:
                raise

    def _call(self, what: str, method: Callable[..., Result], *arguments: Any, **more: Any) -> Result:
        return _answered(what, lambda: method(*arguments, **more, _request_timeout=_ANSWER_SECONDS))


def _load(settings: client.Configuration) -> str:
    """Fills in address and credentials; gives the namespace to work in."""
    try:
        config.load_incluster_config(client_configuration=settings)
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except config.ConfigException:
        pass  # not in a pod
    try:
        config.load_kube_config(client_configuration=settings)
        return str(config.list_kube_config_contexts()[1]["context"].get("namespace", "default"))
    except config.ConfigException as error:
        raise ClusterError(
            f"found neither a pod's service account nor a kubeconfig ({error}): run this in a cluster, or set"
            " KUBECONFIG"
        ) from error


def _answered(what: str, ask: Callable[[], Result]) -> Result:
    try:
        return ask()
    except (client.ApiException, urllib3.exceptions.HTTPError) as error:
        raise _refusal(what, error) from error


def _refusal(what: str, error: Exception) -> ClusterError:
    status = getattr(error, "status", None)
    if not status:
        return ClusterError(f"{what}: no answer from the Kubernetes API: {' '.join(str(error).split())}")
    advice = {401: f": {_RIGHTS}", 403: f": {_RIGHTS}"}.get(status, "")
    return ClusterError(f"{what}: the Kubernetes API answers {status} {_message(error)}{advice}")


def _message(error: Any) -> str:
    """What the API says in its `Status` object, or the HTTP reason."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _status(error: ClusterError) -> int | None:
    return getattr(error.__cause__, "status", None)

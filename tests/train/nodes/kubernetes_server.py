"""The part of the Kubernetes API that the launcher uses, over HTTP on loopback, as strict as the real one.

TrainJobs live through what a test tells: `start_pods`, `write`, `end_pod`, `condition`. What a real API server would
refuse is refused with its status, and kept in `refusals`, so that no test passes by accident.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from pydantic import ValidationError

from tests.servers import LoopbackServer, QuietHandler

NAMESPACE = "ml"
RUNTIMES = ("textual-inversion-torch", "textual-inversion-jax")
_TRAINJOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
_CORE = f"/api/v1/namespaces/{NAMESPACE}"
_WATCH_PARAMETERS = {"fieldSelector", "resourceVersion", "timeoutSeconds", "watch"}
_LOG_PARAMETERS = {"container", "follow", "tailLines", "timestamps"}

Scenario = Callable[["KubernetesServer", str], None]


class KubernetesServer(LoopbackServer):
    """A namespace with Kubeflow Trainer in it; `scenario` plays what happens to each TrainJob that is made."""

    def __init__(self, scenario: Scenario | None = None) -> None:
        super().__init__(_KubernetesHandler)
        self.scenario = scenario
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[str]] = {}
        self.events: list[dict[str, Any]] = []
        self.made: list[dict[str, Any]] = []
        self.deleted: list[tuple[str, float]] = []
        self.refusals: list[str] = []
        self.forbidden: set[tuple[str, str]] = set()
        self.deletes_slowly = False
        self.breaks_after_lines: int | None = None
        self.forgets_versions = False
        self.fails: list[int] = []
        self.changed = threading.Condition(threading.RLock())
        self._history: list[tuple[int, str, dict[str, Any]]] = []
        self._version = 100
        self._stamp = 0
        self._threads: list[threading.Thread] = []

    def kubeconfig(self, path: Path, *, url: str | None = None) -> Path:
        """Writes the configuration that leads a client here, or to another address."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "loopback", "cluster": {"server": url or self.url}}],
            "users": [{"name": "launcher", "user": {"token": "of-the-launcher"}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "loopback", "user": "launcher", "namespace": NAMESPACE}}
            ],
            "current-context": "here",
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def stop(self) -> None:
        super().stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "the scenario has not come to its end"

    def wait_for(self, method: str, part: str, *, times: int = 1) -> None:
        """Returns when that many requests of a method were made to paths with `part` in them."""
        self.wait_until(lambda: self.count(method, part) >= times)

    def count(self, method: str, part: str) -> int:
        """How many requests of a method were made to paths with `part` in them."""
        return sum(verb == method and part in path for verb, path in self.requests)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, timeout=60), f"never came true; requests: {self.requests}"

    # What happens in the cluster.

    def put(self, job: dict[str, Any]) -> None:
        """A TrainJob that somebody made before."""
        with self.changed:
            job = copy.deepcopy(job)
            self._version += 1
            job["metadata"] |= {"uid": str(uuid.uuid4()), "resourceVersion": str(self._version), "generation": 1}
            job["metadata"] |= {"creationTimestamp": "2026-11-23T04:00:00Z", "namespace": NAMESPACE}
            self.jobs[job["metadata"]["name"]] = job
            self._note("ADDED", job)

    def start_step(self, name: str, run_id: str) -> None:
        """A pod of a pipeline's step runs."""
        with self.changed:
            self.pods[name] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"pipeline/runid": run_id}},
                "spec": {"containers": [{"name": "main", "image": "launcher"}]},
                "status": {"phase": "Running"},
            }

    def start_pods(self, name: str, *, waiting: dict[str, str] | None = None) -> list[str]:
        """The pods of a TrainJob run, or wait for a reason; gives their names."""
        with self.changed:
            nodes = self.jobs[name]["spec"]["trainer"]["numNodes"]
            made = [self._pod(name, index, waiting) for index in range(nodes)]
            for pod in made:
                self.pods[pod["metadata"]["name"]] = pod
                self.logs[pod["metadata"]["name"]] = []
            ready = 0 if waiting else 1
            status = {"name": "node", "active": 1, "ready": ready, "succeeded": 0, "failed": 0, "suspended": 0}
            self._update(name, {"jobsStatus": [status]})
            return [pod["metadata"]["name"] for pod in made]

    def write(self, pod: str, *lines: str) -> None:
        """The trainer in a pod writes to its log."""
        with self.changed:
            for line in lines:
                self._stamp += 1
                self.logs[pod].append(f"2026-11-23T04:42:32.{self._stamp:09d}Z {line}")
            self.changed.notify_all()

    def end_pod(self, pod: str, exit_code: int, reason: str = "", message: str = "", at: int = 0) -> None:
        """The trainer in a pod ends."""
        with self.changed:
            end = {"exitCode": exit_code, "reason": reason or ("Error" if exit_code else "Completed")}
            end |= {"message": message, "finishedAt": f"2026-11-23T05:00:{at:02d}Z"}
            status = self.pods[pod]["status"]
            status["phase"] = "Failed" if exit_code else "Succeeded"
            status["containerStatuses"][0]["state"] = {"terminated": end}
            self.changed.notify_all()

    def condition(self, name: str, kind: str, reason: str, message: str, status: str = "True") -> None:
        """The controller sets a condition of a TrainJob."""
        with self.changed:
            kept = [c for c in self.jobs[name].get("status", {}).get("conditions", []) if c["type"] != kind]
            new = {"type": kind, "status": status, "reason": reason, "message": message}
            new["lastTransitionTime"] = "2026-11-23T04:42:32Z"
            self._update(name, {"conditions": [*kept, new]})

    def complain(self, name: str, reason: str, message: str, at: int = 0) -> None:
        """The controller records a warning about a TrainJob."""
        with self.changed:
            self.events.append(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": f"{name}.{len(self.events)}", "namespace": NAMESPACE},
                    "involvedObject": {"kind": "TrainJob", "name": name, "namespace": NAMESPACE},
                    "eventTime": f"2026-11-23T04:42:{at:02d}.000000Z",
                    "type": "Warning",
                    "reason": reason,
                    "message": message,
                }
            )

    def collect(self, name: str) -> None:
        """What was deleted is gone, and its pods before it."""
        with self.changed:
            job = self.jobs.pop(name)
            for pod in [pod for pod, content in self.pods.items() if _labels(content).get(_JOBSET) == name]:
                del self.pods[pod]
            self._note("DELETED", job)

    def _pod(self, name: str, index: int, waiting: dict[str, str] | None) -> dict[str, Any]:
        state = {"waiting": waiting} if waiting else {"running": {"startedAt": "2026-11-23T04:42:32Z"}}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-node-0-{index}-{uuid.uuid4().hex[:5]}",
                "namespace": NAMESPACE,
                "uid": str(uuid.uuid4()),
                "labels": {_JOBSET: name},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            },
            "spec": {"containers": [{"name": "node", "image": "trainer"}], "nodeName": f"machine-{index}"},
            "status": {
                "phase": "Pending" if waiting else "Running",
                "containerStatuses": [
                    {
                        "name": "node",
                        "image": "trainer",
                        "imageID": "",
                        "ready": not waiting,
                        "restartCount": 0,
                        "state": state,
                    }
                ],
            },
        }

    def _update(self, name: str, status: dict[str, Any]) -> None:
        job = self.jobs[name]
        job.setdefault("status", {}).update(status)
        self._touch(job)

    def _touch(self, job: dict[str, Any]) -> None:
        self._version += 1
        job["metadata"]["resourceVersion"] = str(self._version)
        self._note("MODIFIED", job)

    def _note(self, kind: str, job: dict[str, Any]) -> None:
        self._history.append((int(job["metadata"]["resourceVersion"]), kind, copy.deepcopy(job)))
        self.changed.notify_all()

    # What clients ask for; each gives a status and a body.

    def create(self, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = job["metadata"]["name"]
        problem = problem_of(job)
        if problem:
            return self.refuse(422, f"TrainJob {name!r} is invalid: {problem}")
        if name in self.jobs:
            return _status(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        self.made.append(copy.deepcopy(job))
        self.put(job)
        if self.scenario is not None:
            self._threads.append(threading.Thread(target=self.scenario, args=[self, name]))
            self._threads[-1].start()
        return 201, self.jobs[name]

    def read(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return _status(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        return 200, self.jobs[name]

    def patch(self, name: str, content_type: str, patch: Any) -> tuple[int, dict[str, Any]]:
        if content_type != "application/merge-patch+json":  # custom resources know no strategic merge
            return self.refuse(415, f"the body of the request was in an unknown format: {content_type}")
        if list(patch) != ["metadata"] or list(patch["metadata"]) != ["ownerReferences"]:
            return self.refuse(422, f"unexpected patch {patch}")
        with self.changed:
            self.jobs[name]["metadata"] |= patch["metadata"]
            self._touch(self.jobs[name])
        return 200, self.jobs[name]

    def delete(self, name: str, policy: str | None) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return self.read(name)
        if policy != "Foreground":
            return self.refuse(400, f"propagationPolicy {policy}: the name would be free before the pods are gone")
        with self.changed:
            self.deleted.append((name, time.monotonic()))
            self.jobs[name]["metadata"] |= {
                "deletionTimestamp": "2026-11-23T05:00:00Z",
                "finalizers": ["foregroundDeletion"],
            }
            self._touch(self.jobs[name])
            if not self.deletes_slowly:
                self.collect(name)
        return 200, _status(200, "deleted")[1]

    def refuse(self, code: int, message: str) -> tuple[int, dict[str, Any]]:
        self.refusals.append(f"{code} {message}")
        return _status(code, message)

    def changes_after(self, name: str, version: int) -> list[dict[str, Any]]:
        return [
            {"type": kind, "object": job}
            for at, kind, job in self._history
            if at > version and job["metadata"]["name"] == name
        ]


_JOBSET = "jobset.sigs.k8s.io/jobset-name"


def problem_of(job: dict[str, Any]) -> str | None:
    """Why the API server, or the Trainer's webhook, would refuse a TrainJob; None when it would not."""
    try:
        again = TrainerV1alpha1TrainJob.from_dict(copy.deepcopy(job)).to_dict()
    except ValidationError as error:
        return str(error)
    lost = sorted(set(paths_of(job)) ^ set(paths_of(json.loads(json.dumps(again, default=str)))))
    if lost:
        return f"unknown fields {lost}"
    name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
    runtime, patches = job["spec"]["runtimeRef"], job["spec"]["runtimePatches"]
    pods = [
        each["template"]["spec"]["template"]["spec"]
        for patch in patches
        for each in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    ]
    rules = {
        "metadata.name must be a DNS label of RFC 1035": re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name),
        "the names of its pods must be 63 characters or less": len(f"{name}-node-0-999-abcde") <= 63,
        "spec.runtimeRef must name a runtime of this namespace": runtime
        == {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": runtime["name"]}
        and runtime["name"] in RUNTIMES,
        "command and args must have at most 128 items": max(len(trainer["command"]), len(trainer["args"])) <= 128,
        "activeDeadlineSeconds must be 1 or more": job["spec"]["activeDeadlineSeconds"] >= 1,
        "numProcPerNode must be 1 or more": trainer.get("numProcPerNode", 1) >= 1,
        "manager must be a domain-prefixed path": all(re.fullmatch(r"[a-z0-9.-]+/\S+", p["manager"]) for p in patches),
        "env of the container node may not be patched": not any(
            "env" in container for pod in pods for container in pod.get("containers", [])
        ),
        "label values must be 63 characters or less": all(len(each) <= 63 for each in _labels(job).values()),
    }
    return next((rule for rule, holds in rules.items() if not holds), None)


def paths_of(value: Any, path: str = "") -> list[str]:
    """The path of every leaf of a JSON value, with the leaf's text."""
    if isinstance(value, dict) and value:
        return [leaf for key, each in value.items() for leaf in paths_of(each, f"{path}.{key}")]
    if isinstance(value, list) and value:
        return [leaf for index, each in enumerate(value) for leaf in paths_of(each, f"{path}[{index}]")]
    return [f"{path}={value}"]


def _labels(content: dict[str, Any]) -> dict[str, str]:
    return content["metadata"].get("labels", {})


def _status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    reasons = {403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired", 422: "Invalid"}
    kind = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "code": code, "message": message}
    return code, {**kind, "status": "Success" if code < 300 else "Failure", "reason": reasons.get(code, "Unknown")}


class _KubernetesHandler(QuietHandler):
    def _handle(self) -> None:
        server: KubernetesServer = self.server.owner  # type: ignore[attr-defined]
        address = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(address.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with server.changed:
            server.requests.append((self.command, self.path))
            server.changed.notify_all()
            if self.headers.get("Authorization") != "Bearer of-the-launcher":
                return self._answer(server.refuse(401, "Unauthorized"))
            resource = "pods/log" if address.path.endswith("/log") else address.path.split("/")[-1]
            if (self.command, resource) in server.forbidden:
                return self._answer(_status(403, f"{resource} is forbidden: no RBAC policy matched"))
            if server.fails:
                return self._answer(_status(server.fails.pop(), "the API server is not ready"))
            if "watch" not in query and "follow" not in query:
                return self._answer(self._route(server, address.path, query, body))
        if address.path == _TRAINJOBS and set(query) == _WATCH_PARAMETERS:
            return self._watch(server, query)
        if found := re.fullmatch(f"{_CORE}/pods/([^/]+)/log", address.path):
            return self._follow(server, found[1], query)
        return self._answer(server.refuse(404, f"no such stream: {self.path}"))

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _handle

    def _answer(self, answer: tuple[int, Any]) -> None:
        code, content = answer
        if isinstance(content, str):
            return self.respond(code, {"Content-Type": "text/plain"}, content.encode())
        return self.respond(code, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _route(self, server: KubernetesServer, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        name = path.rpartition("/")[2]
        match self.command, path.rpartition("/")[0], sorted(query):
            case "POST", _, [] if path == _TRAINJOBS:
                return server.create(json.loads(body))
            case "GET", where, [] if where == _TRAINJOBS:
                return server.read(name)
            case "PATCH", where, [] if where == _TRAINJOBS:
                return server.patch(name, self.headers["Content-Type"], json.loads(body))
            case "DELETE", where, ["propagationPolicy"] if where == _TRAINJOBS:
                return server.delete(name, query["propagationPolicy"])
            case "GET", _, ["labelSelector"] if path == f"{_CORE}/pods":
                label, _, value = query["labelSelector"].partition("=")
                pods = [pod for pod in server.pods.values() if _labels(pod).get(label) == value]
                return 200, {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}
            case "GET", where, [] if where == f"{_CORE}/pods" and name in server.pods:
                return 200, server.pods[name]
            case "GET", _, ["fieldSelector"] if path == f"{_CORE}/events":
                wanted = dict(part.split("=") for part in query["fieldSelector"].split(","))
                assert sorted(wanted) == ["involvedObject.name", "type"], wanted
                events = [
                    event
                    for event in server.events
                    if (event["involvedObject"]["name"], event["type"])
                    == (wanted["involvedObject.name"], wanted["type"])
                ]
                return 200, {"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": events}
            case "GET", where, ["container", "tailLines"] if where.startswith(f"{_CORE}/pods/") and name == "log":
                pod = where.rpartition("/")[2]
                tail = [line.partition(" ")[2] for line in server.logs[pod]][-int(query["tailLines"]) :]
                return 200, "\n".join(tail)
        return server.refuse(404, f"the server could not find the requested resource: {self.command} {self.path}")

    def _watch(self, server: KubernetesServer, query: dict[str, str]) -> None:
        field, _, name = query["fieldSelector"].partition("=")
        assert field == "metadata.name"
        version, seconds = int(query["resourceVersion"]), float(query["timeoutSeconds"])
        self._begin_stream("application/json")
        with server.changed:
            if server.forgets_versions:
                server.forgets_versions = False
                changes = [{"type": "ERROR", "object": _status(410, f"too old resource version: {version}")[1]}]
            else:
                server.changed.wait_for(lambda: server.changes_after(name, version), seconds)
                changes = server.changes_after(name, version)
        for change in changes:
            self._send_chunk(json.dumps(change).encode() + b"\n")
        self._send_chunk(b"")

    def _follow(self, server: KubernetesServer, pod: str, query: dict[str, str]) -> None:
        if not set(query) <= _LOG_PARAMETERS or query["container"] != "node":
            return self._answer(server.refuse(400, f"unknown parameters {query}"))
        with server.changed:
            if pod not in server.pods:
                return self._answer(_status(404, f'pods "{pod}" not found'))
            if "waiting" in server.pods[pod]["status"]["containerStatuses"][0]["state"]:
                return self._answer(server.refuse(400, f"container node in pod {pod} is waiting to start"))
        self._begin_stream("text/plain")
        sent = 0
        while True:
            with server.changed:
                server.changed.wait_for(lambda sent=sent: len(server.logs[pod]) > sent or _ended(server, pod), 60)
                lines, ended = server.logs[pod][sent:], _ended(server, pod)
            for line in lines:
                if server.breaks_after_lines is not None and sent == server.breaks_after_lines:
                    server.breaks_after_lines = None
                    self.close_connection = True
                    return None
                self._send_chunk(f"{line}\n".encode())
                sent += 1
            if ended:
                return self._send_chunk(b"")

    def _begin_stream(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_chunk(self, data: bytes) -> None:
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True


def _ended(server: KubernetesServer, pod: str) -> bool:
    return pod not in server.pods or server.pods[pod]["status"]["phase"] in ("Succeeded", "Failed")

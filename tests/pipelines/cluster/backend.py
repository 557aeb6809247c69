"""A Kubeflow Pipelines API on loopback: version v2beta1 as kfp-server-api speaks it, and what older paths are used of.

What a client sends is checked against the models of kfp-server-api: an unknown field, a value of a wrong type or an
unknown choice is answered with 400, as a backend does.
"""

from __future__ import annotations

import base64
import datetime
import email.parser
import email.policy
import gzip
import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

import yaml
from kfp_server_api import models

from tests.servers import LoopbackServer, QuietHandler

Answer = tuple[int, Any]


class KfpServer(LoopbackServer):
    """One installation.

    Attributes:
        pipelines, versions, experiments, runs, recurring_runs: objects by id, as the API gives them.
        workflows: Argo's workflow by run id.
        logs: a pod's log by its name.
        token: what every request must bear; None: nobody is asked.
        faults: answers to give instead, each once: (method, part of the path, status); status 0 cuts the connection
            after the request was carried out.
        interruptions: what happens before a request is answered, by its number among all, from 1.
    """

    def __init__(self, *, token: str | None = None) -> None:
        super().__init__(_Handler)
        self.token = token
        self.lock = threading.RLock()
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring_runs: dict[str, dict[str, Any]] = {}
        self.workflows: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.faults: list[tuple[str, str, int]] = []
        self.interruptions: dict[int, Callable[[], Any]] = {}
        self.page_size = 2

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The requests that change something."""
        return [(method, path) for method, path in self.requests if method != "GET"]

    def set_workflow(self, run_id: str, nodes: list[dict[str, Any]], *, packed: bool = False) -> None:
        """The Argo workflow of a run, its nodes as Argo keeps those of a large one where `packed`."""
        by_id = {node["id"]: node for node in nodes}
        status = {"nodes": by_id}
        if packed:
            status = {"compressedNodes": base64.b64encode(gzip.compress(json.dumps(by_id).encode())).decode()}
        self.workflows[run_id] = {"metadata": {"name": "wf-abc"}, "status": status}


def node(
    task: str, phase: str, *, driver: bool = False, message: str = "", at: int = 0, attempt: int | None = None
) -> dict[str, Any]:
    """A pod's node of an Argo workflow, named as KFP 2.17's compiler names templates and tasks."""
    name = f"wf-abc.root.{task}-driver" if driver else f"wf-abc.root.{task}.executor"
    start = datetime.datetime(2026, 11, 29, 3, 0, tzinfo=datetime.UTC) + datetime.timedelta(seconds=at)
    found = {
        "id": f"wf-abc-{abs(hash((name, attempt))) % 10**9}",
        "name": name if attempt is None else f"{name}({attempt})",
        "type": "Pod",
        "phase": phase,
        "templateName": "system-container-driver" if driver else "system-container-impl",
        "startedAt": start.isoformat().replace("+00:00", "Z"),
    }
    if phase not in ("Pending", "Running"):
        found["finishedAt"] = (start + datetime.timedelta(seconds=9)).isoformat().replace("+00:00", "Z")
    return {**found, "message": message} if message else found


def left_out(task: str, phase: str, *, driver: bool = False, at: int = 0) -> dict[str, Any]:
    """A node of what does not run: Skipped by its condition, or Omitted for what it depends on."""
    pod = node(task, phase, driver=driver, at=at, message="when 'false != false' evaluated false")
    return {**pod, "name": pod["name"].removesuffix(".executor"), "type": "Skipped"}


def check_against_model(content: Any, model: str) -> None:
    """Raises `ValueError` unless the JSON value is one of that model of kfp-server-api, in all its parts."""
    if match := re.fullmatch(r"list\[(.+)\]", model):
        if not isinstance(content, list):
            raise ValueError(f"expected a list of {match[1]}")
        for item in content:
            check_against_model(item, match[1])
    elif match := re.fullmatch(r"dict\(str, (.+)\)", model):
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        for item in content.values():
            check_against_model(item, match[1])
    elif hasattr(models, model):
        kind = getattr(models, model)
        if choices := getattr(kind, "allowable_values", None):
            if content not in choices:
                raise ValueError(f"{content!r} is none of {choices}")
            return
        names = {sent: name for name, sent in kind.attribute_map.items()}
        if not isinstance(content, dict) or set(content) - set(names):
            raise ValueError(f"unknown field in {content} for {model}")
        for sent, value in content.items():
            if value is not None:
                check_against_model(value, kind.openapi_types[names[sent]])
    elif model == "datetime":
        datetime.datetime.fromisoformat(content)
    elif model != "object" and type(content).__name__ != model:
        raise ValueError(f"{content!r} is no {model}")


class _Handler(QuietHandler):
    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    @property
    def backend(self) -> KfpServer:
        server: KfpServer = self.server.owner  # type: ignore[attr-defined]
        return server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(address.query).items()}
        with self.backend.lock:
            self.backend.requests.append((self.command, address.path))
            interruption = self.backend.interruptions.pop(len(self.backend.requests), None)
        if interruption is not None:
            interruption()
        with self.backend.lock:
            fault = next(
                (each for each in self.backend.faults if each[0] == self.command and each[1] in address.path), None
            )
            if fault is not None:
                self.backend.faults.remove(fault)
            if fault is not None and fault[2]:
                status, answer = fault[2], {"code": 14, "message": "made to fail"}
            else:
                status, answer = self._answer(address.path, query, body)
        if fault is not None and not fault[2]:
            self.close_connection = True
            self.connection.close()
            return
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.respond(status, {"Content-Type": "application/json"}, data)

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        backend = self.backend
        if backend.token is not None and self.headers.get("Authorization") != f"Bearer {backend.token}":
            return 401, {"code": 16, "message": "Request header error: the token is expired"}
        for method, pattern, serve in self._routes():
            if method == self.command and (match := re.fullmatch(pattern, path)):
                try:
                    return serve(query, body, **match.groupdict())
                except KeyError:
                    return 404, {"code": 5, "message": f"{path} not found"}
                except ValueError as error:
                    return 400, {"code": 3, "message": str(error)}
        return 404, {"code": 5, "message": "Not Found"}

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        api, backend = "/apis/v2beta1", self.backend
        return [
            ("GET", f"{api}/healthz", lambda query, body: (200, {"multi_user": False})),
            ("GET", f"{api}/pipelines", self._list(backend.pipelines, "pipelines")),
            ("POST", f"{api}/pipelines", self._create(backend.pipelines, "V2beta1Pipeline", "pipeline_id")),
            ("GET", f"{api}/pipelines/(?P<pipeline_id>[^/]+)/versions", self._list_versions),
            ("POST", f"{api}/pipelines/upload_version", self._upload_version),
            ("GET", f"{api}/experiments", self._list(backend.experiments, "experiments")),
            ("POST", f"{api}/experiments", self._create(backend.experiments, "V2beta1Experiment", "experiment_id")),
            ("GET", f"{api}/runs", self._list(backend.runs, "runs")),
            ("POST", f"{api}/runs", self._create(backend.runs, "V2beta1Run", "run_id", unique=False, state="PENDING")),
            ("GET", f"{api}/runs/(?P<run_id>[^/:]+)", lambda query, body, run_id: (200, backend.runs[run_id])),
            ("POST", f"{api}/runs/(?P<run_id>[^/:]+):terminate", self._terminate),
            ("GET", f"{api}/recurringruns", self._list(backend.recurring_runs, "recurringRuns")),
            ("POST", f"{api}/recurringruns", self._create_recurring_run),
            ("POST", f"{api}/recurringruns/(?P<key>[^/:]+):enable", self._enable),
            ("DELETE", f"{api}/recurringruns/(?P<key>[^/:]+)", self._delete_recurring_run),
            ("GET", "/apis/v1beta1/runs/(?P<run_id>[^/:]+)", self._old_run),
            ("GET", "/apis/v1alpha1/runs/(?P<run_id>[^/]+)/nodes/(?P<pod>[^/]+)/log", self._log),
        ]

    def _list(self, objects: dict[str, dict[str, Any]], field: str) -> Callable[..., Answer]:
        def serve(query: dict[str, str], body: bytes, **_: str) -> Answer:
            found = list(objects.values())
            for predicate in json.loads(query.get("filter") or "{}").get("predicates", ()):
                assert predicate["operation"] == "EQUALS"
                found = [each for each in found if each.get(predicate["key"]) == predicate["stringValue"]]
            if query.get("sort_by", "").endswith(" desc"):
                found.reverse()
            start, size = int(query.get("page_token") or 0), self.backend.page_size
            more = {"next_page_token": str(start + size)} if len(found) > start + size else {}
            return 200, {field: found[start : start + size], **more}

        return serve

    def _create(
        self, objects: dict[str, dict[str, Any]], model: str, key: str, *, unique: bool = True, **more: Any
    ) -> Callable[..., Answer]:
        def serve(query: dict[str, str], body: bytes) -> Answer:
            content = json.loads(body)
            check_against_model(content, model)
            if unique and any(each["display_name"] == content["display_name"] for each in objects.values()):
                return 409, {"code": 6, "message": f"{content['display_name']} already exists"}
            made = {**content, key: str(uuid.uuid4()), "created_at": "2026-11-29T03:00:00Z", **more}
            reference = content.get("pipeline_version_reference")
            if reference and self.backend.versions[reference["pipeline_version_id"]]["pipeline_id"] is None:
                raise ValueError("no such pipeline version")
            objects[made[key]] = made
            return 200, made

        return serve

    def _list_versions(self, query: dict[str, str], body: bytes, pipeline_id: str) -> Answer:
        own = {key: each for key, each in self.backend.versions.items() if each["pipeline_id"] == pipeline_id}
        return self._list(own, "pipeline_versions")(query, body)

    def _upload_version(self, query: dict[str, str], body: bytes) -> Answer:
        backend = self.backend
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        (part,) = message.iter_parts()
        specification = next(yaml.safe_load_all(part.get_payload(decode=True)))
        if part.get_param("name", header="content-disposition") != "uploadfile" or "pipelineInfo" not in specification:
            raise ValueError("no pipeline in uploadfile")
        if backend.pipelines[query["pipelineid"]] is None:
            raise ValueError("no such pipeline")
        taken = (query["pipelineid"], query["name"])
        if taken in {(each["pipeline_id"], each["display_name"]) for each in backend.versions.values()}:
            return 409, {"code": 6, "message": f"The name {query['name']} already exists"}
        made = {
            "pipeline_id": query["pipelineid"],
            "pipeline_version_id": str(uuid.uuid4()),
            "display_name": query["name"],
            "description": query.get("description", ""),
        }
        backend.versions[made["pipeline_version_id"]] = made
        return 200, made

    def _terminate(self, query: dict[str, str], body: bytes, run_id: str) -> Answer:
        self.backend.runs[run_id]["state"] = "CANCELING"
        return 200, {}

    def _create_recurring_run(self, query: dict[str, str], body: bytes) -> Answer:
        status = "ENABLED" if json.loads(body).get("mode") == "ENABLE" else "DISABLED"
        create = self._create(
            self.backend.recurring_runs, "V2beta1RecurringRun", "recurring_run_id", unique=False, status=status
        )
        return create(query, body)

    def _enable(self, query: dict[str, str], body: bytes, key: str) -> Answer:
        self.backend.recurring_runs[key]["status"] = "ENABLED"
        return 200, {}

    def _delete_recurring_run(self, query: dict[str, str], body: bytes, key: str) -> Answer:
        del self.backend.recurring_runs[key]
        return 200, {}

    def _old_run(self, query: dict[str, str], body: bytes, run_id: str) -> Answer:
        workflow = self.backend.workflows.get(run_id)
        manifest = {} if workflow is None else {"workflow_manifest": json.dumps(workflow)}
        return 200, {"run": {"id": self.backend.runs[run_id]["run_id"]}, "pipeline_runtime": manifest}

    def _log(self, query: dict[str, str], body: bytes, run_id: str, pod: str) -> Answer:
        return 200, self.backend.logs[pod].encode()

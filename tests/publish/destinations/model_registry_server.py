"""A Kubeflow Model Registry on loopback: the part of its REST API that registering needs.

What is sent to it is checked by the official client's own models, and so is what it answers.
"""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from mr_openapi.models.artifact_create import ArtifactCreate
from mr_openapi.models.model_artifact import ModelArtifact
from mr_openapi.models.model_version import ModelVersion
from mr_openapi.models.model_version_create import ModelVersionCreate
from mr_openapi.models.model_version_update import ModelVersionUpdate
from mr_openapi.models.registered_model import RegisteredModel
from mr_openapi.models.registered_model_create import RegisteredModelCreate

from tests.publish.destinations.writable_hub import Fault
from tests.servers import LoopbackServer, QuietHandler

TOKEN = "canary-of-the-model-registry"


class ModelRegistryServer(LoopbackServer):
    """See the module; with a token it wants to be shown it. `api` is the newest version that it speaks."""

    page_size = 2

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.token: str | None = None
        self.api = "v1"
        self.faults: list[Fault] = []
        self.models: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.tokens_seen: set[str | None] = set()

    def writes(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path in self.requests if method != "GET"]

    def aliases(self) -> dict[str, str]:
        """The property of each version, by its name."""
        return {
            each["name"]: each["customProperties"].get("aliases", {}).get("string_value", "") for each in self.versions
        }

    def add(self, kind: list[dict[str, Any]], content: dict[str, Any]) -> dict[str, Any]:
        number = 1 + len(self.models) + len(self.versions) + len(self.artifacts)
        kind.append({**content, "id": str(number)})
        return kind[-1]


class _Handler(QuietHandler):
    def _answer(self) -> None:
        self.registry: ModelRegistryServer = self.server.owner  # type: ignore[attr-defined]
        self.registry.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = urllib.parse.urlsplit(self.path)
        fault = next((each for each in self.registry.faults if each.strikes(self.command, address.path)), None)
        if fault and not fault.late:
            return self._fail(fault)
        self._late = fault
        self.registry.tokens_seen.add(self.headers.get("Authorization"))
        if self.registry.token and self.headers.get("Authorization") != f"Bearer {self.registry.token}":
            return self._send(401, {"code": "Unauthorized", "message": f"found {self.headers.get('Authorization')}"})
        start = f"/api/model_registry/{self.registry.api}/"
        if not address.path.startswith(start):
            return self._send(404, {"code": "Not Found", "message": "unknown route"})
        self.query = dict(urllib.parse.parse_qsl(address.query))
        self.content = json.loads(body) if body else {}
        return self._route(address.path.removeprefix(start))

    do_GET = do_POST = do_PATCH = _answer

    def _route(self, path: str) -> None:
        registry = self.registry
        match self.command, path.split("/"):
            case "GET", ["registered_models"]:
                self._list(registry.models)
            case "GET", ["registered_model"]:
                self._find(registry.models, name=self.query["name"])
            case "GET", ["model_version"]:
                parent = self.query["parentResourceId"]
                self._find(registry.versions, name=self.query["name"], registeredModelId=parent)
            case "GET", ["registered_models", number, "versions"]:
                self._list([each for each in registry.versions if each["registeredModelId"] == number])
            case "GET", ["model_versions", number, "artifacts"]:
                self._list([each for each in registry.artifacts if each["version"] == number])
            case "POST", ["registered_models"]:
                self._create(registry.models, RegisteredModelCreate, RegisteredModel)
            case "POST", ["model_versions"]:
                self._create(registry.versions, ModelVersionCreate, ModelVersion, "registeredModelId")
            case "POST", ["model_versions", number, "artifacts"]:
                self._create(registry.artifacts, ArtifactCreate, ModelArtifact, version=number)
            case "PATCH", ["model_versions", number]:
                assert ModelVersionUpdate.from_dict(self.content).to_dict() == {"state": "LIVE", **self.content}
                (found,) = (each for each in registry.versions if each["id"] == number)
                found.update(self.content)
                self._send(200, found)
            case _:
                self._send(404, {"code": "Not Found", "message": f"unknown route {path}"})

    def _create(self, kind: list[dict[str, Any]], asked: Any, made: Any, parent: str = "", **more: str) -> None:
        sent = asked.from_dict(self.content).to_dict()
        assert sent == {"state": "LIVE", **self.content}, "a field that the official client does not know"
        same = {"name": self.content["name"], **({parent: self.content[parent]} if parent else {}), **more}
        if self._matching(kind, **same):
            return self._send(409, {"code": "Conflict", "message": f"{same} exists already"})
        found = self.registry.add(kind, {**self.content, **more})
        made.from_dict(found)
        return self._send(201, found)

    def _matching(self, kind: list[dict[str, Any]], **wanted: str) -> list[dict[str, Any]]:
        return [each for each in kind if all(each[name] == value for name, value in wanted.items())]

    def _find(self, kind: list[dict[str, Any]], **wanted: str) -> None:
        found = self._matching(kind, **wanted)
        self._send(200, found[0]) if found else self._send(404, {"code": "Not Found", "message": f"no {wanted}"})

    def _list(self, items: list[dict[str, Any]]) -> None:
        start = int(self.query.get("nextPageToken") or 0)
        size = min(int(self.query["pageSize"]), self.registry.page_size)
        following = str(start + size) if start + size < len(items) else ""
        page = items[start : start + size]
        self._send(200, {"items": page, "nextPageToken": following, "pageSize": size, "size": len(page)})

    def _fail(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.status:
            self.respond(fault.status, {"Content-Type": "application/json", **fault.headers}, fault.body.encode())

    def _send(self, status: int, value: Any) -> None:
        if self._late:
            return self._fail(self._late)
        return self.respond(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

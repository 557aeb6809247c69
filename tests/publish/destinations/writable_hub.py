"""A Hugging Face Hub on loopback that can be written to, as huggingface_hub's client asks one: repositories, commits by
NDJSON, large files by the LFS protocol, tags and branches; and faults that it makes when told to."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import urllib.parse
from typing import Any

from tests.servers import LoopbackServer, QuietHandler

TOKEN = "hf_" + "canaryCANARY" * 3
FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
_LARGE = (".safetensors", ".png", ".bin")


@dataclasses.dataclass
class Repository:
    """Commits are files by path; branches and tags are names of commits."""

    private: bool
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    messages: list[str] = dataclasses.field(default_factory=list)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        name = hashlib.sha1(f"{len(self.commits)}{message}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        self.messages.append(message)
        return name

    def files(self, revision: str) -> dict[str, bytes]:
        return self.commits[self.resolve(revision)]

    def resolve(self, revision: str) -> str:
        return self.branches.get(revision) or self.tags.get(revision) or revision


@dataclasses.dataclass
class Fault:
    """What happens to the next `times` requests of this method (any if empty) with this in their path, after `skip`.

    A status is answered with, 0 closes the connection without an answer; with `late` the request is done before.
    """

    method: str
    path: str
    status: int
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    times: int = 1
    late: bool = False
    body: str = ""
    skip: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if not self.times or self.method not in ("", method) or self.path not in path:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class WritableHub(LoopbackServer):
    """See the module. `user` is who the token is of."""

    user = "someone"

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.writable = True
        self.environment = {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN}

    def add(self, name: str) -> Repository:
        self.repositories[name] = Repository(private=False)
        self.repositories[name].commit("main", dict(FIRST_FILES), "initial commit")
        return self.repositories[name]

    def writes(self) -> list[str]:
        """What was changed so far, or tried to."""
        return [
            path for method, path in self.requests if method in ("POST", "PUT", "DELETE") and "validate" not in path
        ]


class _Handler(QuietHandler):
    _ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/repos/create", "create"),
        ("GET", r"/api/models/([^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/large/([0-9a-f]{64})", "upload"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/api/models/([^/]+/[^/]+)/tag/([^/]+)", "tag"),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", "branch"),
        ("DELETE", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", "delete_branch"),
    )

    def _answer(self) -> None:
        self.hub: WritableHub = self.server.owner  # type: ignore[attr-defined]
        self.hub.requests.append((self.command, self.path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urllib.parse.urlsplit(self.path).path
        fault = next((each for each in self.hub.faults if each.strikes(self.command, path)), None)
        if fault and not fault.late:
            return self._fail(fault)
        self._late = fault
        for method, pattern, name in self._ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                if name != "upload" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self._send(401, {"error": "Invalid credentials in Authorization header"})
                if name not in ("whoami", "info", "refs") and not self.hub.writable:
                    return self._send(403, {"error": "You don't have the rights to do that"})
                groups = [urllib.parse.unquote(each or "") for each in found.groups()]
                return getattr(self, f"_{name}")(*groups)
        return self._send(404, {"error": "unknown route"})

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def _fail(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.status:
            self._late = None
            self.respond(fault.status, {"Content-Type": "application/json", **fault.headers}, fault.body.encode())

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        if getattr(self, "_late", None):
            return self._fail(self._late)
        self.respond(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())

    def _repository(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return found

    def _whoami(self) -> None:
        self._send(200, {"type": "user", "name": self.hub.user})

    def _validate(self) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization'] or self.hub.user}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return self._send(409, {"error": "You already created this model repo", "url": url})
        self.hub.add(name).private = asked.get("visibility") == "private"
        return self._send(200, {"url": url})

    def _refs(self, name: str) -> None:
        if repository := self._repository(name):
            kinds = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
            refs: dict[str, list[dict[str, str]]] = {
                kind: [{"name": ref, "ref": f"refs/{at}/{ref}", "targetCommit": commit} for ref, commit in all_.items()]
                for kind, (at, all_) in kinds.items()
            }
            self._send(200, {**refs, "converts": []})

    def _info(self, name: str, revision: str) -> None:
        if repository := self._repository(name):
            commit = repository.resolve(revision or "main")
            if commit not in repository.commits:
                return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            entries = [_entry(path, data) for path, data in repository.commits[commit].items()]
            self._send(200, {"id": name, "sha": commit, "private": repository.private, "siblings": entries})

    def _preupload(self, name: str, revision: str) -> None:
        if repository := self._repository(name):
            there = {path: _entry(path, data) for path, data in repository.files(revision).items()}
            answers = []
            for file in json.loads(self.body)["files"]:
                entry = there.get(file["path"], {})
                oid = entry.get("lfs", {}).get("sha256", entry.get("blobId"))
                mode = "lfs" if file["path"].endswith(_LARGE) else "regular"
                answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self._send(200, {"files": answers, "commitOid": repository.resolve(revision)})

    def _batch(self, name: str) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            action = {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}
            objects.append(each if each["oid"] in self.hub.large else {**each, "actions": action})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._send(400, {"error": "wrong content"})
        self.hub.large[oid] = self.body
        return self._send(200, {})

    def _commit(self, name: str, revision: str) -> None:
        if not (repository := self._repository(name)):
            return
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.branches[revision]):
            return self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(repository.files(revision))
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in self.hub.large:
                        return self._send(400, {"error": f"LFS pointer pointed to a file that does not exist: {value}"})
                    files[value["path"]] = self.hub.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        oid = repository.commit(revision, files, header["summary"])
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})

    def _tag(self, name: str, revision: str) -> None:
        if repository := self._repository(name):
            tag = json.loads(self.body)["tag"]
            if tag in repository.tags:
                return self._send(409, {"error": "Tag already exists"})
            repository.tags[tag] = repository.resolve(revision)
            self._send(200, {})

    def _branch(self, name: str, branch: str) -> None:
        if repository := self._repository(name):
            if branch in repository.branches:
                return self._send(409, {"error": "Reference already exists"})
            repository.branches[branch] = repository.branches["main"]
            self._send(200, {})

    def _delete_branch(self, name: str, branch: str) -> None:
        if repository := self._repository(name):
            del repository.branches[branch]
            self._send(200, {})


def _entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as the Hub describes it; a large one by its SHA-256."""
    entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
    entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if path.endswith(_LARGE):
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry

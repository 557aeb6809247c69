"""What stores make of answers: reasons, names that are no keys, what is left out, credentials that are late."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InputError, StorageError
from components.common.storage import ObjectStore, open_store, retries
from tests.servers import GcsServer, LoopbackServer, QuietHandler, free_ports, running

REPOSITORY = Path(__file__).resolve().parents[2]

Answer = tuple[int, dict[str, str], bytes]

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
AWS = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SOON = "0.8"
"""Seconds for which an operation is tried where it cannot succeed."""


class ScriptedServer(LoopbackServer):
    """Gives the answer that a function has for method and address."""

    def __init__(self, answer: Callable[[str, urllib.parse.SplitResult], Answer]) -> None:
        super().__init__(_ScriptedHandler)
        self.answer = answer


class _ScriptedHandler(QuietHandler):
    def _answer(self) -> None:
        owner: ScriptedServer = self.server.owner  # type: ignore[attr-defined]
        owner.requests.append((self.command, self.path))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond(*owner.answer(self.command, urllib.parse.urlsplit(self.path)))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment of AWS and Google without any credentials."""
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", *CREDENTIALS):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**AWS, "HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def serve(environment: pytest.MonkeyPatch) -> Iterator[Callable[..., ObjectStore]]:
    """Opens `scheme://bucket/cats` of a server that gives an answer, or what a function answers."""
    started: list[ScriptedServer] = []

    def start(scheme: str, answer: Answer | Callable[[str, urllib.parse.SplitResult], Answer]) -> ObjectStore:
        server = ScriptedServer(answer if callable(answer) else lambda method, address: answer)
        server.start()
        started.append(server)
        environment.setenv({"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}[scheme], server.url)
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        environment.setenv(retries.RETRY_SECONDS_VARIABLE, SOON)
        return open_store(f"{scheme}://bucket/cats")

    yield start
    for server in started:
        server.stop()


def google_error(status: int, message: str, reason: str) -> Answer:
    errors = [{"message": message, "domain": "global", "reason": reason}]
    body = json.dumps({"error": {"code": status, "message": message, "errors": errors}}).encode()
    return status, {"Content-Type": "application/json"}, body


def s3_error(status: int, code: str, message: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return status, {"Content-Type": "application/xml"}, body


def google_list(*items: dict[str, Any]) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps({"items": items}).encode()


def s3_list(*items: dict[str, Any]) -> Answer:
    rows = "".join(
        "<Contents>" + "".join(f"<{name}>{value}</{name}>" for name, value in item.items()) + "</Contents>"
        for item in items
    )
    body = f"<?xml version='1.0'?><ListBucketResult><Name>bucket</Name>{rows}</ListBucketResult>".encode()
    return 200, {"Content-Type": "application/xml"}, body


def listing(scheme: str, sizes: dict[str, int]) -> Answer:
    if scheme == "gs":
        return google_list(*({"name": key, "size": str(size), "generation": "1"} for key, size in sizes.items()))
    return s3_list(*({"Key": key, "Size": size, "ETag": "&quot;1&quot;"} for key, size in sizes.items()))


BILLING = "The billing account for the owning project is disabled in state absent"
DENIED = "pod@project.iam.gserviceaccount.com does not have storage.objects.get access"
REFUSALS = [
    ("gs", google_error(403, BILLING, "accountDisabled"), f"403 {BILLING}: Google Cloud Storage refuses the request"),
    ("gs", google_error(403, DENIED, "forbidden"), f"403 {DENIED}: permission denied: grant roles/"),
    (
        "gs",
        google_error(400, "Invalid bucket name", "invalid"),
        "400 Invalid bucket name: Google Cloud Storage refuses",
    ),
    ("gs", google_error(501, "Not here", "notImplemented"), "501 Not here: the server cannot do this: use one with"),
    ("gs", (403, {}, b"a proxy's page"), "403 GET http"),
    ("s3", s3_error(403, "AccessDenied", "Access Denied"), "AccessDenied: Access Denied: permission denied: allow s3:"),
    (
        "s3",
        s3_error(403, "RequestTimeTooSkewed", "Clock"),
        "RequestTimeTooSkewed: Clock: the server refuses the request",
    ),
    ("s3", s3_error(403, "AccountProblem", "Pay first."), "AccountProblem: Pay first: the server refuses the request"),
    ("s3", s3_error(404, "NoSuchBucket", "No bucket"), "NoSuchBucket: No bucket: there is no bucket bucket: create it"),
    ("s3", s3_error(403, "SignatureDoesNotMatch", "Sign"), "SignatureDoesNotMatch: Sign: the server refuses the cred"),
    ("s3", s3_error(400, "InvalidArgument", "Bad"), "InvalidArgument: Bad: the server refuses the request (Get"),
    ("s3", s3_error(501, "NotImplemented", "No"), "NotImplemented: No: the server cannot do this: use one with"),
]


@pytest.mark.parametrize(("scheme", "answer", "expected"), REFUSALS)
def test_read_when_the_server_refuses_gives_its_reason_first(
    serve: Callable[..., ObjectStore], scheme: str, answer: Answer, expected: str
) -> None:
    store = serve(scheme, answer)

    with pytest.raises(StorageError) as caught:
        store.read("1.png")
    assert str(caught.value).startswith(f"{scheme}://bucket/cats/1.png: {expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_list_when_names_are_no_keys_leaves_them_out_with_a_word(
    serve: Callable[..., ObjectStore], scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"cats/": 0, "cats/more/": 0, "cats//": 0, "cats/2.png": 9, "cats/a/1.png": 9}
    store = serve(scheme, listing(scheme, names))
    assert [info.key for info in store.list()] == ["2.png", "a/1.png"]
    assert caplog.text == ""

    strange = {"cats//1.png": 9, "cats/a//1.png": 9, "cats/../x.png": 9, "cats/./y.png": 0, "cats/folder/": 3}
    store = serve(scheme, listing(scheme, {**names, **strange}))
    assert [info.key for info in store.list()] == ["2.png", "a/1.png"]
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert all(repr(name) in line for name in strange)
    for name in strange:
        with pytest.raises(InputError, match="expected a relative name"):
            store.read(name.removeprefix("cats/"))


LEFT_OUT: list[tuple[str, str, Answer]] = [
    ("gs", "generation", google_list({"name": "cats/1.png", "size": "9"})),
    ("gs", "size", google_list({"name": "cats/1.png", "generation": "1"})),
    ("s3", "ETag", s3_list({"Key": "cats/1.png", "Size": 9})),
    ("s3", "ETag", s3_list({"Key": "cats/1.png", "Size": 9, "ETag": "&quot;&quot;"})),
    ("s3", "Size", s3_list({"Key": "cats/1.png", "ETag": "&quot;1&quot;"})),
]


@pytest.mark.parametrize(("scheme", "name", "answer"), LEFT_OUT)
def test_list_when_the_server_leaves_something_out_names_it(
    serve: Callable[..., ObjectStore], scheme: str, name: str, answer: Answer
) -> None:
    with pytest.raises(StorageError, match=rf"^{scheme}://bucket/cats.* has no {name}, .*: use a server that gives it"):
        serve(scheme, answer).list()


@pytest.mark.parametrize("use", ["read", "write", "stat"])
@pytest.mark.parametrize(("scheme", "name"), [("gs", "generation"), ("s3", "ETag")])
def test_object_when_the_server_gives_no_version_is_refused(
    serve: Callable[..., ObjectStore], scheme: str, name: str, use: str
) -> None:
    def answer(method: str, address: urllib.parse.SplitResult) -> Answer:
        if scheme == "gs" and "alt=media" not in address.query:
            return 200, {"Content-Type": "application/json"}, b'{"name": "cats/1.png", "size": "9"}'
        return 200, {"Content-Type": "image/png"}, b"" if method == "PUT" else b"content"

    store = serve(scheme, answer)
    uses = {
        "read": lambda: store.read_versioned("1.png"),
        "write": lambda: store.write("1.png", b"", if_absent=True),
        "stat": lambda: store.stat("1.png"),
    }
    with pytest.raises(StorageError, match=rf"^{scheme}://bucket/cats/1.png.* has no {name}, .*: use a server"):
        uses[use]()


def test_list_when_the_server_says_no_time_is_fine(serve: Callable[..., ObjectStore]) -> None:
    for scheme in ("gs", "s3"):
        (info,) = serve(scheme, listing(scheme, {"cats/1.png": 9})).list()
        assert (info.key, info.size, info.version, info.modified) == ("1.png", 9, "1", None)


class MetadataServer(ScriptedServer):
    """A node's metadata server, which gives a token once it failed some times."""

    def __init__(self, failures: int) -> None:
        super().__init__(self._metadata)
        self.failures = failures

    def _metadata(self, method: str, address: urllib.parse.SplitResult) -> Answer:
        headers = {"Metadata-Flavor": "Google", "Content-Type": "application/json"}
        if address.path.endswith("/token"):
            self.failures -= 1
            if self.failures >= 0:
                return 404, headers, b"away"  # of 503 the library says so after 15 s only
            return 200, headers, b'{"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}'
        if address.path.endswith("project-id"):
            return 200, {**headers, "Content-Type": "application/text"}, b"project"
        if address.path.endswith("universe-domain"):
            return 404, headers, b""
        account = {"email": "project.svc.id.goog", "scopes": ["s"], "aliases": ["default"]}
        return 200, headers, json.dumps(account).encode()


WRITE_AND_READ = """
import logging, sys
from components.common.errors import StorageError
from components.common.storage import open_store

logging.basicConfig(stream=sys.stdout)
try:
    store = open_store(sys.argv[1])
    store.write("key", b"content")
    print("read", store.read("key"))
except StorageError as error:
    print("failed", error)
"""


def on_google(metadata: str, storage: GcsServer, seconds: str) -> str:
    """What a process prints on a node of Google Cloud; the library reads these variables once, as it is imported."""
    host = metadata.removeprefix("http://")
    given = {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "API_ENDPOINT_OVERRIDE": storage.url}
    hidden = ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "NO_GCE_CHECK")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [sys.executable, "-c", WRITE_AND_READ, f"gs://{storage.bucket}/metadata"],
        env={**kept, **given, retries.RETRY_SECONDS_VARIABLE: seconds},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_read_when_the_metadata_server_is_away_for_a_while_goes_through(
    environment: pytest.MonkeyPatch, gcs_server: GcsServer
) -> None:
    with running(MetadataServer(2)) as metadata:
        printed = on_google(metadata.url, gcs_server, "30")
        assert metadata.failures < 0
    assert "RefreshError" in printed
    assert "attempt 1, next in" in printed
    assert "read b'content'" in printed


def test_read_when_the_metadata_server_stays_away_says_so(
    environment: pytest.MonkeyPatch, gcs_server: GcsServer
) -> None:
    with running(MetadataServer(10**6)) as metadata:
        printed = on_google(metadata.url, gcs_server, SOON)
    assert "no usable answer in 0.8 s" in printed
    assert "failed with: RefreshError" in printed
    assert f"Failed to retrieve {metadata.url}" in printed.partition("failed with")[2]


class ContainerCredentials(ScriptedServer):
    """Gives a pod or task its credentials, once it failed some times."""

    def __init__(self, failures: int) -> None:
        super().__init__(self._credentials)
        self.failures = failures

    def _credentials(self, method: str, address: urllib.parse.SplitResult) -> Answer:
        self.failures -= 1
        if self.failures >= 0:
            return 500, {}, b"away"
        body = {"AccessKeyId": "admin", "SecretAccessKey": "secret-of-admin", "Token": "t"}
        body["Expiration"] = "2126-01-01T00:00:00Z"
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def in_a_container(environment: pytest.MonkeyPatch, credentials: str, storage: str) -> None:
    environment.setenv("AWS_ENDPOINT_URL", storage)
    environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials)
    environment.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)


def test_open_when_container_credentials_are_late_waits(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        running(ScriptedServer(lambda method, address: listing("s3", {"late/1.png": 9}))) as store,
        running(ContainerCredentials(7)) as credentials,
    ):
        in_a_container(environment, credentials.url, store.url)
        assert [info.key for info in open_store("s3://bucket/late").list()] == ["1.png"]
        assert credentials.failures < 0
    assert "CredentialRetrievalError" in caplog.text


def test_open_when_container_credentials_stay_away_says_so(environment: pytest.MonkeyPatch) -> None:
    environment.setenv(retries.RETRY_SECONDS_VARIABLE, SOON)
    (port,) = free_ports(1)
    in_a_container(environment, f"http://127.0.0.1:{port}", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"no usable answer in 0\.8 s .*CredentialRetrievalError"):
        open_store("s3://bucket/late")


def test_open_when_a_program_gives_no_credentials_fails_at_once(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\ncredential_process = /bin/sh -c 'echo log in first >&2; exit 1'\n")
    environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(StorageError, match=r"^s3://bucket/key: .*log in first.*: no S3 credentials"):
        open_store("s3://bucket/key")

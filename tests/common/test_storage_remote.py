"""What stores behind a network do when it fails, when access is refused, and without a bucket."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from components.common.errors import ConfigError, ObjectNotFoundError, PreconditionError, StorageError
from components.common.storage import gs_store, open_store, retries, s3_store
from tests.servers import AnsweringServer, GcsServer, Proxy, S3Server, free_ports, running

ADDRESS_VARIABLE = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}
UPLOAD_METHOD = {"gs": "POST", "s3": "PUT"}


@pytest.fixture(params=["gs", "s3"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(scheme: str, request: pytest.FixtureRequest) -> GcsServer | S3Server:
    server: GcsServer | S3Server = request.getfixturevalue({"gs": "gcs_server", "s3": "s3_server"}[scheme])
    return server


@pytest.fixture
def uri(scheme: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[scheme]))


class RetryLog(logging.Handler):
    """The lines about retries; with the first one `at_first` is called."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.at_first: Callable[[], object] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if len(self.lines) == 1:
            self.at_first()


@pytest.fixture
def retry_log() -> Iterator[RetryLog]:
    handler = RetryLog()
    retries.logger.addHandler(handler)
    yield handler
    retries.logger.removeHandler(handler)


@pytest.fixture
def away(uri: str, scheme: str, server: GcsServer | S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server at another address, where nothing listens until it is started."""
    proxy = Proxy(server.url)
    monkeypatch.setenv(ADDRESS_VARIABLE[scheme], proxy.url)
    yield proxy
    proxy.stop()


def test_object_when_the_server_restarts_is_still_there(
    gcs_bucket_uri: str, gcs_server: GcsServer, retry_log: RetryLog
) -> None:
    store = open_store(gcs_bucket_uri)
    version = store.write("key", b"content")
    gcs_server.stop()
    retry_log.at_first = gcs_server.start

    assert store.read_versioned("key") == (b"content", version)
    assert f"{gcs_bucket_uri}/key" in retry_log.lines[0]
    assert "attempt 1, next in" in retry_log.lines[0]


@pytest.mark.parametrize("action", ["read", "write", "list", "upload", "download"])
def test_everything_when_the_server_comes_back_goes_through(
    action: str, uri: str, away: Proxy, retry_log: RetryLog, tmp_path: Path
) -> None:
    store = open_store(uri)
    retry_log.at_first = away.start
    (tmp_path / "file").write_bytes(b"content")

    match action:
        case "read":
            with pytest.raises(ObjectNotFoundError):
                store.read("key")
        case "write":
            store.write("key", b"content", if_absent=True)
        case "list":
            assert store.list() == []
        case "upload":
            store.upload_file(tmp_path / "file", "key")
        case "download":
            with pytest.raises(ObjectNotFoundError):
                store.download_file("key", tmp_path / "copy")

    assert len(retry_log.lines) >= 1
    assert store.exists("key") == (action in ("write", "upload"))


def test_read_when_the_server_stays_away_says_what_was_tried(
    uri: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv(ADDRESS_VARIABLE[scheme], f"http://127.0.0.1:{port}")
    monkeypatch.setenv(retries.RETRY_SECONDS_VARIABLE, "0.8")

    with pytest.raises(
        StorageError, match=rf"{uri}/key: no usable answer in 0.8 s.*{ADDRESS_VARIABLE[scheme]}"
    ) as caught:
        open_store(uri).read("key")
    assert "\n" not in str(caught.value)


def test_read_when_the_server_is_broken_is_tried_again(uri: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(retries.RETRY_SECONDS_VARIABLE, "0.8")
    with running(AnsweringServer(503, b"")) as broken:
        monkeypatch.setenv(ADDRESS_VARIABLE[scheme], broken.url)
        with pytest.raises(StorageError, match="no usable answer"):
            open_store(uri).read("key")
        assert len(broken.requests) > 1


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "inf"])
def test_retry_seconds_when_they_are_none_are_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(retries.RETRY_SECONDS_VARIABLE, given)
    with pytest.raises(ConfigError, match=f"TEXTUAL_INVERSION_RETRY_SECONDS: found '{given}', expected a number"):
        retries.retry_seconds()


def test_retry_seconds_when_not_set_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(retries.RETRY_SECONDS_VARIABLE, raising=False)
    assert retries.retry_seconds() == retries.DEFAULT_RETRY_SECONDS


def test_every_use_when_there_is_no_bucket_says_so(uri: str, scheme: str, tmp_path: Path) -> None:
    store = open_store(f"{scheme}://no-such-bucket/prefix")
    (tmp_path / "file").write_bytes(b"content")

    for use in (
        lambda: store.read("key"),
        lambda: store.list(),
        lambda: store.write("key", b""),
        lambda: store.write("key", b"", if_absent=True),
        lambda: store.upload_file(tmp_path / "file", "key"),
        lambda: store.download_file("key", tmp_path / "copy"),
    ):
        with pytest.raises(StorageError, match="there is no bucket no-such-bucket: create it") as caught:
            use()
        assert not isinstance(caught.value, ObjectNotFoundError)


def test_write_when_the_account_may_only_read_names_the_permission(
    s3_bucket_uri: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_store(s3_bucket_uri).write("key", b"one")
    for name, value in s3_server.reading_environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(s3_bucket_uri)
    (tmp_path / "file").write_bytes(b"content")

    assert store.read("key") == b"one"
    for use in (lambda: store.write("key", b"two"), lambda: store.upload_file(tmp_path / "file", "key")):
        with pytest.raises(
            StorageError, match=rf"{s3_bucket_uri}/key: AccessDenied: .*: permission denied: allow .*s3:PutObject"
        ):
            use()


def test_read_when_the_secret_is_wrong_names_the_variables(s3_bucket_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    with pytest.raises(StorageError, match="refuses the credentials: set AWS_ACCESS_KEY_ID"):
        open_store(s3_bucket_uri).read("key")


def test_read_when_there_are_no_s3_credentials_names_the_variables(
    s3_bucket_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(StorageError, match="no S3 credentials: set AWS_ACCESS_KEY_ID"):
        open_store(s3_bucket_uri).read("key")


def test_open_when_the_s3_endpoint_is_no_url_says_so(s3_bucket_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "seaweedfs:9000")

    with pytest.raises(StorageError, match="settings in the environment cannot be used"):
        open_store(s3_bucket_uri)


def test_open_when_there_are_no_google_credentials_says_how_to_get_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")

    with pytest.raises(StorageError, match=r"no Google credentials: .*gcloud auth application-default login"):
        open_store("gs://bucket/prefix")


def test_every_use_when_google_forbids_it_says_what_to_grant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with running(google_refusing(403)) as refusing:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", refusing.url)
        store = open_store("gs://bucket/prefix")
        for use in (
            lambda: store.read("key"),
            lambda: store.stat("key"),
            lambda: store.list(),
            lambda: store.write("key", b""),
            lambda: store.delete("key"),
            lambda: store.upload_file(tmp_path / "file", "key"),
            lambda: store.download_file("key", tmp_path / "copy"),
        ):
            with pytest.raises(StorageError, match=r"gs://bucket/prefix.*permission denied: grant roles/") as caught:
                use()
            assert "\n" not in str(caught.value)


def test_every_use_when_google_refuses_the_credentials_says_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(google_refusing(401)) as refusing:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", refusing.url)
        store = open_store("gs://bucket/prefix")
        for use in (lambda: store.stat("key"), lambda: store.list(), lambda: store.write("key", b"")):
            with pytest.raises(StorageError, match="refuses the credentials: give the pod's account") as caught:
                use()
            assert "\n" not in str(caught.value)


def google_refusing(status: int) -> AnsweringServer:
    message = "the account has no access\nto this bucket"
    return AnsweringServer(status, json.dumps({"error": {"code": status, "message": message}}).encode())


@pytest.mark.parametrize("condition", ["if_absent", "if_version"])
def test_write_when_the_answer_is_lost_recognises_its_own_object(
    uri: str, scheme: str, server: GcsServer | S3Server, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = open_store(uri)
    conditions = {"if_absent": True} if condition == "if_absent" else {"if_version": direct.write("key", b"before")}
    with running(Proxy(server.url, losing=UPLOAD_METHOD[scheme])) as proxy:
        monkeypatch.setenv(ADDRESS_VARIABLE[scheme], proxy.url)
        version = open_store(uri).write("key", b"mine", **conditions)
        uploads = [method for method, _ in proxy.requests if method == UPLOAD_METHOD[scheme]]

    assert len(uploads) == 2
    assert direct.read_versioned("key") == (b"mine", version)


def test_upload_when_the_answer_is_lost_recognises_its_own_object(
    uri: str, scheme: str, server: GcsServer | S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    direct = open_store(uri)
    (tmp_path / "file").write_bytes(b"mine")
    with running(Proxy(server.url, losing=UPLOAD_METHOD[scheme])) as proxy:
        monkeypatch.setenv(ADDRESS_VARIABLE[scheme], proxy.url)
        open_store(uri).upload_file(tmp_path / "file", "key", if_absent=True)

    assert direct.read("key") == b"mine"


def test_write_when_an_attempt_fails_and_another_writer_is_first_fails(
    uri: str, away: Proxy, retry_log: RetryLog
) -> None:
    store, other = open_store(uri), open_store(uri)

    def come_back_with_a_winner() -> None:
        away.start()
        other.write("lease", b"held by the other")

    retry_log.at_first = come_back_with_a_winner

    with pytest.raises(PreconditionError, match="exists already or was changed"):
        store.write("lease", b"held by me", if_absent=True)
    assert other.read("lease") == b"held by the other"


def test_download_when_the_file_is_large_comes_in_ranges(
    gcs_bucket_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gs_store, "PARALLEL_DOWNLOAD_BYTES", 2**20)
    monkeypatch.setattr(gs_store, "_RANGE_BYTES", 2**20)
    content = bytes(range(256)) * (3 * 2**12 + 1)
    (tmp_path / "file").write_bytes(content)
    store = open_store(gcs_bucket_uri)
    store.upload_file(tmp_path / "file", "key")

    store.download_file("key", tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("module", [gs_store, s3_store])
def test_list_when_there_are_more_objects_than_a_page_holds_shows_all(
    module: ModuleType, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    store = open_store(request.getfixturevalue("gcs_bucket_uri" if module is gs_store else "s3_bucket_uri"))
    keys = [f"many/{number}" for number in range(10)]
    for key in keys:
        store.write(key, b"")

    assert [info.key for info in store.list("many/")] == keys


def test_store_when_addressed_as_minio_is_an_s3_store(s3_bucket_uri: str) -> None:
    open_store(s3_bucket_uri).write("key", b"content")

    store = open_store(s3_bucket_uri.replace("s3://", "minio://"))

    assert store.read("key") == b"content"
    assert store.uri_of("key").startswith("minio://")

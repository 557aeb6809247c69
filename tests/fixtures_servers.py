"""Fixtures that lead the real client libraries to servers on loopback, started once a test process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.servers import GcsServer, HubServer, S3Server, running, running_process


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """fake-gcs-server with one bucket, `gcs_server.bucket`."""
    with running_process(GcsServer) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """SeaweedFS with one bucket, `s3_server.bucket`."""
    with running_process(S3Server) as server:
        yield server


@pytest.fixture
def gcs_bucket_uri(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A gs:// prefix of this test alone, with the environment set for it."""
    return _prefix("gs", gcs_server, monkeypatch)


@pytest.fixture
def s3_bucket_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An s3:// prefix of this test alone, with the environment set for it."""
    return _prefix("s3", s3_server, monkeypatch)


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hugging Face Hub with the environment set for it; `add_repository` fills it."""
    with running(HubServer()) as server:
        _set(monkeypatch, server.environment)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def hub_endpoint(hub_server: HubServer) -> str:
    """The URL of `hub_server`."""
    return hub_server.url


def _prefix(scheme: str, server: GcsServer | S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    _set(monkeypatch, server.environment)
    return f"{scheme}://{server.bucket}/{uuid.uuid4().hex[:12]}"


def _set(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

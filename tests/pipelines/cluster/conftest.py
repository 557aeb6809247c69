"""An installation of Kubeflow Pipelines on loopback, and the command that speaks with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.pipelines.cluster.backend import KfpServer
from tests.servers import running

Command = Callable[..., int]


@pytest.fixture
def kfp_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpServer]:
    """A fresh installation, which the environment leads to; nothing of this machine's user is read."""
    for name in ("KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIES", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with running(KfpServer()) as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
        yield server


@pytest.fixture
def command() -> Command:
    """`textual-inversion` with these arguments: its exit code."""

    def run(*arguments: str) -> int:
        return main(list(arguments))

    return run

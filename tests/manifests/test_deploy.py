"""`make deploy`, as far as it goes without a cluster."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.manifests.rendering import MANIFESTS
from tests.servers import which

NO_CLUSTER = """
apiVersion: v1
kind: Config
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: none, user: {}}]
"""
"""Leads kubectl to a port that nobody listens on, wherever the tests run."""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder that make takes for the Python environment, with the real kubectl and nothing to install."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(which("kubectl"))
    (tmp_path / ".ready").touch()
    (tmp_path / "kubeconfig").write_text(NO_CLUSTER)
    return tmp_path


def deploy(environment: Path, overlay: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "deploy", f"OVERLAY={overlay}", f"VENV={environment}"]
    variables = {**os.environ, "KUBECONFIG": str(environment / "kubeconfig")}
    return subprocess.run(
        command, cwd=MANIFESTS.parent, env=variables, capture_output=True, text=True, check=False, timeout=60
    )


def test_deploy_refuses_values_that_nobody_has_set(environment: Path):
    done = deploy(environment, "gke")
    assert done.returncode != 0
    assert "CHANGE-ME" in done.stdout and "defaultPipelineRoot" in done.stdout
    assert "set what is shown above" in done.stderr
    assert "apply" not in done.stdout + done.stderr, "nothing was sent"


def test_deploy_sends_what_is_complete_to_the_cluster(environment: Path):
    done = deploy(environment, "on-prem")
    assert done.returncode != 0
    assert "apply --server-side" in done.stdout
    assert "refused" in done.stderr, "there is no cluster here"


def test_deploy_without_an_overlay_lists_them(environment: Path):
    done = deploy(environment, "")
    assert done.returncode != 0
    assert "OVERLAY: expected one of dev gke on-prem" in done.stderr

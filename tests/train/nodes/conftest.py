"""A namespace of Kubernetes on loopback, and a training whose artifacts all nodes can reach."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import LearnedEmbedding
from components.common.storage.addresses import local_path
from components.common.training.config import TrainConfig
from components.train.command import TrainingCommand
from components.train.nodes import launch
from components.train.nodes.config import LaunchConfig
from tests.servers import running
from tests.train.nodes.kubernetes_server import KubernetesServer


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """The server, with the environment set for it; whatever it refused and no test asked for is an error."""
    server = KubernetesServer()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    for name in ("KFP_POD_NAME", "KFP_POD_UID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "LOOK_SECONDS", 1)
    with running(server):
        yield server
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("log-")]
    assert server.refusals == []


@pytest.fixture
def command(tmp_path: Path) -> TrainingCommand:
    """A training on a volume that all pods have."""
    return make_command(tmp_path.as_uri())


def make_command(folder: str, **changes: Any) -> TrainingCommand:
    """A training whose artifacts are below an address."""
    places = {name: f"{folder}/{name}" for name in ("latent_set", "base_model", "initial_embedding", "output")}
    fields = {
        **places,
        "checkpoint_root": f"{folder}/checkpoints",
        "accelerator": "cpu",
        "framework": "auto",
        "config": TrainConfig(),
    }
    return TrainingCommand(**{**fields, **changes})


def make_config(**changes: Any) -> LaunchConfig:
    """Two nodes without accelerators."""
    fields = {"cpu_per_node": "4", "memory_per_node": "16Gi", "num_nodes": 2, "accelerator_count": 0}
    return LaunchConfig(**{**fields, **changes})


def write_learned(output: str) -> None:
    """What a training that has ended well leaves at its output address, in a folder."""
    rows = {"text_encoder": np.ones((1, 4), np.float32)}
    LearnedEmbedding(
        placeholder_token="<cat-toy>",
        tokens=("<cat-toy>",),
        initializer_token="toy",
        learnable_property="object",
        rows=rows,
        initial_rows=rows,
        snapshots=(),
        losses=np.zeros(3, np.float32),
        training_key="k" * 64,
        config={},
        lineage={},
    ).write(local_path(output))


def training_of(output: str, *lines: str) -> Any:
    """A scenario: the pods start, the first one writes, all end well, and the result is there."""

    def play(server: KubernetesServer, name: str) -> None:
        pods = server.start_pods(name)
        server.write(pods[0], *lines)
        server.wait_for("GET", f"{pods[-1]}/log")
        write_learned(output)
        for pod in pods:
            server.end_pod(pod, 0)
        server.condition(name, "Complete", "AllJobsCompleted", "jobset completed successfully")

    return play

"""The pipeline's step when several nodes train."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from kfp import dsl

from components.common.storage import open_store
from components.common.training.beside import metrics_key
from components.common.training.metrics import Metrics, to_json_lines
from components.train.command import TrainingCommand
from components.train.component import train
from components.train.config import TrainStepConfig
from components.train.nodes.trainjob import train_job
from tests.train.nodes.conftest import make_config, training_of
from tests.train.nodes.kubernetes_server import KubernetesServer


def test_component_launches_at_the_artifacts_addresses(
    kubernetes: KubernetesServer, command: TrainingCommand, s3_bucket_uri: str, tmp_path: Path
) -> None:
    command = dataclasses.replace(command, checkpoint_root=f"{s3_bucket_uri}/checkpoints")
    line = Metrics(step=3, loss=0.5, lr=0.1, rows_norm=1.0, samples_per_second=9.0, memory_bytes=1000)
    open_store(command.checkpoint_root).write(metrics_key("k" * 64), to_json_lines([line]))
    kubernetes.scenario = training_of(command.output)
    learned = dsl.Model(name="learned_embedding", uri=command.output)
    metrics = dsl.Metrics(name="training_metrics", uri=str(tmp_path / "training_metrics"))
    nodes = make_config(run_id="run-1")
    config = TrainStepConfig(
        checkpoint_root=command.checkpoint_root, accelerator="cpu", training=command.config, nodes=nodes
    )
    train.python_func(
        config.to_json(),
        latent_set=dsl.Dataset(name="latent_set", uri=command.latent_set),
        base_model=dsl.Model(name="base_model", uri=command.base_model),
        initial_embedding=dsl.Model(name="initial_embedding", uri=command.initial_embedding),
        learned_embedding=learned,
        training_metrics=metrics,
    )
    (made,) = kubernetes.made
    assert made == train_job(nodes, command)
    assert learned.metadata == {
        "display_name": "Learned embedding",
        "placeholder_token": "<cat-toy>",
        "steps": 3,
        "training_key": "k" * 64,
    }
    assert metrics.metadata["loss"] == 0.5, "what the nodes kept beside their checkpoints"


def test_component_refuses_artifacts_of_a_run_without_a_cluster(
    kubernetes: KubernetesServer, command: TrainingCommand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = dsl.Model(name="any", uri=str(tmp_path))
    config = TrainStepConfig(
        checkpoint_root="s3://bucket/checkpoints", accelerator="cpu", training=command.config, nodes=make_config()
    )
    with pytest.raises(SystemExit) as stop:
        train.python_func(
            config.to_json(),
            latent_set=artifact,
            base_model=artifact,
            initial_embedding=artifact,
            learned_embedding=artifact,
            training_metrics=dsl.Metrics(name="any", uri=str(tmp_path)),
        )
    assert stop.value.code == 2
    assert "latent_set: found the local folder" in caplog.text
    assert kubernetes.requests == []

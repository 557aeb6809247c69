"""What the pods of a TrainJob run, run here: two processes with the TrainJob's own command, on object storage.

Kubeflow Trainer adds the variables below to each pod; only the addresses of the pods are those of this machine.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifact_addresses import fetched
from components.common.artifacts import LearnedEmbedding
from components.common.base_model import CACHE_VARIABLE
from components.common.storage import open_store
from components.common.training.config import TrainConfig
from components.import_base_model.importing import import_base_model
from components.train.command import TrainingCommand
from components.train.nodes.trainjob import train_job
from components.train.train import train_words
from tests import flax_runs
from tests.servers import free_ports
from tests.train.nodes.conftest import make_command, make_config
from tests.train.torch.conftest import make_inputs

STEPS = 4
CONFIG = TrainConfig(
    train_batch_size=1,
    gradient_accumulation_steps=2,
    max_train_steps=STEPS,
    learning_rate=0.05,
    save_steps=2,
    checkpointing_steps=2,
    log_steps=1,
)


def torch_variables(rank: int, port: int) -> dict[str, str]:
    return {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "1",
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }


def jax_variables(rank: int, port: int) -> dict[str, str]:
    return {
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(rank),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
    }


def uploaded_inputs(model: Path, bucket: str, folder: Path) -> TrainingCommand:
    """A training whose inputs, and base model, are in a bucket."""
    import_base_model(str(model), f"{bucket}/models", folder / "reference", kind="diffusion")
    for name, path in make_inputs(folder / "inputs", folder / "reference").items():
        open_store(bucket).upload_folder(path, name)
    return make_command(bucket, config=CONFIG)


def run_as_pods(job: dict[str, Any], variables: Callable[[int, int], dict[str, str]], folder: Path) -> list[str]:
    """Runs the command of every node at once, to its end; gives what each wrote."""
    trainer = job["spec"]["trainer"]
    (port,) = free_ports(1)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    pods = []
    for rank in range(trainer["numNodes"]):
        environment = flax_runs.subprocess_environment(PATH=path, **variables(rank, port))
        with (folder / f"node-{rank}.log").open("wb") as log:
            pods.append(
                subprocess.Popen(
                    [*trainer["command"], *trainer["args"]], cwd=folder, env=environment, stdout=log, stderr=log
                )
            )
    try:
        codes = [pod.wait(timeout=400) for pod in pods]
    finally:
        for pod in pods:
            pod.kill()
            pod.wait()
    logs = [(folder / f"node-{rank}.log").read_text(encoding="utf-8") for rank in range(len(pods))]
    assert codes == [0, 0], "\n".join(log[-3000:] for log in logs)
    return logs


def check_two_nodes_learn_what_one_does(
    command: TrainingCommand,
    framework: str,
    variables: Callable[[int, int], dict[str, str]],
    folder: Path,
) -> None:
    command = dataclasses.replace(command, framework=framework)
    job = train_job(make_config(), command)
    logs = run_as_pods(job, variables, folder)
    learned = LearnedEmbedding.read(fetched(command.output, folder / "learned"))
    twice = dataclasses.replace(CONFIG, train_batch_size=2 * CONFIG.train_batch_size)
    places = {"output": f"{command.output}-of-one", "checkpoint_root": f"{command.checkpoint_root}-of-one"}
    dataclasses.replace(command, config=twice, **places).run(train_words)
    alone = LearnedEmbedding.read(fetched(places["output"], folder / "alone"))

    assert learned.training_key == alone.training_key and learned.steps == STEPS
    np.testing.assert_allclose(learned.losses, alone.losses, rtol=1e-4)
    (rows, rows_alone, initial) = (values["text_encoder"] for values in (learned.rows, alone.rows, alone.initial_rows))
    moved = np.linalg.norm(rows_alone - initial)
    assert moved > 0.05
    assert np.linalg.norm(rows - rows_alone) < 1e-4 * moved
    assert learned.lineage["framework"] == framework
    assert f"step {STEPS}/{STEPS}" in logs[0] and f"step {STEPS}/{STEPS}" not in logs[1], "rank 0 alone logs"
    assert f"uploaded to {command.output}" in logs[0]
    kept = open_store(command.checkpoint_root).list(f"{learned.training_key}/step-")
    assert [info.key.rpartition("/")[2] for info in kept] == [
        "step-00000002.safetensors",
        "step-00000004.safetensors",
    ]


@pytest.mark.timeout(600)
def test_torch_on_two_nodes_learns_what_one_process_does(
    tiny_sd15: Path, s3_bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    command = uploaded_inputs(tiny_sd15, s3_bucket_uri, tmp_path)
    check_two_nodes_learn_what_one_does(command, "torch", torch_variables, tmp_path)


@pytest.mark.timeout(600)
def test_flax_on_two_nodes_learns_what_one_process_does(
    gcs_bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    model = flax_runs.make_micro_model(tmp_path / "model")
    command = uploaded_inputs(model, gcs_bucket_uri, tmp_path)
    check_two_nodes_learn_what_one_does(command, "flax", jax_variables, tmp_path)

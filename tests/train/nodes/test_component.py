from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from components.common.training.command import TrainingCommand
from components.train.flax.component import train_flax
from components.train.nodes.component import launch_trainjob, remove_trainjobs
from components.train.torch.component import train_torch
from kfp import compiler, dsl

from components.train.nodes.config import LaunchConfig
from components.train.nodes.trainjob import train_job
from tests.train.nodes.conftest import make_config, training_of
from tests.train.nodes.kubernetes_server import KubernetesServer


def test_component_launches_at_the_artifacts_addresses(kubernetes: KubernetesServer, command: TrainingCommand) -> None:
    kubernetes.scenario = training_of(command.output)
    learned = dsl.Model(name="learned_embedding", uri=command.output)
    address = launch_trainjob.python_func(
        latent_set=dsl.Dataset(name="latent_set", uri=command.latent_set),
        base_model=dsl.Model(name="base_model", uri=command.base_model),
        initial_embedding=dsl.Model(name="initial_embedding", uri=command.initial_embedding),
        learned_embedding=learned,
        checkpoint_root=command.checkpoint_root,
        cpu_per_node="4",
        memory_per_node="16Gi",
        accelerator_node_selector={},
        accelerator_tolerations=[],
        num_nodes=2,
        accelerator="cpu",
        accelerator_count="0",
        run_id="run-1",
    )
    (made,) = kubernetes.made
    assert made == train_job(make_config(run_id="run-1"), command)
    assert address == command.output
    assert learned.metadata == {"placeholder_token": "<cat-toy>", "steps": 3, "training_key": "k" * 64}


def test_component_refuses_artifacts_of_a_run_without_a_cluster(
    kubernetes: KubernetesServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = dsl.Model(name="any", uri=str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        launch_trainjob.python_func(
            latent_set=artifact,
            base_model=artifact,
            initial_embedding=artifact,
            learned_embedding=artifact,
            checkpoint_root="s3://bucket/checkpoints",
            cpu_per_node="4",
            memory_per_node="16Gi",
            accelerator_node_selector={},
            accelerator_tolerations=[],
        )
    assert stop.value.code == 2
    assert "latent_set: found the local folder" in caplog.text
    assert kubernetes.requests == []


def test_exit_handler_deletes_what_the_run_has_left(kubernetes: KubernetesServer, command: TrainingCommand) -> None:
    kubernetes.put(train_job(make_config(run_id="run-1"), command))
    remove_trainjobs.python_func(run_id="run-1")
    assert kubernetes.jobs == {}


@pytest.mark.parametrize("trainer", [train_torch, train_flax])
def test_component_takes_what_the_trainers_take_and_where(trainer: dsl.base_component.BaseComponent) -> None:
    def parameters(component: dsl.base_component.BaseComponent) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(component.python_func).parameters)

    ours, theirs = parameters(launch_trainjob), parameters(trainer)
    assert set(ours) - set(theirs) == set(LaunchConfig.__dataclass_fields__)
    for name in set(theirs) - {"accelerator"}:
        assert (ours[name].annotation, ours[name].default) == (theirs[name].annotation, theirs[name].default), name


def test_components_compile_into_a_pipeline_with_an_exit_handler(tmp_path: Path) -> None:
    @dsl.pipeline(name="launching")
    def launching():
        cleaning = remove_trainjobs(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        with dsl.ExitHandler(cleaning):
            given = {
                name: dsl.importer(artifact_uri=f"s3://bucket/{name}", artifact_class=kind).output
                for name, kind in (
                    ("latent_set", dsl.Dataset),
                    ("base_model", dsl.Model),
                    ("initial_embedding", dsl.Model),
                )
            }
            launch_trainjob(
                **given,
                checkpoint_root="s3://bucket/checkpoints",
                cpu_per_node="4",
                memory_per_node="16Gi",
                accelerator_node_selector={},
                accelerator_tolerations=[],
                num_nodes=2,
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            )

    compiler.Compiler().compile(launching, str(tmp_path / "pipeline.yaml"))
    pipeline = yaml.safe_load((tmp_path / "pipeline.yaml").read_text(encoding="utf-8"))
    images = {
        name: executor["container"]["image"].rpartition("/")[2].partition(":")[0]
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
        if "container" in executor
    }
    assert images == {"exec-launch-trainjob": "launcher", "exec-remove-trainjobs": "launcher"}

"""Which devices a run uses, and whether its processes find each other."""

from __future__ import annotations

import jax
import pytest

from components.common.errors import ConfigError
from components.common.training.config import TPU_STAND_IN_VARIABLE
from components.flax_models.devices import describe_devices, join_processes, mesh_for
from tests import flax_runs as runs

del runs  # imported for its settings of JAX


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "found JAX_NUM_PROCESSES but not JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
            "JAX_NUM_PROCESSES: found 'two', expected a whole number",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID: found 2, expected 0 to 1",
        ),
    ],
)
def test_half_a_description_of_processes_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        join_processes(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TPU_WORKER_HOSTNAMES": "host-0"},
        {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
    ],
)
def test_one_process_joins_nobody(environment: dict[str, str]) -> None:
    join_processes(environment)
    assert not jax.distributed.is_initialized()


def test_mesh_has_every_device() -> None:
    assert mesh_for("cpu").devices.tolist() == jax.devices("cpu")


def test_unknown_accelerator_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 'npu', expected one of cpu, gpu, tpu"):
        mesh_for("npu")


def test_absent_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gpu was asked for, but jax .* found cpu \(cpu\) alone"):
        mesh_for("gpu")


def test_absent_tpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TPU_STAND_IN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=r"tpu was asked for, but jax .* found cpu \(cpu\) alone"):
        mesh_for("tpu")


def test_cpu_stands_in_for_tpus_only_when_it_is_told_to_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(TPU_STAND_IN_VARIABLE, "cpu")
    mesh = mesh_for("tpu")
    assert mesh.devices.tolist() == jax.devices("cpu")
    assert f"no TPU is used: {mesh.size} devices of this CPU stand in" in caplog.text
    assert describe_devices(mesh, "tpu") == f"{mesh.size} x cpu standing in for tpu"
    assert describe_devices(mesh, "cpu") == f"{mesh.size} x cpu"


def test_nothing_else_stands_in_for_tpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TPU_STAND_IN_VARIABLE, "yes")
    with pytest.raises(ConfigError, match=f"{TPU_STAND_IN_VARIABLE}: found 'yes', expected cpu"):
        mesh_for("tpu")

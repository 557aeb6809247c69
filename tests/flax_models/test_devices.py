"""Which devices a run uses, and whether its processes find each other."""

from __future__ import annotations

import jax
import pytest

from components.common.errors import ConfigError
from components.flax_models.devices import join_processes, mesh_for
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

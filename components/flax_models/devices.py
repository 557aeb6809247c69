"""The devices that a run uses, of all its processes, as a mesh with the one axis `data`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import jax
import numpy as np

from components.common.errors import ConfigError
from components.common.training.config import FLAX_ACCELERATORS, TPU_STAND_IN_VARIABLE, check_accelerator

logger = logging.getLogger(__name__)

DATA = "data"
"""The mesh's axis: samples are cut along it, everything else is the same on every device."""

_COORDINATOR, _COUNT, _RANK = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join_processes(environment: Mapping[str, str] | None = None) -> None:
    """Joins the processes of one run, if the environment names several; call it before any other use of JAX.

    A Kubeflow TrainJob sets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. A TPU slice of several hosts
    is known by TPU_WORKER_HOSTNAMES, from which JAX finds the rest itself.

    Raises:
        ConfigError: when some of the three variables are missing or no numbers.
    """
    given = os.environ if environment is None else environment
    named = {name: given[name] for name in (_COORDINATOR, _COUNT, _RANK) if given.get(name)}
    if named:
        missing = [name for name in (_COORDINATOR, _COUNT, _RANK) if name not in named]
        if missing:
            raise ConfigError(f"found {', '.join(named)} but not {', '.join(missing)}, expected all three or none")
        count, rank = (_number(name, named[name]) for name in (_COUNT, _RANK))
        if not 0 <= rank < count:
            raise ConfigError(f"{_RANK}: found {rank}, expected 0 to {count - 1} as {_COUNT} is {count}")
        if count > 1:
            jax.distributed.initialize(named[_COORDINATOR], num_processes=count, process_id=rank)
    elif len([name for name in given.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]) > 1:
        jax.distributed.initialize()


def mesh_for(accelerator: str) -> jax.sharding.Mesh:
    """The mesh over all devices of the kind `accelerator` (`cpu`, `gpu` or `tpu`), of all processes.

    Where `TPU_STAND_IN_VARIABLE` asks for it, the CPU's devices stand in for TPUs, and the log says so; into how many
    the CPU is divided says JAX_NUM_CPU_DEVICES, which JAX reads itself.

    Raises:
        ConfigError: when it is unknown, or there are no such devices: never a silent fall-back.
    """
    check_accelerator(accelerator, FLAX_ACCELERATORS)
    if accelerator == "tpu" and (stand_in := os.environ.get(TPU_STAND_IN_VARIABLE)):
        return _mesh_of_stand_ins(stand_in)
    try:
        devices = jax.devices(accelerator)
    except RuntimeError as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"accelerator: {accelerator} was asked for, but jax {jax.__version__} found {_found()} ({first_line}): "
            f"run on a machine with a {accelerator.upper()} and the JAX for it, or choose another accelerator"
        ) from error
    logger.info("%d %s devices (%s)", len(devices), accelerator, devices[0].device_kind)
    return jax.sharding.Mesh(np.array(devices), (DATA,))


def describe_devices(mesh: jax.sharding.Mesh, accelerator: str) -> str:
    """The devices for a person: `4 x TPU v5 lite`, or `2 x cpu standing in for tpu`."""
    device = mesh.devices.flat[0]
    stands_in = accelerator == "tpu" and device.platform == "cpu"
    return f"{mesh.size} x {device.device_kind}{' standing in for tpu' if stands_in else ''}"


def _mesh_of_stand_ins(kind: str) -> jax.sharding.Mesh:
    if kind != "cpu":
        raise ConfigError(f"{TPU_STAND_IN_VARIABLE}: found {kind!r}, expected cpu, or nothing to train on TPUs")
    devices = jax.devices("cpu")
    logger.warning("no TPU is used: %d devices of this CPU stand in, as %s asks", len(devices), TPU_STAND_IN_VARIABLE)
    return jax.sharding.Mesh(np.array(devices), (DATA,))


def _found() -> str:
    try:
        devices = jax.devices()
    except RuntimeError:
        return "no device of the kinds in JAX_PLATFORMS"
    return " and ".join(sorted({f"{device.platform} ({device.device_kind})" for device in devices})) + " alone"


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name}: found {text!r}, expected a whole number") from error

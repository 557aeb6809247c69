"""Which accelerators this machine has, and what stands in for TPUs on one that has none."""

from __future__ import annotations

import os
import subprocess
import sys

from components.common.errors import ConfigError
from components.common.training.config import TPU_STAND_IN_VARIABLE
from pipelines.local_run import SOURCE

STAND_IN = {"JAX_PLATFORMS": "cpu", TPU_STAND_IN_VARIABLE: "cpu"}
"""With these variables JAX computes on the CPU, and the steps for TPUs take its devices; each says so in its log."""

_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
_FIND_TPUS = "from components.flax_models.devices import mesh_for; mesh_for('tpu')"


def stand_in_environment(accelerator: str, host_devices: int) -> dict[str, str]:
    """The variables by which that many devices of the CPU stand in for TPU chips; none when 0 are asked for.

    Raises:
        ConfigError: when the accelerator is no TPU, so that nothing is to be stood in for.
    """
    if host_devices and accelerator != "tpu":
        raise ConfigError(f"--host-devices: found {host_devices} with accelerator {accelerator}, expected it with tpu")
    if host_devices < 0:
        raise ConfigError(f"--host-devices: found {host_devices}, expected 1 or more, or 0 for real TPUs")
    return {**STAND_IN, "JAX_NUM_CPU_DEVICES": str(host_devices)} if host_devices else {}


def visible_gpus(accelerator: str, count: int) -> dict[str, str]:
    """The variable by which the steps see that many GPUs, as their pods would: training takes every one it sees."""
    if accelerator != "gpu":
        return {}
    given = os.environ.get(_VISIBLE_GPUS)
    here = given.split(",") if given is not None else [str(number) for number in range(count)]
    return {_VISIBLE_GPUS: ",".join(here[:count])}


def check_accelerator_is_here(accelerator: str, count: int = 1) -> None:
    """Raises `ConfigError` unless the steps will find the accelerator on this machine; of GPUs, as many as `count`."""
    if accelerator == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                "accelerator: found gpu, but PyTorch sees no GPU on this machine: "
                "give --accelerator cpu, or run on a machine that has one"
            )
        if torch.cuda.device_count() < count:
            raise ConfigError(
                f"accelerator_count: found {count}, but PyTorch sees {torch.cuda.device_count()} GPUs on this machine, "
                "expected no more"
            )
    if accelerator == "tpu":
        # In a process of its own: a TPU belongs to the process that looked for it, and the steps need it.
        looked = subprocess.run(
            [sys.executable, "-c", _FIND_TPUS], cwd=SOURCE, capture_output=True, text=True, check=False
        )
        if looked.returncode:
            told = (looked.stderr.strip().splitlines() or ["no word"])[-1].partition("ConfigError: ")
            raise ConfigError(f"{told[2] or told[0]}; --host-devices 2 tries this path on the CPU")

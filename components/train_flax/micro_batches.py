"""How many samples a process takes at once: as many as memory holds, for accumulation only saves memory.

The compiler says what a size takes before anything runs, so that no size has to be tried out. The size that was chosen
is kept in the checkpoint, so that a resumed run rounds as the uninterrupted one would have.
"""

from __future__ import annotations

import logging

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from components.common.errors import ConfigError
from components.common.free_memory import free_memory_bytes
from components.common.training.config import TrainConfig

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.9
"""The share of a device's memory that a compiled step may take."""


def sizes_that_fit(config: TrainConfig, devices: int) -> list[int]:
    """The sizes in which a process may take its samples, largest first; each is a multiple of its `devices`.

    Raises:
        ConfigError: when there is none, naming batch sizes that fit.
    """
    batch, accumulation = config.train_batch_size, config.gradient_accumulation_steps
    share = batch * accumulation
    smallest, largest = (1, share) if config.fuse_micro_batches else (batch, batch)
    sizes = [size for size in range(largest, smallest - 1, -1) if share % size == 0 and size % devices == 0]
    if not sizes:
        told = f"train_batch_size {batch} x gradient_accumulation_steps {accumulation} = {share} samples"
        if not config.fuse_micro_batches:
            told = f"train_batch_size {batch} without fuse_micro_batches"
        raise ConfigError(
            f"{told} cannot be shared equally among the {devices} devices of a process: choose a train_batch_size of "
            f"{', '.join(str(devices * factor) for factor in (1, 2, 3))} or another multiple of {devices}"
        )
    return sizes


def memory_limit(mesh: Mesh) -> float:
    """Bytes that a program may take on each device; the least of all processes, so that all choose the same size.

    Devices of one CPU share what is free.
    """
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit") or free_memory_bytes() / len(mesh.local_devices)
    if jax.process_count() > 1:
        limit = multihost_utils.process_allgather(np.float32(limit)).min()
    return MEMORY_SHARE * float(limit)


def memory_needed(compiled: jax.stages.Compiled) -> int:
    """Bytes on each device for the arguments, results and temporaries of a compiled function."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )

"""How many samples a process takes at once: as many as memory holds, for accumulation only saves memory.

The compiler says what a size takes before anything runs, so that no size has to be tried out: for GPUs and CPUs in
numbers, for TPUs by refusing what exceeds their memory. The size that was chosen
is kept in the checkpoint, so that a resumed run rounds as the uninterrupted one would have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

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

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""How the message begins with which XLA refuses a program that exceeds a TPU's memory."""


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


def compiled_that_fits(
    sizes: Sequence[int], compile_size: Callable[[int], jax.stages.Compiled], limit: float
) -> tuple[int, jax.stages.Compiled]:
    """The first of `sizes` that every process can compile and that takes at most `limit` bytes, and the step for it.

    The last size is taken whatever it is said to take, if only it compiles.

    Raises:
        ConfigError: when the compiler refuses the last size too.
    """
    for size in sizes:
        compiled, refusal = None, ""
        try:
            compiled = compile_size(size)
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith(OUT_OF_MEMORY):
                raise
            refusal = str(error).splitlines()[0]
        needed = memory_needed(compiled) if compiled else 0
        fits = compiled is not None and (needed <= limit or size == sizes[-1])
        if _everywhere(fits) and compiled is not None:
            logger.info("%d samples at once, compiled for %.2f GB", size, needed / 1e9)
            return size, compiled
        told = refusal or f"it would take {needed / 1e9:.1f} GB of {limit / 1e9:.1f} GB, here or in another process"
        logger.info("%d samples at once do not fit: %s", size, told)
    raise ConfigError(
        f"train_batch_size: a step does not fit into memory with {', '.join(map(str, sizes))} samples at once "
        f"({told}): set gradient_checkpointing, mixed_precision to bf16, or a smaller train_batch_size or resolution"
    )


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


def _everywhere(fits: bool) -> bool:
    """Whether it fits in all processes, which must run the same program."""
    return fits if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(fits)).all())

"""How many samples go through the UNet at once: as many as memory holds, for accumulation only saves memory.

The gradient of one batch of 4 is that of 4 batches of 1 to rounding, and takes fewer, larger kernels. The size that was
chosen is kept in the checkpoint, so that a resumed run rounds as the uninterrupted one would have.
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from components.common.errors import ConfigError
from components.common.free_memory import free_memory_bytes
from components.common.training.config import TrainConfig

logger = logging.getLogger(__name__)

CPU_MEMORY_SHARE = 0.7
"""The share of the memory still free that activations may take: a CPU has no error to catch when it runs out."""
WAYS_TO_SAVE_MEMORY = (
    "turn on gradient_checkpointing, choose mixed_precision fp16 or bf16, lower train_batch_size (and raise "
    "gradient_accumulation_steps by as much), or take a smaller resolution"
)


def allowed_sizes(config: TrainConfig, share: int, kept: int | None, words: int = 1) -> list[int]:
    """The sizes that the configuration allows, largest first; each cuts `share` samples evenly.

    Args:
        config: says the smallest size, `train_batch_size`, and whether batches may be fused to larger ones.
        share: samples that this process takes in one optimizer step.
        kept: the size that a checkpoint was trained with. Where it is allowed it comes first, and no larger one is.
        words: how many words these samples are of; a batch of each may be taken at once in any case.
    """
    smallest = config.train_batch_size
    largest = share if config.fuse_micro_batches else smallest * words
    sizes = [size for size in range(largest, smallest - 1, -1) if share % size == 0]
    return sizes[sizes.index(kept) :] if kept in sizes else sizes


def choose_on_cpu(sizes: Sequence[int], try_size: Callable[[int], None]) -> int:
    """The largest size whose activations fit into the memory that is free, judged by one trial of the smallest.

    Args:
        sizes: to choose from, largest first.
        try_size: takes that many samples forward and backward, and forgets the gradient.
    """
    smallest = sizes[-1]
    if len(sizes) == 1:
        return smallest
    before, free = _resident_bytes(), fair_share_of_free_memory()
    try_size(smallest)
    per_sample = max(_peak_resident_bytes() - before, 1) / smallest
    room = CPU_MEMORY_SHARE * free / per_sample
    return next((size for size in sizes if size <= room), smallest)


def choose_on_gpu(sizes: Sequence[int], try_size: Callable[[int], None]) -> int:
    """The largest size that the device takes without running out of memory; arguments as for `choose_on_cpu`.

    Raises:
        ConfigError: when not even the smallest fits; says what was tried and how to need less.
    """
    for size in sizes:
        if _fits(size, try_size):
            return size
        # Only here: while the error was handled, its frames still held the activations.
        torch.cuda.empty_cache()
    raise ConfigError(
        f"the GPU ran out of memory with {sizes[-1]} samples at once, the fewest that train_batch_size allows (tried: "
        f"{', '.join(map(str, sizes))}): {WAYS_TO_SAVE_MEMORY}"
    )


def fair_share_of_free_memory() -> float:
    """Bytes of the free memory for each of the processes that torchrun has started on this machine."""
    return free_memory_bytes() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _fits(size: int, try_size: Callable[[int], None]) -> bool:
    try:
        try_size(size)
    except torch.OutOfMemoryError as error:
        logger.info("%d samples at once do not fit: %s", size, str(error).partition(". ")[0])
        return False
    return True


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""How many samples go through the UNet at once: as many as memory holds, for accumulation only saves memory.

The gradient of one batch of 4 is that of 4 batches of 1 to rounding, and takes fewer, larger kernels. The size that was
chosen is kept in the checkpoint, so that a resumed run rounds as the uninterrupted one would have.
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

import torch

from components.common.free_memory import free_memory_bytes

logger = logging.getLogger(__name__)

CPU_MEMORY_SHARE = 0.7
"""The share of the memory still free that activations may take: a CPU has no error to catch when it runs out."""


def sizes_that_fit(share: int, smallest: int) -> list[int]:
    """The sizes into which `share` samples can be cut evenly, largest first, down to `smallest`, which divides it."""
    return [size for size in range(share, smallest - 1, -1) if share % size == 0]


def choose_on_cpu(share: int, smallest: int, try_size: Callable[[int], None]) -> int:
    """The largest size whose activations fit into the memory that is free, judged by one trial of `smallest` samples.

    Args:
        share: samples that this process takes in one optimizer step.
        smallest: samples that the configuration takes at once.
        try_size: takes that many samples forward and backward, and forgets the gradient.
    """
    if share == smallest:
        return share
    before, free = _resident_bytes(), free_memory_bytes()
    try_size(smallest)
    per_sample = max(_peak_resident_bytes() - before, 1) / smallest
    room = CPU_MEMORY_SHARE * free / per_sample
    return next((size for size in sizes_that_fit(share, smallest) if size <= room), smallest)


def choose_on_gpu(share: int, smallest: int, try_size: Callable[[int], None]) -> int:
    """The largest size that the device takes without running out of memory; arguments as for `choose_on_cpu`.

    Raises:
        torch.OutOfMemoryError: when not even `smallest` samples fit.
    """
    for size in sizes_that_fit(share, smallest):
        try:
            try_size(size)
        except torch.OutOfMemoryError:
            if size == smallest:
                raise
            torch.cuda.empty_cache()
            continue
        return size
    raise AssertionError(f"{smallest} does not divide {share}")


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

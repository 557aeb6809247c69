"""What `accelerate launch` and `torchrun` say in the environment, honoured or refused before anything is loaded.

What this trainer cannot do, and processes that were asked for and never joined, are errors: a training on the wrong
device, or several that each believe to be alone, would only be noticed much later.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import record

from components.common.errors import ConfigError
from components.train.accelerate_environment import is_true

logger = logging.getLogger(__name__)

_SHARDING = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")


def check_launcher(accelerator: str) -> None:
    """Raises `ConfigError` when accelerate was told to shard the model, or to use the CPU where a GPU was asked for."""
    for name in _SHARDING:
        if is_true(f"ACCELERATE_USE_{name}"):
            raise ConfigError(
                f"accelerate is configured for {name} (ACCELERATE_USE_{name}), but this trainer keeps the whole frozen "
                "model in every process and shares out the samples: choose multi-GPU, or none of these, in "
                "`accelerate config`"
            )
    if accelerator != "cpu" and is_true("ACCELERATE_USE_CPU"):
        raise ConfigError(
            f"accelerator: found {accelerator!r}, but accelerate is configured for the CPU (ACCELERATE_USE_CPU): "
            "choose accelerator=cpu, or change `accelerate config`"
        )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "NO")
    if backend.upper() != "NO":
        logger.warning("accelerate is configured for torch.compile by %s, which is not used: see cuda_graphs", backend)


def check_processes(joined: int) -> None:
    """Raises `ConfigError` when fewer processes have `joined` this training than the launcher was asked for."""
    nodes, per_node = os.environ.get("PET_NNODES", "1"), os.environ.get("PET_NPROC_PER_NODE", "1")
    least = int(nodes.partition(":")[0]) * (int(per_node) if per_node.isdecimal() else 1)
    if joined < least:
        raise ConfigError(
            f"found {joined} processes in this training, expected {least} or more (PET_NNODES={nodes}, "
            f"PET_NPROC_PER_NODE={per_node}): start it with `torchrun -m components.train`, which reads these "
            "variables; python and `accelerate launch` do not"
        )
    # What `accelerate launch --num_processes 2` sets where it sees no two GPUs and starts a single process.
    started_alone = "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ
    if joined == 1 and started_alone and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "accelerate was asked for several processes and started one, for it sees no several GPUs: use `torchrun "
            "--nproc-per-node N -m components.train`, or `accelerate launch --multi_gpu --num_processes N`, "
            "which also works with accelerator=cpu"
        )


def recorded(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run`, which leaves what it raises where the launcher looks for what the process that failed first has said."""
    return record(run)

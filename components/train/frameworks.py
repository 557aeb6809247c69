"""The frameworks that train: on what, and how a pod of several nodes starts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from components.common.errors import ConfigError
from components.common.training.config import ACCELERATORS, FLAX_ACCELERATORS, TrainConfig, check_accelerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framework:
    """What differs between the two trainers where they run.

    Attributes:
        accelerators: what it trains on.
        command: starts the trainer in every pod of a TrainJob; flags follow.
        runtime: name of the TrainingRuntime that knows the framework.
        process_per_device: whether each device of a node has a process of its own, or one process has all of them.
    """

    accelerators: tuple[str, ...]
    command: tuple[str, ...]
    runtime: str
    process_per_device: bool


FRAMEWORKS = {
    "torch": Framework(
        accelerators=ACCELERATORS,
        command=("torchrun", "-m", "components.train"),
        runtime="textual-inversion-torch",
        process_per_device=True,
    ),
    "flax": Framework(
        accelerators=FLAX_ACCELERATORS,
        command=("python3", "-m", "components.train"),
        runtime="textual-inversion-jax",
        process_per_device=False,
    ),
}
"""Kubeflow Trainer tells torchrun (PET_*) or JAX (JAX_*) how many nodes there are, and which one a pod is."""

_TORCH_ALONE = {
    "enable_xformers_memory_efficient_attention": "xFormers is for PyTorch, and attention is as lean without it",
    "cuda_graphs": "it is for PyTorch; XLA captures command buffers on GPUs by itself",
}

AUTO = "auto"
FRAMEWORK_CHOICES = (AUTO, *FRAMEWORKS)
FRAMEWORK_MEANING = (
    "what trains: torch on cpu and gpu, flax (JAX) on all; auto takes flax with tpu, and torch elsewhere"
)


def framework_for(framework: str, accelerator: str) -> str:
    """`torch` or `flax`: what trains on `accelerator` when `framework` is asked for; `auto` takes flax for TPUs alone.

    Raises:
        ConfigError: when one of the two is unknown, or the framework does not train on the accelerator.
    """
    check_accelerator(accelerator, FLAX_ACCELERATORS)
    if framework == AUTO:
        return "flax" if accelerator == "tpu" else "torch"
    if framework not in FRAMEWORKS:
        raise ConfigError(f"framework: found {framework!r}, expected one of {', '.join(FRAMEWORK_CHOICES)}")
    if accelerator not in FRAMEWORKS[framework].accelerators:
        trains_on = ", ".join(FRAMEWORKS[framework].accelerators)
        others = [name for name, other in FRAMEWORKS.items() if accelerator in other.accelerators]
        raise ConfigError(
            f"framework: found {framework} with accelerator {accelerator}, expected {' or '.join([AUTO, *others])}: "
            f"{framework} trains on {trains_on}"
        )
    return framework


def mistakes_with_flax(config: TrainConfig) -> Iterator[str]:
    """What Flax cannot do of a training, each as `field: found ..., expected ...`."""
    for name, reason in _TORCH_ALONE.items():
        if getattr(config, name):
            yield f"{name}: found True, expected False with Flax: {reason}"

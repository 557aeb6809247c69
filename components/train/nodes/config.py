"""On how many nodes of which kind a training runs, and how the cluster is asked for them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.common.accelerators import RESOURCES, TPU_TOPOLOGY, TPU_TYPE, PodAccelerators
from components.common.errors import ConfigError
from components.common.training.config import ACCELERATORS, FLAX_ACCELERATORS, check_accelerator

MODEL_CPU, MODEL_MEMORY = "4", "16Gi"
"""What a pod takes that holds a model of Stable Diffusion's size."""

DESCRIPTIONS = {
    "cpu_per_node": "processors of each node, in Kubernetes' notation, such as 8",
    "memory_per_node": "memory of each node, in Kubernetes' notation, such as 32Gi; /dev/shm counts against it",
    "accelerator_node_selector": "labels of the nodes to use, as JSON; on Google Cloud TPUs need "
    f'{{"{TPU_TYPE}": "tpu-v6e-slice", "{TPU_TOPOLOGY}": "2x4"}}',
    "accelerator_tolerations": "Kubernetes tolerations for those nodes, as JSON, beyond those for the accelerator "
    "itself and for spot nodes of Google Cloud",
    "framework": "what trains: torch (components.train.torch) or flax (components.train.flax); empty takes flax with "
    "tpu, and torch elsewhere",
    "num_nodes": "pods that train together, each on a node; for TPUs the hosts of the slice",
    "processes_per_node": "processes of each node; 0 takes one for each GPU with torch, and one with flax",
    "accelerator_count": "accelerators of each node, as text: GPUs, or the TPU chips of a host; 0 for cpu",
    "accelerator_resource": "Kubernetes resource of the accelerator; empty takes " + " or ".join(RESOURCES.values()),
    "queue": "Kueue's local queue that the training waits in; empty for none",
    "runtime": "TrainingRuntime in the run's namespace; empty takes textual-inversion-torch or textual-inversion-jax",
    "trainer_image": "container image of the trainer; empty takes the runtime's",
    "service_account": "service account of the training's pods; empty takes the runtime's",
    "timeout_seconds": "how long the TrainJob of several nodes may run before the cluster ends it",
    "run_id": "the pipeline run that the training belongs to; empty takes that of the step's pod: so it can be cached",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framework:
    """What differs between the two trainers where they run.

    Attributes:
        command: starts the trainer's module in every pod; flags follow.
        runtime: name of the TrainingRuntime that knows the framework.
        accelerators: what it trains on.
        process_per_device: whether each device of a node has a process of its own, or one process has all of them.
    """

    command: tuple[str, ...]
    runtime: str
    accelerators: tuple[str, ...]
    process_per_device: bool


FRAMEWORKS = {
    "torch": Framework(
        command=("torchrun", "-m", "components.train.torch"),
        runtime="textual-inversion-torch",
        accelerators=ACCELERATORS,
        process_per_device=True,
    ),
    "flax": Framework(
        command=("python3", "-m", "components.train.flax"),
        runtime="textual-inversion-jax",
        accelerators=FLAX_ACCELERATORS,
        process_per_device=False,
    ),
}
"""Kubeflow Trainer tells torchrun (PET_*) or JAX (JAX_*) how many nodes there are, and which one a pod is."""

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How the cluster is asked for nodes. Field meanings are in `DESCRIPTIONS`.

    Raises:
        ConfigError: for a value that cannot be right, naming the field.
    """

    cpu_per_node: str = MODEL_CPU
    memory_per_node: str = MODEL_MEMORY
    accelerator_node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    accelerator_tolerations: Sequence[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    framework: str = ""
    num_nodes: int = 1
    processes_per_node: int = 0
    accelerator_count: str = "1"
    accelerator_resource: str = ""
    queue: str = ""
    runtime: str = ""
    trainer_image: str = ""
    service_account: str = ""
    timeout_seconds: int = 86_400
    run_id: str = ""

    def __post_init__(self) -> None:
        if self.framework and self.framework not in FRAMEWORKS:
            raise ConfigError(f"framework: found {self.framework!r}, expected one of {', '.join(FRAMEWORKS)}")
        for name, least in (("num_nodes", 1), ("processes_per_node", 0), ("timeout_seconds", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected {least} or more")
        if not self.accelerator_count.isdecimal():
            raise ConfigError(f"accelerator_count: found {self.accelerator_count!r}, expected a number such as 1")
        for name in ("cpu_per_node", "memory_per_node"):
            if not _QUANTITY.fullmatch(getattr(self, name)):
                raise ConfigError(f"{name}: found {getattr(self, name)!r}, expected {DESCRIPTIONS[name]}")
        for name, pattern in (("queue", _NAME), ("runtime", _NAME), ("service_account", _NAME), ("run_id", _LABEL)):
            value = getattr(self, name)
            if value and not pattern.fullmatch(value):
                raise ConfigError(f"{name}: found {value!r}, expected {DESCRIPTIONS[name]}")

    def framework_on(self, accelerator: str) -> Framework:
        """The framework that trains on `accelerator`: `cpu`, `gpu` or `tpu`."""
        return FRAMEWORKS[self.framework or ("flax" if accelerator == "tpu" else "torch")]

    def pod_accelerators(self, accelerator: str) -> PodAccelerators:
        """What each pod asks for when training is to run on `accelerator`.

        Raises:
            ConfigError: when the framework does not train there, or nodes, processes and accelerators do not fit.
        """
        framework = self.framework_on(accelerator)
        check_accelerator(accelerator, framework.accelerators)
        pod = PodAccelerators(
            kind=accelerator,
            count=int(self.accelerator_count),
            resource=self.accelerator_resource,
            node_selector=self.accelerator_node_selector,
            tolerations=self.accelerator_tolerations,
        )
        pod.check_nodes(self.num_nodes)
        expected = pod.count if framework.process_per_device else 1
        if expected and self.processes_per_node not in (0, expected):
            reason = "one for each GPU" if framework.process_per_device else "one process has all of a node's devices"
            raise ConfigError(
                f"processes_per_node: found {self.processes_per_node} with {framework.command[-1]} on {accelerator}, "
                f"expected {expected} or 0: {reason}"
            )
        return pod

    def num_processes_per_node(self, accelerator: str) -> int:
        """How many processes train on each node."""
        if not self.framework_on(accelerator).process_per_device:
            return 1
        return self.processes_per_node or max(1, int(self.accelerator_count))

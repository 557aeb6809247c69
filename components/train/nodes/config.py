"""On how many nodes of which kind a training runs, and how the cluster is asked for them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from components.common.accelerators import (
    NODE_SELECTOR_MEANING,
    RESOURCE_MEANING,
    TOLERATIONS_MEANING,
    PodAccelerators,
)
from components.common.errors import ConfigError
from components.common.options import Config, option, option_of
from components.train.frameworks import FRAMEWORKS

MODEL_CPU, MODEL_MEMORY = "4", "16Gi"
"""What a pod takes that holds a model of Stable Diffusion's size."""

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodesOptions(Config):
    """On how many nodes a training runs, and how it waits for them."""

    title = "Several nodes"

    num_nodes: int = option("pods that train together, each on a node; for TPUs the hosts of the slice", 1, least=1)
    queue: str = option("Kueue's local queue that a training on several nodes waits in; empty for none", "")
    trainjob_timeout_seconds: int = option(
        "how long the TrainJob of several nodes may run before the cluster ends it", 86_400, least=1
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        yield from _mistakes_of_names(self, queue=_NAME)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchConfig(NodesOptions):
    """How the cluster is asked for nodes."""

    cpu_per_node: str = option("processors of each node, in Kubernetes' notation, such as 8", MODEL_CPU)
    memory_per_node: str = option(
        "memory of each node, in Kubernetes' notation, such as 32Gi; /dev/shm counts against it", MODEL_MEMORY
    )
    accelerator_node_selector: Mapping[str, str] = option(NODE_SELECTOR_MEANING, {})
    accelerator_tolerations: tuple[Mapping[str, Any], ...] = option(TOLERATIONS_MEANING, ())
    processes_per_node: int = option(
        "processes of each node; 0 takes one for each GPU with torch, and one with flax", 0, least=0
    )
    accelerator_count: int = option(
        "accelerators of each node: GPUs, or the TPU chips of a host; 0 for cpu", 1, least=0
    )
    accelerator_resource: str = option(RESOURCE_MEANING, "")
    runtime: str = option(
        "TrainingRuntime in the run's namespace; empty takes textual-inversion-torch or textual-inversion-jax", ""
    )
    trainer_image: str = option("container image of the trainer; empty takes the runtime's", "")
    service_account: str = option("service account of the training's pods; empty takes the runtime's", "")
    run_id: str = option(
        "the pipeline run that the training belongs to; empty takes that of the step's pod: so it can be cached", ""
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        yield from super().find_mistakes()
        for name in ("cpu_per_node", "memory_per_node"):
            yield from mistakes_of_quantity(name, getattr(self, name))
        yield from _mistakes_of_names(self, runtime=_NAME, service_account=_NAME, run_id=_LABEL)

    def pod_accelerators(self, framework: str, accelerator: str) -> PodAccelerators:
        """What each pod asks for when `framework`, `torch` or `flax`, is to train on `accelerator`.

        Raises:
            ConfigError: when nodes, processes and accelerators do not fit.
        """
        pod = PodAccelerators(
            kind=accelerator,
            count=self.accelerator_count,
            resource=self.accelerator_resource,
            node_selector=self.accelerator_node_selector,
            tolerations=self.accelerator_tolerations,
        )
        pod.check_nodes(self.num_nodes)
        process_per_device = FRAMEWORKS[framework].process_per_device
        expected = pod.count if process_per_device else 1
        if expected and self.processes_per_node not in (0, expected):
            reason = "one for each GPU" if process_per_device else "one process has all of a node's devices"
            raise ConfigError(
                f"processes_per_node: found {self.processes_per_node} with {framework} on {accelerator}, expected "
                f"{expected} or 0: {reason}"
            )
        return pod


def mistakes_of_quantity(name: str, value: str) -> Iterable[str]:
    """What is wrong with a number of processors or an amount of memory as Kubernetes writes it."""
    if not _QUANTITY.fullmatch(value):
        yield f"{name}: found {value!r}, expected a quantity in Kubernetes' notation, such as 4, 500m or 16Gi"


def _mistakes_of_names(config: Config, **patterns: re.Pattern[str]) -> Iterable[str]:
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name, pattern in patterns.items():
        value = getattr(config, name)
        if value and not pattern.fullmatch(value):
            yield f"{name}: found {value!r}, expected {option_of(fields[name]).description}"

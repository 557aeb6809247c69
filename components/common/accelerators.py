"""Accelerators as a Kubernetes cluster knows them: resource, nodes and tolerations of each kind, in one place."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.common.errors import ConfigError

RESOURCES: Mapping[str, str] = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}
"""The Kubernetes resource of each kind, where none is given, and the taint of its nodes; `cpu` stands for none."""

SPOT = "cloud.google.com/gke-spot"
"""Label and taint of Google Cloud's spot nodes: cheaper, and taken away with about 25 seconds' notice."""

TPU_TYPE = "cloud.google.com/gke-tpu-accelerator"
"""The label of Google Cloud's nodes that says which TPUs they have, such as tpu-v6e-slice."""

TPU_TOPOLOGY = "cloud.google.com/gke-tpu-topology"
"""The label that says how the chips of a whole slice are arranged, such as 2x4."""

RESOURCE_MEANING = f"Kubernetes resource of the accelerator; empty takes {' or '.join(RESOURCES.values())}"
NODE_SELECTOR_MEANING = (
    "labels of the nodes to use, as JSON; on Google Cloud tpu needs "
    f'{{"{TPU_TYPE}": "tpu-v5-lite-podslice", "{TPU_TOPOLOGY}": "2x2"}}'
)
TOLERATIONS_MEANING = (
    "Kubernetes tolerations for those nodes, as JSON, beyond those for the accelerator itself and for spot nodes of "
    "Google Cloud"
)
"""What the options mean by which a person chooses accelerators and their nodes."""

SHARED_MEMORY = "2Gi"
"""Size of /dev/shm in a pod with GPUs, which talk through it; a container's usual 64 MiB are too few for NCCL."""

_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodAccelerators:
    """The accelerators of one pod, and the nodes that it may run on.

    Attributes:
        kind: `cpu`, `gpu` or `tpu`.
        count: how many the pod asks for; 0 with `cpu`.
        resource: the Kubernetes resource to ask for; empty takes the usual one of the kind.
        node_selector: labels of the nodes to use.
        tolerations: what is tolerated beside the taints of these accelerators and of spot nodes.

    Raises:
        ConfigError: for an unknown kind, or values that cannot be right.
    """

    kind: str
    count: int = 1
    resource: str = ""
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if self.kind != "cpu" and self.kind not in RESOURCES:
            raise ConfigError(f"accelerator: found {self.kind!r}, expected one of cpu, {', '.join(RESOURCES)}")
        if (self.kind == "cpu") != (self.count == 0) or self.count < 0:
            expected = "0" if self.kind == "cpu" else "1 or more"
            raise ConfigError(f"accelerator_count: found {self.count} with {self.kind}, expected {expected}")
        if self.resource:
            self._check_resource()
        check_node_selector("accelerator_node_selector", self.node_selector)
        if not all(isinstance(toleration, Mapping) for toleration in self.tolerations):
            raise ConfigError(
                f"accelerator_tolerations: found {json.dumps(self.tolerations)}, expected a list of objects such as "
                '{"key": "dedicated", "operator": "Exists"}'
            )

    def _check_resource(self) -> None:
        usual = RESOURCES.get(self.kind, "")
        if not _RESOURCE.fullmatch(self.resource):
            raise ConfigError(f"accelerator_resource: found {self.resource!r}, expected a name such as nvidia.com/gpu")
        if usual and self.resource != usual and RESOURCES["tpu"] in (usual, self.resource):
            raise ConfigError(
                f"accelerator_resource: found {self.resource} with accelerator {self.kind}, expected {usual}"
            )

    def check_nodes(self, num_nodes: int) -> None:
        """Raises `ConfigError` when that many pods do not have as many chips as the TPU slice that is asked for."""
        chips = self.chips_of_slice
        if chips and chips != num_nodes * self.count:
            raise ConfigError(
                f"num_nodes, accelerator_count: found {num_nodes} x {self.count} for a slice of "
                f"{self.node_selector[TPU_TOPOLOGY]}, which has {chips} chips, expected as many: num_nodes is the "
                "number of its hosts, accelerator_count that of the chips of one"
            )

    @property
    def chips_of_slice(self) -> int:
        """How many chips the TPU slice has that the nodes are part of; 0 where their labels do not tell."""
        topology = self.node_selector.get(TPU_TOPOLOGY, "")
        return math.prod(map(int, topology.split("x"))) if re.fullmatch(r"\d+(x\d+)+", topology) else 0

    @property
    def kubernetes_resource(self) -> str:
        """The Kubernetes resource of the accelerator; with `cpu` one that is asked for zero times."""
        return self.resource or RESOURCES.get(self.kind, RESOURCES["gpu"])

    @property
    def resources(self) -> dict[str, str]:
        """How many of which resource the container asks for."""
        return {self.kubernetes_resource: str(self.count)} if self.count else {}

    @property
    def all_tolerations(self) -> list[dict[str, Any]]:
        """The taints of nodes that the pod may run on all the same."""
        keys = (*self.resources, SPOT)
        return [*({"key": key, "operator": "Exists"} for key in keys), *map(_with_whole_numbers, self.tolerations)]

    @property
    def shared_memory(self) -> dict[str, Any] | None:
        """The volume for /dev/shm, without its name, where one is needed; it counts against the memory limit."""
        return {"emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}} if self.kind == "gpu" else None


def check_node_selector(name: str, labels: object) -> None:
    """Raises `ConfigError`, naming the parameter, when these are no labels of nodes with their values."""
    if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
        raise ConfigError(f"{name}: found {json.dumps(labels)}, expected labels and their values as text")


def _with_whole_numbers(toleration: Mapping[str, Any]) -> dict[str, Any]:
    # Kubeflow Pipelines hands on the numbers in a list's objects as floats, which Kubernetes refuses for seconds.
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in toleration.items()
    }

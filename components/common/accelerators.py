"""Accelerators as a Kubernetes cluster knows them: resource, nodes and tolerations of each kind, in one place."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from components.common.errors import ConfigError

SPOT = "cloud.google.com/gke-spot"
"""Label and taint of GKE's spot nodes: cheaper, and taken away with about 25 seconds' notice."""

SHARED_MEMORY = "2Gi"
"""Size of /dev/shm in a pod with several GPUs, which talk through it; Docker's 64 MiB are too few for NCCL."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AcceleratorKind:
    """What a cluster calls a kind of accelerator.

    Attributes:
        resource: the extended resource that a container asks for; also the taint of nodes that have it.
        type_label: the node label by which a type is chosen.
        types: the types that GKE offers.
        topology_label: the node label for the shape of a slice, or None where there are no slices.
    """

    resource: str
    type_label: str
    types: tuple[str, ...]
    topology_label: str | None = None


KINDS: Mapping[str, AcceleratorKind] = {
    "gpu": AcceleratorKind(
        resource="nvidia.com/gpu",
        type_label="cloud.google.com/gke-accelerator",
        types=(
            "nvidia-tesla-t4",
            "nvidia-tesla-v100",
            "nvidia-l4",
            "nvidia-rtx-pro-6000",
            "nvidia-tesla-a100",
            "nvidia-a100-80gb",
            "nvidia-h100-80gb",
            "nvidia-h100-mega-80gb",
            "nvidia-h200-141gb",
            "nvidia-b200",
        ),
    ),
    "tpu": AcceleratorKind(
        resource="google.com/tpu",
        type_label="cloud.google.com/gke-tpu-accelerator",
        types=("tpu-v4-podslice", "tpu-v5-lite-podslice", "tpu-v5p-slice", "tpu-v6e-slice", "tpu7x"),
        topology_label="cloud.google.com/gke-tpu-topology",
    ),
}
"""The kinds of accelerator; `cpu` stands for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodAccelerators:
    """The accelerators of one pod, and the nodes that it may run on.

    Attributes:
        kind: `cpu`, or one of `KINDS`.
        count: how many the pod asks for; 0 with `cpu`.
        type: one of the kind's types, or empty for any; a TPU has to be named.
        topology: the shape of the whole TPU slice in chips, such as `2x4`; empty for other kinds.
        spot: whether the pod runs on spot nodes.

    Raises:
        ConfigError: for an unknown kind or type, or a count or topology that cannot be right.
    """

    kind: str
    count: int = 1
    type: str = ""
    topology: str = ""
    spot: bool = False

    def __post_init__(self) -> None:
        if self.kind != "cpu" and self.kind not in KINDS:
            raise ConfigError(f"accelerator: found {self.kind!r}, expected one of cpu, {', '.join(KINDS)}")
        if (self.kind == "cpu") != (self.count == 0) or self.count < 0:
            expected = "0" if self.kind == "cpu" else "1 or more"
            raise ConfigError(f"accelerator_count: found {self.count} with {self.kind}, expected {expected}")
        types = KINDS[self.kind].types if self.kind in KINDS else ()
        if self.type and self.type not in types:
            known = f"one of {', '.join(types)}, or nothing" if types else "nothing"
            raise ConfigError(
                f"accelerator_type: found {self.type!r} with {self.kind}, expected {known}; on clusters that name "
                "their nodes in another way, leave it empty and choose the nodes in the TrainingRuntime"
            )
        self._check_topology()

    def _check_topology(self) -> None:
        if self.kind != "tpu":
            if self.topology:
                raise ConfigError(f"accelerator_topology: found {self.topology!r} with {self.kind}, expected nothing")
        elif not self.type or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", self.topology):
            raise ConfigError(
                f"accelerator_type, accelerator_topology: found {self.type!r} and {self.topology!r}, expected the "
                "type and the shape of the TPU slice, such as tpu-v6e-slice and 2x4"
            )

    def check_nodes(self, num_nodes: int) -> None:
        """Raises `ConfigError` unless that many pods together have the chips of the TPU slice; others may be any."""
        if self.kind == "tpu":
            chips = math.prod(int(side) for side in self.topology.split("x"))
            if chips != num_nodes * self.count:
                raise ConfigError(
                    f"num_nodes: found {num_nodes} nodes of {self.count} TPU chips, expected {chips} chips in all, the "
                    f"whole slice of accelerator_topology {self.topology}: num_nodes = chips / chips of a host"
                )

    @property
    def resources(self) -> dict[str, str]:
        """How many of which resource the container asks for."""
        return {KINDS[self.kind].resource: str(self.count)} if self.kind in KINDS else {}

    @property
    def node_selector(self) -> dict[str, str]:
        """The labels of the nodes that the pod may run on."""
        labels = {SPOT: "true"} if self.spot else {}
        if self.type:
            labels[KINDS[self.kind].type_label] = self.type
        if self.topology:
            labels[str(KINDS[self.kind].topology_label)] = self.topology
        return labels

    @property
    def tolerations(self) -> list[dict[str, str]]:
        """The taints of nodes that the pod may run on all the same."""
        tolerated = [{"key": name, "operator": "Exists", "effect": "NoSchedule"} for name in self.resources]
        if self.spot:
            tolerated.append({"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"})
        return tolerated

    @property
    def shared_memory(self) -> dict[str, Any] | None:
        """The volume for /dev/shm, without its name, where one is needed; it counts against the memory limit."""
        return {"emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}} if self.kind == "gpu" else None

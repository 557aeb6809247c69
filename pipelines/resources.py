"""What each step asks of a cluster: processors, memory, accelerators, and for how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kfp import dsl, kubernetes

from components.common.accelerators import RESOURCES, SHARED_MEMORY, SPOT
from pipelines.environment import in_namespace

TAINTS = (*RESOURCES.values(), SPOT)
"""Keys of the taints that keep other pods off nodes with accelerators, and off spot nodes of Google Cloud."""

HOUR = 3600
DAY = 24 * HOUR
WEEK = 7 * DAY


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Processors and memory in Kubernetes' notation, and how long a pod may run.

    Request and limit are alike, so that a step is never evicted for memory that it was promised. The time is there for
    a step that hangs, which would keep its accelerators for ever: many times what the slowest run takes. Kubernetes
    counts it from the pod's start, so that waiting for a node is free. Kubeflow Pipelines takes it as a constant alone.
    """

    cpu: str
    memory: str
    timeout_seconds: int


LIGHT = Resources(cpu="500m", memory="1Gi", timeout_seconds=HOUR)
"""Reads and writes a few objects."""

MEDIUM = Resources(cpu="1", memory="4Gi", timeout_seconds=6 * HOUR)
"""Holds pictures, a text encoder, or a weight file at a time."""


def request(task: dsl.PipelineTask, resources: Resources) -> dsl.PipelineTask:
    """The task with its processors, memory and time, and with what its pod finds in the namespace."""
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    return _for_so_long(task, resources.timeout_seconds)


def request_pod(
    task: dsl.PipelineTask, told: Mapping[str, Any], name: str, *, timeout_seconds: int
) -> dsl.PipelineTask:
    """The task with what preflight has found that its pod needs: processors, memory, accelerators and their nodes.

    Args:
        task: the task.
        told: preflight's outputs.
        name: what the outputs for this pod begin with, such as `training`.
        timeout_seconds: how long it may run.
    """
    cpu, memory = told[f"{name}_cpu"], told[f"{name}_memory"]
    task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(memory).set_memory_limit(memory)
    task.set_accelerator_type(told[f"{name}_accelerator"]).set_accelerator_limit(told[f"{name}_accelerator_count"])
    kubernetes.add_node_selector_json(task, told[f"{name}_node_selector"])
    for taint in TAINTS:
        kubernetes.add_toleration(task, key=taint, operator="Exists")
    kubernetes.add_toleration_json(task, told["tolerations"])
    return _for_so_long(task, timeout_seconds)


def share_memory(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """The task with a /dev/shm through which the processes of its GPUs can talk; it counts against its memory."""
    return kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=SHARED_MEMORY
    )


def _for_so_long(task: dsl.PipelineTask, timeout_seconds: int) -> dsl.PipelineTask:
    in_namespace(task)
    kubernetes.set_timeout(task, timeout_seconds)
    # A pod that was refused or deleted is tried again after 30 s and 1 min. A step that ends with an error is not, as
    # Kubeflow Pipelines configures Argo: manifests/README.md says what an administrator sets to have that, too.
    # Argo counts the longest duration from the start of the first attempt, and ends later ones by it.
    return task.set_retry(2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="365d")

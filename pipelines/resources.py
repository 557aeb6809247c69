"""What each step asks of a cluster: processors, memory, accelerators, and how often it is tried."""

from __future__ import annotations

import dataclasses
from typing import Any

from kfp import dsl, kubernetes

from components.common.accelerators import RESOURCES, SHARED_MEMORY, SPOT
from components.train.nodes.config import MODEL_CPU, MODEL_MEMORY
from pipelines.environment import in_namespace

TAINTS = (*RESOURCES.values(), SPOT)
"""Keys of the taints that keep other pods off nodes with accelerators, and off spot nodes of Google Cloud."""

HOUR = 3600
DAY = 24 * HOUR

Channel = Any
"""A pipeline's parameter, or a task's output, or a constant."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Processors and memory in Kubernetes' notation, or a parameter that holds them, and how long a pod may run.

    Request and limit are alike, so that a step is never evicted for memory that it was promised. The time is there for
    a step that hangs, which would keep its accelerators for ever: many times what the slowest run takes. Kubernetes
    counts it from the pod's start, so that waiting for a node is free. Kubeflow Pipelines takes it as a constant alone.
    """

    cpu: Channel
    memory: Channel
    timeout_seconds: int


LIGHT = Resources(cpu="500m", memory="1Gi", timeout_seconds=HOUR)
"""Reads and writes a few objects."""

WATCHING = Resources(cpu="500m", memory="1Gi", timeout_seconds=30 * DAY)
"""Waits for a TrainJob, which may be in a queue, and which has a deadline of its own while it runs."""

MEDIUM = Resources(cpu="1", memory="4Gi", timeout_seconds=6 * HOUR)
"""Holds pictures, a text encoder, or a weight file at a time."""

MODEL = Resources(cpu=MODEL_CPU, memory=MODEL_MEMORY, timeout_seconds=DAY)
"""Holds a model of Stable Diffusion's size."""


def training(cpu: Channel, memory: Channel) -> Resources:
    """What a pod takes that trains: on each of its GPUs a process that holds a model while it is loaded."""
    return Resources(cpu=cpu, memory=memory, timeout_seconds=7 * DAY)


def request(task: dsl.PipelineTask, resources: Resources) -> dsl.PipelineTask:
    """The task with its processors, memory and time, and with what its pod finds in the namespace."""
    in_namespace(task)
    kubernetes.set_timeout(task, resources.timeout_seconds)
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    return task.set_memory_request(resources.memory).set_memory_limit(resources.memory)


def request_accelerators(
    task: dsl.PipelineTask, *, resource: Channel, count: Channel, node_selector: Channel, tolerations: Channel
) -> dsl.PipelineTask:
    """The task with accelerators on suitable nodes, all of it told when a run is started.

    Args:
        task: the task.
        resource: the Kubernetes resource, such as `nvidia.com/gpu`.
        count: how many, as text: a count that is an integer parameter is dropped when a pipeline is compiled.
        node_selector: the nodes' labels, an object.
        tolerations: what is tolerated beside `TAINTS`, a list of Kubernetes tolerations.
    """
    task.register_pipeline_channels([resource, count])  # else another task's output is not found within a branch
    task.set_accelerator_type(resource).set_accelerator_limit(count)
    kubernetes.add_node_selector_json(task, node_selector)
    for taint in TAINTS:
        kubernetes.add_toleration(task, key=taint, operator="Exists")
    return kubernetes.add_toleration_json(task, tolerations)


def share_memory(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """The task with a /dev/shm through which the processes of its GPUs can talk; it counts against its memory."""
    return kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=SHARED_MEMORY
    )


def retry(task: dsl.PipelineTask, *, times: int = 2) -> dsl.PipelineTask:
    """The task, tried again after 30 s, 1 min, ...: for pods that fail or run out of time, networks that stutter.

    Every step may be tried again: it resumes, or overwrites what is its own.
    """
    # Argo counts the longest duration from the start of the first attempt, and ends later ones by it: whatever fails
    # after that is not tried again. So it is longer than any step takes.
    return task.set_retry(times, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="365d")

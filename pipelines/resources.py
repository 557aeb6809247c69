"""What each step asks of a cluster: processors, memory, accelerators, and how often it is tried."""

from __future__ import annotations

import dataclasses
from typing import Any

from kfp import dsl, kubernetes

from components.common.accelerators import RESOURCES, SPOT
from components.launch_trainjob.config import MODEL_CPU, MODEL_MEMORY
from pipelines.environment import in_namespace

TAINTS = (*RESOURCES.values(), SPOT)
"""Keys of the taints that keep other pods off nodes with accelerators, and off spot nodes of Google Cloud."""

Channel = Any
"""A pipeline's parameter, or a task's output."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Processors and memory in Kubernetes' notation.

    Request and limit are alike, so that a step is never evicted for memory that it was promised.
    """

    cpu: str
    memory: str


LIGHT = Resources(cpu="500m", memory="1Gi")
"""Reads and writes a few objects."""

MEDIUM = Resources(cpu="1", memory="4Gi")
"""Holds pictures, a text encoder, or a weight file at a time."""

MODEL = Resources(cpu=MODEL_CPU, memory=MODEL_MEMORY)
"""Holds a model of Stable Diffusion's size."""


def request(task: dsl.PipelineTask, resources: Resources) -> dsl.PipelineTask:
    """The task with its processors and memory, and with what its pod finds in the namespace."""
    in_namespace(task)
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


def retry(task: dsl.PipelineTask, *, times: int = 2) -> dsl.PipelineTask:
    """The task, tried again after 30 s, 1 min, 2 min, ...: for lost pods and networks that stutter.

    Every step may be tried again: it resumes, or overwrites what is its own.
    """
    return task.set_retry(times, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")

"""What a TrainJob and its pods say of themselves, as sentences for the step's log and for its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubernetes import client

from components.train.nodes.trainjob import NODE

ENDS = ("Complete", "Failed")
_INDEX = "batch.kubernetes.io/job-completion-index"


def ended(job: dict[str, Any]) -> dict[str, Any] | None:
    """The condition `Complete` or `Failed` of a TrainJob, as Kubernetes gives it; None while it is neither."""
    return next((each for each in _true_conditions(job) if each["type"] in ENDS), None)


def job_state(job: dict[str, Any]) -> str:
    """What a TrainJob does: `waits (Suspended: ...)`, `has all of its 2 nodes ready`, `is Complete (...)`."""
    end = ended(job)
    if end is not None:
        return f"is {end['type']} ({_because(end.get('reason'), end.get('message'))})"
    for condition in _true_conditions(job):
        return f"waits ({_because(condition.get('reason'), condition.get('message'))})"
    ready = any(each["name"] == NODE and each.get("ready") for each in job.get("status", {}).get("jobsStatus", []))
    return f"has {'all' if ready else 'not all'} of its {job['spec']['trainer']['numNodes']} nodes ready"


def _true_conditions(job: dict[str, Any]) -> list[dict[str, Any]]:
    conditions: list[dict[str, Any]] = job.get("status", {}).get("conditions", [])
    return [each for each in conditions if each["status"] == "True"]


def node_name(pod: client.V1Pod) -> str:
    """How a pod is called in the log: `node-0` for the pod of rank 0."""
    return f"{NODE}-{(pod.metadata.annotations or {}).get(_INDEX, pod.metadata.name)}"


def has_started(pod: client.V1Pod) -> bool:
    """Whether the trainer runs or ran in a pod, so that there is a log."""
    state = _trainer_state(pod)
    return state is not None and (state.running is not None or state.terminated is not None)


def has_ended(pod: client.V1Pod) -> bool:
    """Whether nothing more will come from a pod's trainer."""
    state = _trainer_state(pod)
    return pod.status.phase in ("Succeeded", "Failed") or (state is not None and state.terminated is not None)


def has_failed(pod: client.V1Pod) -> bool:
    """Whether a pod's trainer ended with an error, or the pod was taken away."""
    state = _trainer_state(pod)
    exited = state.terminated if state is not None else None
    return pod.status.phase == "Failed" or (exited is not None and exited.exit_code != 0)


def pod_state(pod: client.V1Pod) -> str:
    """What a pod does: `runs on gke-node-7`, `ended with exit code 137 (OOMKilled)`, `waits (Unschedulable: ...)`."""
    state = _trainer_state(pod)
    taken = _because(pod.status.reason, pod.status.message)  # such as Evicted, Preempting, NodeLost
    if state is not None and state.terminated is not None:
        because = _because(state.terminated.reason, state.terminated.message)
        code = f"ended with exit code {state.terminated.exit_code}"
        return f"{code} ({'; '.join(part for part in (because, taken) if part) or 'no reason given'})"
    if pod.status.phase == "Failed":
        return f"failed ({taken or 'no reason given'})"
    if state is not None and state.running is not None:
        return f"runs on {pod.spec.node_name}"
    if state is not None and state.waiting is not None and state.waiting.reason:
        return f"waits ({_because(state.waiting.reason, state.waiting.message)})"
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"waits ({_because(condition.reason, condition.message)})"
    return "waits"


def first_failed(pods: Sequence[client.V1Pod]) -> client.V1Pod | None:
    """The pod that failed before the others, which mostly fail because of it; None when none did."""

    def when(pod: client.V1Pod) -> float:
        state = _trainer_state(pod)
        finished = state.terminated.finished_at if state is not None and state.terminated is not None else None
        return finished.timestamp() if finished else float("inf")

    return min((pod for pod in pods if has_failed(pod)), key=when, default=None)


def telling_line(lines: Sequence[str]) -> str:
    """The line of a log's end that says what went wrong: the last error of ours, else the last line there is."""
    written = [line.strip() for line in lines if line.strip()]
    errors = [line for line in written if " ERROR " in line]
    return (errors or written or [""])[-1]


def _trainer_state(pod: client.V1Pod) -> client.V1ContainerState | None:
    statuses = pod.status.container_statuses or ()
    return next((status.state for status in statuses if status.name == NODE), None)


def _because(reason: str | None, message: str | None) -> str:
    return ": ".join(" ".join(part.split()) for part in (reason, message) if part)

"""The steps of a run, as its Argo workflow tells them: the API's own task details have no reasons and no pods.

The workflow is in the API's older run object (v1beta1, `pipeline_runtime.workflow_manifest`), which version 2 still
serves. Node names are paths: `<workflow>.root.<task>.executor` is the node of a task's own pod.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import gzip
import io
import re
from collections.abc import Mapping
from typing import Any

from components.common.errors import ClusterError
from components.common.foreign_json import parse_json
from components.common.printable import masked

SKIPPED, OMITTED = "Skipped", "Omitted"
"""Argo's phases of what does not run: by a condition of its own, or for what it depends on."""

_LARGEST_WORKFLOW = 64 * 2**20
_EXECUTOR = re.compile(r".+?\.root\.(?P<task>[^.()]+)\.executor(?:\((?P<attempt>\d+)\))?")
_DRIVER = re.compile(r".+?\.root\.(?P<task>[^.()]+)-driver(?:\((?P<attempt>\d+)\))?")
_LEFT_OUT = re.compile(r".+?\.root\.(?P<task>[^.()]+?)(?:-driver)?")
_REASON = re.compile(r"(?:main: )?(?:Error \(exit code \d+\)(?:: )?)?(?P<told>.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a run.

    Attributes:
        task: the task's name in the pipeline.
        state: Argo's phase: Pending, Running, Succeeded, Failed, Error, or of a step that was left out, SKIPPED or
            OMITTED.
        reason: what Kubernetes says of its end; for a failed step the step's own last line.
        pod: the name of its own pod, whose log is the step's; empty before there is one.
        started: when it began.
        finished: when it ended.
    """

    task: str
    state: str
    reason: str = ""
    pod: str = ""
    started: datetime.datetime | None = None
    finished: datetime.datetime | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it ended in an error."""
        return self.state in ("Failed", "Error")

    @property
    def is_left_out(self) -> bool:
        """Whether it does not run."""
        return self.state in (SKIPPED, OMITTED)

    @property
    def seconds(self) -> float | None:
        """How long it took; None of one that has not ended."""
        return (self.finished - self.started).total_seconds() if self.started and self.finished else None


def steps_of(run: bytes) -> list[Step]:
    """The steps that have begun, or were left out, in the order in which they did.

    A step that is answered from the cache has a driver alone. A driver that fails, say for an image that is not there,
    is the step's own failure.

    Args:
        run: the body of the API's run object, version v1beta1.

    Raises:
        ClusterError: when it holds no workflow that can be read.
    """
    workflow = _workflow(run)
    latest: dict[tuple[str, str], tuple[int, Step]] = {}
    left_out: dict[str, Step] = {}
    for node in _nodes(workflow).values():
        if not isinstance(node, dict):
            continue
        if match := _LEFT_OUT.fullmatch(str(node.get("name", ""))):
            step = _step(match["task"], node, str(workflow["metadata"]["name"]))
            if step.is_left_out:
                left_out[step.task] = dataclasses.replace(step, reason="", pod="", finished=None)
        if node.get("type") != "Pod":
            continue
        for kind, pattern in (("executor", _EXECUTOR), ("driver", _DRIVER)):
            if match := pattern.fullmatch(str(node.get("name", ""))):
                attempt = int(match["attempt"] or 0)
                key = (match["task"], kind)
                if key not in latest or attempt >= latest[key][0]:
                    latest[key] = (attempt, _step(match["task"], node, str(workflow["metadata"]["name"])))
    steps = []
    for task in dict.fromkeys([*(task for task, _ in latest), *left_out]):
        own, driver = (latest.get((task, kind), (0, None))[1] for kind in ("executor", "driver"))
        if own is None and driver is not None and driver.has_failed:
            own = driver
        own = own or left_out.get(task)
        if own is None and driver is not None:
            own = dataclasses.replace(driver, pod="")
        if own is not None:
            steps.append(own)
    earliest = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return sorted(steps, key=lambda step: (step.started or earliest, step.task))


def _workflow(run: bytes) -> dict[str, Any]:
    try:
        manifest = parse_json(run)["pipeline_runtime"]["workflow_manifest"]
        workflow = parse_json(manifest)
        workflow["metadata"]["name"], workflow["status"]  # what is read of it
    except (KeyError, TypeError, ValueError) as error:
        raise ClusterError(
            "the API's run object holds no workflow yet, or none that can be read; the UI has the steps' states"
        ) from error
    assert isinstance(workflow, dict)
    return workflow


def _nodes(workflow: Mapping[str, Any]) -> Mapping[str, Any]:
    """The nodes by id; Argo keeps those of a large workflow as gzip in base64."""
    status = workflow["status"]
    if not isinstance(status, dict):
        return {}
    nodes = status.get("nodes")
    if not nodes and (packed := status.get("compressedNodes")):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(base64.b64decode(str(packed), validate=True))) as stream:
                data = stream.read(_LARGEST_WORKFLOW + 1)
            nodes = parse_json(data) if len(data) <= _LARGEST_WORKFLOW else None
        except (ValueError, OSError, EOFError) as error:
            raise ClusterError(f"the run's workflow cannot be unpacked ({error}); its steps are in the UI") from error
    return nodes if isinstance(nodes, dict) else {}


def _step(task: str, node: Mapping[str, Any], workflow: str) -> Step:
    told = _REASON.fullmatch(str(node.get("message") or ""))
    return Step(
        task=task,
        state=str(node.get("phase") or "Pending"),
        reason=masked(" ".join((told["told"] if told else "").split())),
        pod=_pod_name(node, workflow),
        started=_time(node.get("startedAt")),
        finished=_time(node.get("finishedAt")),
    )


def _pod_name(node: Mapping[str, Any], workflow: str) -> str:
    """Argo names a pod by workflow, template and the hash that ends the node's id (its pod-name format v2)."""
    return f"{workflow}-{node.get('templateName')}-{str(node.get('id', '')).rpartition('-')[2]}"


def _time(text: object) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None

"""Runs as they go: their states, each step's, a failed step's own reason and log, and the end."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import kfp_server_api

from components.common.errors import ClusterError, ConfigError
from components.common.logs import human_duration
from components.common.printable import printable
from components.preflight.retraining import NOTHING_TO_DO
from pipelines.cluster.connection import Connection
from pipelines.cluster.workflow import SKIPPED, Step, steps_of

FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_QUIET_SECONDS = 60.0
_RUN_ID = "0123456789abcdef-"
_ID_LENGTH = 36


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """A run at one moment.

    Attributes:
        run: what the API says of it.
        steps: those that have begun, in that order; empty where the API has no workflow yet.
        problem: why there are no steps; empty where there are.
    """

    run: kfp_server_api.V2beta1Run
    steps: tuple[Step, ...]
    problem: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether nothing of it runs on."""
        return self.run.state in FINISHED

    @property
    def failed(self) -> tuple[Step, ...]:
        """The steps that failed."""
        return tuple(step for step in self.steps if step.has_failed)


def find_run(connection: Connection, wanted: str) -> kfp_server_api.V2beta1Run:
    """The run of that id, or the latest of that name, which may lack the time that `submit` adds to a concept's.

    Raises:
        ConfigError: when there is none.
        ClusterError: when the API refuses.
    """
    if len(wanted) == _ID_LENGTH and not set(wanted) - set(_RUN_ID):
        return connection.ask(f"looking for the run {wanted}", connection.client.runs.run_service_get_run, wanted)
    found = next((run for run in runs(connection) if f"{run.display_name} ".startswith(f"{wanted} ")), None)
    if found is None:
        raise ConfigError(f"found no run {wanted!r}, expected the id or the name of one: `status` lists them")
    return found


def runs(connection: Connection) -> Iterable[kfp_server_api.V2beta1Run]:
    """All runs, the latest first."""
    return connection.pages(
        "listing runs",
        connection.client.runs.run_service_list_runs,
        "runs",
        sort_by="created_at desc",
        **({"namespace": connection.namespace} if connection.namespace else {}),
    )


def state_of(connection: Connection, run_id: str) -> RunState:
    """The run and its steps now.

    Raises:
        ClusterError: when the API refuses to say how the run is; what it does not say of the steps is a `problem`.
    """
    run = connection.ask(f"looking at the run {run_id}", connection.client.runs.run_service_get_run, run_id)
    try:
        body = connection.read(f"reading the steps of {run_id}", "/apis/v1beta1/runs/{run_id}", run_id=run_id)
        return RunState(run=run, steps=tuple(steps_of(body)))
    except ClusterError as error:
        return RunState(run=run, steps=(), problem=str(error))


def log_of(connection: Connection, run_id: str, step: Step) -> str:
    """The log of a step's pod, from the cluster or, once the pod is gone, from the archive.

    Raises:
        ClusterError: when there is none.
    """
    if not step.pod:
        why = "it was left out" if step.is_left_out else "its outputs were taken from the cache"
        raise ClusterError(f"{step.task} has no log of its own: {why}")
    body = connection.read(
        f"reading the log of {step.task}",
        "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log",
        run_id=run_id,
        node_id=step.pod,
    )
    return body.decode("utf-8", errors="replace")


def watch(
    connection: Connection, run_id: str, *, titles: Mapping[str, str], say: Callable[[str], Any], every_seconds: float
) -> RunState:
    """The run at its end; each step's beginning and end is told when it is seen, and what runs once a minute else.

    Args:
        connection: the API.
        run_id: the run.
        titles: what a person reads for a task, by its name.
        say: shows a line.
        every_seconds: how long to wait between two looks.

    Raises:
        ClusterError: when the API refuses, or does not answer any more.
    """
    told: dict[str, str] = {}
    quiet_seconds = 0.0
    while True:
        state = state_of(connection, run_id)
        lines = [step_line(step, titles) for step in state.steps if told.get(step.task) != step.state]
        told = {step.task: step.state for step in state.steps}
        if not lines and quiet_seconds >= _QUIET_SECONDS and not state.is_finished:
            lines = _what_runs(state, titles)
        quiet_seconds = every_seconds if lines else quiet_seconds + every_seconds
        for line in lines:
            say(f"{datetime.datetime.now():%H:%M:%S}  {line}")
        if state.is_finished:
            return state
        time.sleep(every_seconds)


def _what_runs(state: RunState, titles: Mapping[str, str]) -> list[str]:
    """The steps that run or wait for their pods, a line each; where none does, how the run is."""
    now = datetime.datetime.now(datetime.UTC)
    lines = [step_line(step, titles, now) for step in state.steps if step.state in ("Pending", "Running")]
    return lines or [printable(f"{(state.run.state or 'PENDING').lower()}: {state.problem or 'no step runs'}")]


def step_line(step: Step, titles: Mapping[str, str], now: datetime.datetime | None = None) -> str:
    """A step in one line: what it is, how it is, how long it took or has taken until now, and why it failed."""
    took = f"  {human_duration(step.seconds)}" if step.seconds is not None else ""
    if now and step.started and not step.finished and not step.is_left_out:
        took = f"  for {human_duration((now - step.started).total_seconds())} so far"
    cached = "  from the cache" if step.state == "Succeeded" and not step.pod else ""
    reason = f"  {step.reason}" if step.has_failed and step.reason else ""
    return printable(f"{titles.get(step.task, step.task):22} {step.state.lower():10}{took}{cached}{reason}".rstrip())


def reasons(connection: Connection, state: RunState, titles: Mapping[str, str]) -> list[str]:
    """Why a run failed, a line a step: the step's own last line, from the workflow or else from its log.

    Of a run whose steps were skipped it is what the first step, which decided so, says in its log.
    """
    if any(step.state == SKIPPED for step in state.steps):
        return _decisions(connection, state)
    told = ((step, step.reason or _last_line(connection, state.run.run_id, step)) for step in state.failed)
    return [f"{titles.get(step.task, step.task)}: {reason}" for step, reason in told]


def _decisions(connection: Connection, state: RunState) -> list[str]:
    first = next(step for step in state.steps if not step.is_left_out)
    try:
        lines = log_of(connection, state.run.run_id, first).splitlines()
    except ClusterError as error:
        return [f"why it had nothing to do is not known: {error}"]
    return [NOTHING_TO_DO + told for _, found, told in (line.partition(NOTHING_TO_DO) for line in lines) if found]


def _last_line(connection: Connection, run_id: str, step: Step) -> str:
    """What a step's log ends with; why that is not known, where it cannot be read."""
    try:
        lines = [line.strip() for line in log_of(connection, run_id, step).splitlines() if line.strip()]
    except ClusterError as error:
        return f"it left no reason, and no log: {error}"
    return lines[-1] if lines else "it left no reason, and its log is empty"


def cancel(connection: Connection, run_id: str) -> None:
    """Asks the cluster to stop a run; its trainer keeps the last step that it completed.

    Raises:
        ClusterError: when the API refuses.
    """
    connection.ask(f"canceling the run {run_id}", connection.client.runs.run_service_terminate_run, run_id)

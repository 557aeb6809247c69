"""A fleet's schedules on a cluster made to match its file, as `kubectl apply` does with objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import kfp_server_api

from components.common.errors import ClusterError
from pipelines.cluster.connection import Connection
from pipelines.cluster.schedules import Made, fingerprint, schedule, scheduled, trigger_of, unschedule
from pipelines.cluster.submitting import Request
from pipelines.cluster.uploading import UploadedVersion
from pipelines.concepts_file import Fleet, FleetConcept
from pipelines.form import from_form
from pipelines.triggers import Trigger

CREATE, REPLACE, KEEP, PRUNE, SURPLUS = "create", "replace", "keep", "prune", "not in the file"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be done with one schedule.

    Attributes:
        action: one of the names above; `SURPLUS` is left as it is.
        name: of the concept and its schedule.
        differences: what differs, a line each.
        request: what its runs are to be; None of one that goes.
        trigger: when it is to run; None of one that goes.
    """

    action: str
    name: str
    differences: tuple[str, ...] = ()
    request: Request | None = None
    trigger: Trigger | None = None


def plan(
    connection: Connection, version: UploadedVersion, fleet: Fleet, requests: Mapping[str, Request], *, prune: bool
) -> list[Change]:
    """What makes the cluster's schedules be those of the file; a concept without a schedule is to have none.

    Args:
        connection: the API.
        version: of the pipeline, that all are to run.
        fleet: from the file.
        requests: what each concept's runs are, by its name.
        prune: whether schedules of this fleet that the file does not have are to go.

    Raises:
        ClusterError: when the API refuses.
    """
    there = scheduled(connection)
    changes = []
    for concept in fleet.concepts:
        own = [each for each in there if each.display_name == concept.name]
        if concept.trigger is not None:
            changes.append(_change(version, fleet, concept, concept.trigger, requests[concept.name], own))
    wanted = {concept.name for concept in fleet.concepts if concept.trigger is not None}
    surplus = {each.display_name for each in there if Made.of(each).fleet == fleet.name} - wanted
    return changes + [Change(action=PRUNE if prune else SURPLUS, name=name) for name in sorted(surplus)]


def apply(connection: Connection, version: UploadedVersion, fleet: Fleet, changes: list[Change]) -> Iterator[Change]:
    """Each change once it is made. What is right stays as it is; one that fails keeps no other from being made.

    Raises:
        ClusterError: at the end, naming every schedule that the API refused.
    """
    problems = []
    for change in changes:
        try:
            if change.request and change.trigger and change.action != KEEP:
                schedule(connection, version, change.request, change.name, change.trigger, fleet.name)
            elif change.action == PRUNE:
                for each in scheduled(connection, change.name):
                    if Made.of(each).fleet == fleet.name:
                        unschedule(connection, each)
        except ClusterError as error:
            problems += [f"{change.name}: {mistake}" for mistake in error.mistakes]
        else:
            yield change
    if problems:
        raise ClusterError(*problems)


def _change(
    version: UploadedVersion,
    fleet: Fleet,
    concept: FleetConcept,
    trigger: Trigger,
    request: Request,
    own: list[kfp_server_api.V2beta1RecurringRun],
) -> Change:
    latest = max(own, key=Made.of, default=None)
    differences: tuple[str, ...] = ()
    if latest is None:
        action = CREATE
    elif (
        Made.of(latest).settings == fingerprint(version, request, trigger, fleet.name)
        and latest.status == kfp_server_api.V2beta1RecurringRunStatus.ENABLED
        and len(own) == 1
    ):
        action = KEEP
    else:
        action, differences = REPLACE, tuple(_differences(latest, version, trigger, request))
    return Change(action=action, name=concept.name, differences=differences, request=request, trigger=trigger)


def _differences(
    there: kfp_server_api.V2beta1RecurringRun, version: UploadedVersion, trigger: Trigger, request: Request
) -> Iterator[str]:
    """What a person would call different, of what the API shows."""
    reference = there.pipeline_version_reference
    if reference is None or reference.pipeline_version_id != version.version_id:
        yield f"pipeline: another version -> {version.name}"
    found = trigger_of(there)
    if found != trigger:
        yield f"schedule: {found.for_people() if found else 'none'} -> {trigger.for_people()}"
    before = from_form((there.runtime_config and there.runtime_config.parameters) or {})
    after = from_form(request.parameters)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name}: {_shown(before.get(name))} -> {_shown(after.get(name))}"
    if there.status != kfp_server_api.V2beta1RecurringRunStatus.ENABLED:
        yield "it is turned off -> on"


def _shown(value: Any) -> str:
    return "(default)" if value is None else json.dumps(value, ensure_ascii=False)

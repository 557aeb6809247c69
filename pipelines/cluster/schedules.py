"""Recurring runs: one of a name, replaced where it differs, never doubled, whoever is interrupted or comes at once."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import kfp_server_api

from components.common.artifact_folder import canonical_json
from components.common.errors import ClusterError
from pipelines.cluster.connection import Connection, filter_by_name, status_of
from pipelines.cluster.submitting import Request, experiment_id, reference, runtime
from pipelines.cluster.uploading import UploadedVersion
from pipelines.triggers import Trigger

_NOT_FOUND = 404
_ATTEMPTS = 10
_DESCRIPTION = re.compile(r"Made by textual-inversion(?: for the fleet (\S+))? at (\S{32}), settings ([0-9a-f]{16})")


def schedule(
    connection: Connection, version: UploadedVersion, request: Request, name: str, trigger: Trigger, fleet: str = ""
) -> tuple[str, bool]:
    """The id of the recurring run of that name, and whether it was made now; it is what is asked for, and the only one.

    One of the same settings stays as it is. Another is replaced: the new one is made first, turned off, and turned on
    once the others are deleted. So whoever is interrupted leaves no two that run, and by the same command again one.
    Of two at once both keep the same: the first of the settings that came last. Where each deletes what the other
    keeps, whoever finds nothing to turn on begins again.

    Args:
        connection: the API.
        version: of the pipeline.
        request: what each run is.
        name: of the recurring run.
        trigger: when it runs.
        fleet: the fleet that it belongs to, which may prune it; empty: none.

    Raises:
        ClusterError: when the API refuses, or somebody else schedules it with other settings at the same time.
    """
    experiment = experiment_id(connection, request.experiment)
    settings = fingerprint(version, request, trigger, fleet)
    made = set()
    for attempt in range(_ATTEMPTS):
        there = scheduled(connection, name)
        if not there or (attempt == 0 and Made.of(max(there, key=Made.of)).settings != settings):
            body = kfp_server_api.V2beta1RecurringRun(
                display_name=name,
                description=Made.after(there, settings, fleet).told(),
                experiment_id=experiment,
                pipeline_version_reference=reference(version),
                runtime_config=runtime(request),
                service_account=request.service_account or None,
                trigger=_trigger(trigger, name),
                max_concurrency="1",
                no_catchup=True,
                mode=kfp_server_api.RecurringRunMode.DISABLE,
            )
            create = connection.client.recurring_runs.recurring_run_service_create_recurring_run
            made.add(connection.ask(f"creating the recurring run {name}", create, recurring_run=body).recurring_run_id)
            there = scheduled(connection, name)
        if kept := _only_one(connection, there):
            if Made.of(kept).settings != settings:
                raise ClusterError(
                    f"the recurring run {name} was scheduled with other settings at the same time, and those are kept; "
                    "give the same command again to replace them"
                )
            return str(kept.recurring_run_id), kept.recurring_run_id in made
    raise ClusterError(
        f"the recurring run {name} was deleted by others {_ATTEMPTS} times while this command made it: look for what "
        "deletes it, then give the same command again"
    )


def _only_one(
    connection: Connection, there: Sequence[kfp_server_api.V2beta1RecurringRun]
) -> kfp_server_api.V2beta1RecurringRun | None:
    """The one of these that is kept, turned on once the others are deleted; None where somebody else deleted it."""
    if not there:
        return None
    wanted = Made.of(max(there, key=Made.of)).settings
    kept = min((each for each in there if Made.of(each).settings == wanted), key=Made.of)
    for other in there:
        if other.recurring_run_id != kept.recurring_run_id:
            unschedule(connection, other)
    enable = connection.client.recurring_runs.recurring_run_service_enable_recurring_run
    return kept if _is_there(connection, "turning on", enable, kept) else None


def scheduled(connection: Connection, name: str = "") -> list[kfp_server_api.V2beta1RecurringRun]:
    """The recurring runs of that name; without a name, all."""
    return list(
        connection.pages(
            "listing recurring runs",
            connection.client.recurring_runs.recurring_run_service_list_recurring_runs,
            "recurring_runs",
            **({"filter": filter_by_name(name)} if name else {}),
            **({"namespace": connection.namespace} if connection.namespace else {}),
        )
    )


def unschedule(connection: Connection, recurring_run: kfp_server_api.V2beta1RecurringRun) -> None:
    """Deletes a recurring run; one that is gone already is no error.

    Raises:
        ClusterError: when the API refuses.
    """
    delete = connection.client.recurring_runs.recurring_run_service_delete_recurring_run
    _is_there(connection, "deleting", delete, recurring_run)


def _is_there(
    connection: Connection, doing: str, call: Callable[..., Any], recurring_run: kfp_server_api.V2beta1RecurringRun
) -> bool:
    """Whether a recurring run was there for the API to do this with it."""
    try:
        connection.ask(f"{doing} the recurring run {recurring_run.display_name}", call, recurring_run.recurring_run_id)
    except ClusterError as error:
        if status_of(error) != _NOT_FOUND:
            raise
        return False
    return True


@dataclasses.dataclass(frozen=True, order=True)
class Made:
    """What stands in the description of a recurring run that was made here.

    Attributes:
        at: when it was made, ISO 8601 in UTC, later than all of its name that were there.
        recurring_run_id: of the recurring run; empty of one that is yet to be made.
        settings: a fingerprint of all that it is.
        fleet: the fleet that it belongs to; empty: none.
    """

    at: str
    recurring_run_id: str
    settings: str
    fleet: str

    @classmethod
    def of(cls, recurring_run: kfp_server_api.V2beta1RecurringRun) -> Made:
        """What its description says; nothing of one that was made elsewhere, and so before all others."""
        match = _DESCRIPTION.fullmatch(recurring_run.description or "")
        fleet, at, settings = match.groups("") if match else ("", "", "")
        return cls(at, str(recurring_run.recurring_run_id), settings, fleet)

    @classmethod
    def after(cls, there: Sequence[kfp_server_api.V2beta1RecurringRun], settings: str, fleet: str) -> Made:
        """What is made now, whatever the clocks of those say who made the others."""
        now = datetime.datetime.now(datetime.UTC)
        if latest := max((cls.of(each).at for each in there), default=""):
            now = max(now, datetime.datetime.fromisoformat(latest) + datetime.timedelta(microseconds=1))
        return cls(now.isoformat(timespec="microseconds"), "", settings, fleet)

    def told(self) -> str:
        """The description."""
        fleet = f" for the fleet {self.fleet}" if self.fleet else ""
        return f"Made by textual-inversion{fleet} at {self.at}, settings {self.settings}"


def fingerprint(version: UploadedVersion, request: Request, trigger: Trigger, fleet: str) -> str:
    """Sixteen digits that stand for all that a recurring run is."""
    told = {"version": version.version_id, "fleet": fleet, **dataclasses.asdict(request)}
    return hashlib.sha256(canonical_json({**told, **dataclasses.asdict(trigger)})).hexdigest()[:16]


def trigger_of(recurring_run: kfp_server_api.V2beta1RecurringRun) -> Trigger | None:
    """When a recurring run runs; None where it has no trigger."""
    found = recurring_run.trigger
    if found and found.cron_schedule:
        return Trigger(cron=str(found.cron_schedule.cron))
    if found and found.periodic_schedule:
        return Trigger(interval_seconds=int(found.periodic_schedule.interval_second))
    return None


def _trigger(trigger: Trigger, name: str) -> kfp_server_api.V2beta1Trigger:
    if trigger.cron:
        return kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=trigger.cron))
    every = kfp_server_api.V2beta1PeriodicSchedule(
        start_time=trigger.start_of(name, datetime.datetime.now(datetime.UTC)),
        interval_second=str(trigger.interval_seconds),
    )
    return kfp_server_api.V2beta1Trigger(periodic_schedule=every)

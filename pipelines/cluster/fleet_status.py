"""How a fleet is: each concept's schedule and last run from the cluster, its versions and scores from the registry."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Mapping
from typing import Any

import kfp_server_api

from components.common.errors import TextualInversionError
from components.common.registry.entry import RegistryEntry
from components.common.registry.standing import Standing, moved, read_standing, scores_of
from components.common.run_storage import registry_uri
from components.common.storage.store import run_parallel
from components.preflight.options import defaults
from pipelines.cluster import schedules, watching
from pipelines.cluster.connection import Connection
from pipelines.cluster.submitting import name_of_run
from pipelines.concepts_file import Fleet, FleetConcept
from pipelines.form import from_form
from pipelines.triggers import Trigger

_LOOKED_AT = 2000
"""How many runs, the latest first, are looked at for the concepts' own."""

ClusterView = Mapping[str, tuple["Schedule", "LastRun | None"]]
"""What the cluster says of each concept, by its name in the file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """A concept's schedule.

    Attributes:
        trigger: when it runs; None: it does not.
        next_run: when it runs next, UTC; None where that is not known.
        remark: what is not as the file says; empty where nothing is.
    """

    trigger: Trigger | None = None
    next_run: datetime.datetime | None = None
    remark: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastRun:
    """A concept's latest run; `reasons` has a line for each step that failed."""

    run_id: str
    state: str
    created: datetime.datetime | None
    reasons: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConceptStatus:
    """How a concept is.

    Attributes:
        name: its name in the file.
        schedule: on the cluster; as the file says it where the cluster is not reached.
        last_run: None where there is none, or the cluster is not reached.
        standing: None where the registry is not reached.
        problem: why there is no standing; empty where there is one.
    """

    name: str
    schedule: Schedule
    last_run: LastRun | None
    standing: Standing | None
    problem: str

    @property
    def has_failed(self) -> bool:
        """Whether its last run failed."""
        return self.last_run is not None and self.last_run.state == "failed"

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        run, found, schedule = self.last_run, self.standing or NO_STANDING, self.schedule
        return {
            "schedule": schedule.trigger.for_people() if schedule.trigger else None,
            "schedule_remark": schedule.remark,
            "next_run": schedule.next_run.isoformat() if schedule.next_run else None,
            "last_run": run
            and {
                "id": run.run_id,
                "state": run.state,
                "created": run.created.isoformat() if run.created else None,
                "reasons": list(run.reasons),
            },
            "champion": _version_as_json(found.champion, found.before),
            "latest": _version_as_json(found.latest, found.champion),
            "registry_problem": self.problem,
        }


NO_STANDING = Standing(champion=None, before=None, latest=None)


def view_of_cluster(connection: Connection, fleet: Fleet, titles: Mapping[str, str]) -> ClusterView:
    """The schedule and the last run of each concept of a fleet.

    Args:
        connection: the API.
        fleet: from the file.
        titles: what a person reads for a task, by its name.

    Raises:
        ClusterError: when the API refuses.
    """
    there, runs = schedules.scheduled(connection), _last_runs(connection, fleet)
    return {
        concept.name: (
            _schedule(concept, there, run := runs.get(concept.name)),
            _told_of(connection, run, titles) if run else None,
        )
        for concept in fleet.concepts
    }


def status_of_fleet(fleet: Fleet, view: ClusterView) -> list[ConceptStatus]:
    """How each concept of a fleet is, in the order of its file.

    Args:
        fleet: from the file.
        view: of the cluster; empty where it is not reached.
    """
    standings = run_parallel(_standing, [(concept,) for concept in fleet.concepts])
    concepts = []
    for concept, (standing, problem) in zip(fleet.concepts, standings, strict=True):
        schedule, last_run = view.get(concept.name, (Schedule(trigger=concept.trigger), None))
        concepts.append(
            ConceptStatus(name=concept.name, schedule=schedule, last_run=last_run, standing=standing, problem=problem)
        )
    return concepts


def _version_as_json(entry: RegistryEntry | None, other: RegistryEntry | None) -> dict[str, Any] | None:
    """A version, its scores, and how far they are above another version's."""
    if entry is None:
        return None
    move = moved(entry, other) if other else None
    return {
        "version": entry.version,
        "created": entry.created,
        "scores": scores_of(entry),
        "compared_with": other.version if other else None,
        "moved": move.scores if move else {},
        "is_of_the_same": move.is_of_the_same if move else None,
    }


def _standing(concept: FleetConcept) -> tuple[Standing | None, str]:
    """How a concept stands in the registry, or why that is not known."""
    options = {**defaults(), **concept.options}
    if not options["storage_uri"]:
        return None, "registry: the file gives no storage_uri; that of the pods' namespace is not known here"
    name, alias = name_of_run(options), options["registry_alias"] or defaults()["registry_alias"]
    try:
        return read_standing(registry_uri(options["storage_uri"]), name, alias), ""
    except TextualInversionError as error:
        return None, f"registry: {error}"


def _last_runs(connection: Connection, fleet: Fleet) -> dict[str, kfp_server_api.V2beta1Run]:
    """The latest run of each concept that has one, by the concept's name in the file."""
    wanted = {name_of_run(concept.options): concept.name for concept in fleet.concepts}
    found: dict[str, kfp_server_api.V2beta1Run] = {}
    for run in itertools.islice(watching.runs(connection), _LOOKED_AT):
        options = from_form((run.runtime_config and run.runtime_config.parameters) or {})
        concept = wanted.get(name_of_run(options)) if options.get("placeholder_token") else None
        if concept:
            found.setdefault(concept, run)
        if len(found) == len(wanted):
            break
    return found


def _told_of(connection: Connection, run: kfp_server_api.V2beta1Run, titles: Mapping[str, str]) -> LastRun:
    """What is told of a run; of one that failed, why."""
    reasons: list[str] = []
    if run.state == "FAILED":
        state = watching.state_of(connection, run.run_id)
        reasons = watching.reasons(connection, state, titles) or [state.problem or "none of its steps says why"]
    return LastRun(
        run_id=run.run_id,
        state=(run.state or "PENDING").lower(),
        created=run.created_at,
        reasons=tuple(reasons),
    )


def _schedule(
    concept: FleetConcept,
    there: list[kfp_server_api.V2beta1RecurringRun],
    last_run: kfp_server_api.V2beta1Run | None,
) -> Schedule:
    """The schedule that the cluster has, and what of it is not as the file says."""
    own = [each for each in there if each.display_name == concept.name]
    if not own:
        return Schedule(remark="schedule: it is in the file alone; `apply` makes it" if concept.trigger else "")
    latest = max(own, key=schedules.Made.of)
    trigger = schedules.trigger_of(latest)
    if latest.status != kfp_server_api.V2beta1RecurringRunStatus.ENABLED:
        return Schedule(trigger=trigger, remark="schedule: it is turned off")
    wanted = concept.trigger.for_people() if concept.trigger else "none"
    remark = "" if trigger == concept.trigger else f"schedule: the file says {wanted}; `apply` makes it so"
    return Schedule(trigger=trigger, next_run=_next_run(trigger, latest, last_run), remark=remark)


def _next_run(
    trigger: Trigger | None,
    recurring_run: kfp_server_api.V2beta1RecurringRun,
    last_run: kfp_server_api.V2beta1Run | None,
) -> datetime.datetime | None:
    """When a schedule runs next: an interval after its own last run, or after its start."""
    if trigger is None:
        return None
    if trigger.cron:
        return trigger.next_after(datetime.datetime.now(datetime.UTC))
    last = recurring_run.trigger.periodic_schedule.start_time
    if last_run and last_run.recurring_run_id == recurring_run.recurring_run_id:
        last = last_run.scheduled_at or last
    return trigger.next_after(last or recurring_run.created_at)

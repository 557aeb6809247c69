"""What a person asks a cluster to run: options checked as preflight checks them, then one run or a schedule."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from components.common.artifact_folder import canonical_json
from components.common.errors import ClusterError, ConfigError
from components.common.prompts import concept_name
from components.common.storage.local_files import local_errors
from components.preflight.options import check_options
from pipelines.cluster.connection import Connection, filter_by_name, status_of
from pipelines.cluster.uploading import UploadedVersion
from pipelines.form import as_form
from pipelines.local_run import parameter_names

EXPERIMENT = "Textual Inversion"
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of what an interval may be given in."""
_NOT_FOUND = 404
_CRON_FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A run as it is asked for.

    Attributes:
        parameters: of the pipeline, checked.
        experiment: the experiment's name.
        service_account: that the pods run as; empty: the installation's default.
        pipeline_root: where artifacts go; empty: the installation's default.
    """

    parameters: Mapping[str, Any]
    experiment: str = EXPERIMENT
    service_account: str = ""
    pipeline_root: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trigger:
    """When a schedule runs: by a cron expression of six fields, seconds first, or every so many seconds."""

    cron: str = ""
    interval_seconds: int = 0

    def of_api(self) -> kfp_server_api.V2beta1Trigger:
        """The same as the API takes it."""
        if self.cron:
            return kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=self.cron))
        every = kfp_server_api.V2beta1PeriodicSchedule(interval_second=str(self.interval_seconds))
        return kfp_server_api.V2beta1Trigger(periodic_schedule=every)


def read_options(file: Path) -> dict[str, Any]:
    """The options of a YAML file: a mapping from the names of options, as on the form or not, to their values.

    Raises:
        ConfigError: when it is no such file.
    """
    try:
        with local_errors(str(file)):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: found no YAML ({' '.join(str(error).split())}), expected options by name"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{file}: found {type(content).__name__}, expected options by name, such as seed: 7")
    return content


def checked_parameters(options: Mapping[str, Any], pipeline: Path) -> dict[str, Any]:
    """The parameters of a run, checked by what preflight checks of options, before anything is sent.

    Raises:
        ConfigError: when one cannot be right; see `check_options`.
    """
    more = options.get("more_options")
    given = {name: value for name, value in options.items() if name != "more_options"}
    check_options(given, more)
    if more is not None and not isinstance(more, Mapping):
        raise ConfigError(f"more_options: found {more!r}, expected options by name")
    return as_form({**given, **(more or {})}, parameter_names(pipeline))


def name_of_run(options: Mapping[str, Any]) -> str:
    """What a run is called when nobody says: the concept's name."""
    return str(options.get("concept_name") or concept_name(str(options["placeholder_token"])))


def parse_interval(text: str) -> int:
    """Seconds of `90m`, `12h`, `1d` or `2w`.

    Raises:
        ConfigError: when it is something else.
    """
    match = re.fullmatch(r"([1-9][0-9]*)([mhdw])", text)
    if not match:
        raise ConfigError(f"--every: found {text!r}, expected a whole number of m, h, d or w, such as 12h")
    return int(match.group(1)) * _UNITS[match.group(2)]


def check_cron(text: str) -> str:
    """The expression, which has six fields.

    Raises:
        ConfigError: when it has not.
    """
    fields = text.split()
    if len(fields) != len(_CRON_FIELDS) or not all(re.fullmatch(r"[0-9A-Za-z*/,?#L-]+", field) for field in fields):
        raise ConfigError(
            f"--cron: found {text!r}, expected six fields ({', '.join(_CRON_FIELDS)}), such as '0 0 3 * * *' for every "
            "night at three"
        )
    return text


def submit(connection: Connection, version: UploadedVersion, request: Request, name: str) -> str:
    """The id of the run that was begun.

    Raises:
        ClusterError: when the API refuses. Where its answer was lost, the run may have begun: the message says so.
    """
    run = kfp_server_api.V2beta1Run(
        display_name=name,
        experiment_id=experiment_id(connection, request.experiment),
        pipeline_version_reference=_reference(version),
        runtime_config=_runtime(request),
        service_account=request.service_account or None,
    )
    try:
        made = connection.ask(f"creating the run {name}", connection.client.runs.run_service_create_run, run=run)
    except ClusterError as error:
        if status_of(error) is None:
            raise ClusterError(f"{error}; look by `status` first whether it runs already") from error
        raise
    return str(made.run_id)


def schedule(
    connection: Connection, version: UploadedVersion, request: Request, name: str, trigger: Trigger
) -> tuple[str, bool]:
    """The id of the recurring run of that name, and whether it was made now; it is what is asked for, and the only one.

    One of the same settings stays as it is. Another is replaced: the new one is made first, turned off, and turned on
    once the others are deleted. So whoever is interrupted leaves no two that run, and by the same command again one.
    Of two at once both keep the same: the first of the settings that came last.

    Raises:
        ClusterError: when the API refuses, or somebody else schedules it with other settings at the same time.
    """
    experiment = experiment_id(connection, request.experiment)
    settings = _fingerprint(version, request, trigger, experiment)
    made = ""
    there = scheduled(connection, name)
    if not there or _Made.of(max(there, key=_Made.of)).settings != settings:
        body = kfp_server_api.V2beta1RecurringRun(
            display_name=name,
            description=_Made.after(there, settings).told(),
            experiment_id=experiment,
            pipeline_version_reference=_reference(version),
            runtime_config=_runtime(request),
            service_account=request.service_account or None,
            trigger=trigger.of_api(),
            max_concurrency="1",
            no_catchup=True,
            mode=kfp_server_api.RecurringRunMode.DISABLE,
        )
        made = connection.ask(
            f"creating the recurring run {name}",
            connection.client.recurring_runs.recurring_run_service_create_recurring_run,
            recurring_run=body,
        ).recurring_run_id
        there = scheduled(connection, name)
    wanted = _Made.of(max(there, key=_Made.of)).settings
    kept = min((each for each in there if _Made.of(each).settings == wanted), key=_Made.of)
    for other in there:
        if other.recurring_run_id != kept.recurring_run_id:
            unschedule(connection, other)
    connection.ask(
        f"turning on the recurring run {name}",
        connection.client.recurring_runs.recurring_run_service_enable_recurring_run,
        kept.recurring_run_id,
    )
    if wanted != settings:
        raise ClusterError(
            f"the recurring run {name} was scheduled with other settings at the same time, and those are kept; give "
            "the same command again to replace them"
        )
    return str(kept.recurring_run_id), kept.recurring_run_id == made


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
    try:
        connection.ask(
            f"deleting the recurring run {recurring_run.display_name}",
            connection.client.recurring_runs.recurring_run_service_delete_recurring_run,
            recurring_run.recurring_run_id,
        )
    except ClusterError as error:
        if status_of(error) != _NOT_FOUND:
            raise


def experiment_id(connection: Connection, name: str) -> str:
    """The id of the experiment of that name, which is made where there is none.

    Raises:
        ClusterError: when the API refuses.
    """
    found = next(_experiments(connection, name), None)
    if found is None:
        body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=connection.namespace)
        try:
            found = connection.ask(
                f"creating the experiment {name}",
                connection.client.experiments.experiment_service_create_experiment,
                experiment=body,
            )
        except ClusterError:
            found = next(_experiments(connection, name), None)  # somebody else made it in the meantime
            if found is None:
                raise
    return str(found.experiment_id)


def _experiments(connection: Connection, name: str) -> Iterator[kfp_server_api.V2beta1Experiment]:
    return connection.pages(
        f"looking for the experiment {name}",
        connection.client.experiments.experiment_service_list_experiments,
        "experiments",
        filter=filter_by_name(name),
        **({"namespace": connection.namespace} if connection.namespace else {}),
    )


def _reference(version: UploadedVersion) -> kfp_server_api.V2beta1PipelineVersionReference:
    return kfp_server_api.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
    )


def _runtime(request: Request) -> kfp_server_api.V2beta1RuntimeConfig:
    return kfp_server_api.V2beta1RuntimeConfig(
        parameters=dict(request.parameters), pipeline_root=request.pipeline_root or None
    )


@dataclasses.dataclass(frozen=True, order=True)
class _Made:
    """What stands in the description of a recurring run that was made here.

    Attributes:
        at: when it was made, ISO 8601 in UTC, later than all of its name that were there.
        recurring_run_id: of the recurring run; empty of one that is yet to be made.
        settings: a fingerprint of all that it runs.
    """

    at: str
    recurring_run_id: str
    settings: str

    @classmethod
    def of(cls, recurring_run: kfp_server_api.V2beta1RecurringRun) -> _Made:
        """What its description says; nothing of one that was made elsewhere, and so before all others."""
        match = _DESCRIPTION.fullmatch(recurring_run.description or "")
        at, settings = match.groups() if match else ("", "")
        return cls(at, recurring_run.recurring_run_id, settings)

    @classmethod
    def after(cls, there: Sequence[kfp_server_api.V2beta1RecurringRun], settings: str) -> _Made:
        """What is made now, whatever the clocks of those say who made the others."""
        now = datetime.datetime.now(datetime.UTC)
        if latest := max((cls.of(each).at for each in there), default=""):
            now = max(now, datetime.datetime.fromisoformat(latest) + datetime.timedelta(microseconds=1))
        return cls(now.isoformat(timespec="microseconds"), "", settings)

    def told(self) -> str:
        """The description."""
        return f"Made by textual-inversion schedule at {self.at}, settings {self.settings}"


_DESCRIPTION = re.compile(r"Made by textual-inversion schedule at (\S{32}), settings ([0-9a-f]{16})")


def _fingerprint(version: UploadedVersion, request: Request, trigger: Trigger, experiment: str) -> str:
    told = {"version": version.version_id, "experiment_id": experiment, **dataclasses.asdict(request)}
    return hashlib.sha256(canonical_json({**told, **dataclasses.asdict(trigger)})).hexdigest()[:16]

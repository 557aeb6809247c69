"""The subcommands that speak with a cluster: submit, schedule, unschedule, status, logs, cancel."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.common.errors import ClusterError, ConfigError
from components.common.logs import human_duration
from components.common.printable import printable, visible
from pipelines.cluster import schedules, submitting, watching
from pipelines.cluster.connection import Connection, add_connection_flags, connect
from pipelines.cluster.fleet import apply, plan
from pipelines.cluster.fleet_status import ClusterView, status_of_fleet, view_of_cluster
from pipelines.cluster.fleet_table import fleet_lines
from pipelines.cluster.submitting import EXPERIMENT, Request
from pipelines.cluster.uploading import UploadedVersion, look_up, upload
from pipelines.compiling import PIPELINE
from pipelines.concepts_file import read_fleet, read_yaml
from pipelines.local_run import read_pipeline
from pipelines.parameters import add_option_flags, given_options
from pipelines.presets import GUIDE_EXAMPLE, PRESETS
from pipelines.triggers import Trigger, check_cron, parse_interval

RUN_FAILED = 1
_SHOWN_RUNS = 20
_POLL_SECONDS = 5.0
_WATCH_HELP = "show each step as it begins and ends, and once a minute what runs; exit with 1 when one fails"


def add_cluster_commands(commands: Any) -> None:
    """Adds the subcommands to the subparsers of a command."""
    submit = _parser(commands, "submit", "run the pipeline once on a cluster", submit_)
    _add_request_flags(submit)
    submit.add_argument("--name", default="", help="of the run (default: the concept's name and the time)")
    submit.add_argument("--watch", action="store_true", help=_WATCH_HELP)

    schedule = _parser(
        commands, "schedule", "run the pipeline again and again on a cluster, one run at a time", schedule_
    )
    _add_request_flags(schedule)
    schedule.add_argument("--name", default="", help="of the recurring run (default: the concept's name)")
    when = schedule.add_mutually_exclusive_group(required=True)
    when.add_argument(
        "--cron", default="", help="six fields, seconds first, UTC: '0 0 3 * * *' is every night at three"
    )
    when.add_argument(
        "--every", default="", help="an interval: 90m, 12h, 1d or 2w; it begins at a time that follows from the name"
    )

    unschedule = _parser(commands, "unschedule", "end the recurring run of a name; its runs stay", unschedule_)
    unschedule.add_argument("name", help="of the recurring run")

    apply = _parser(commands, "apply", "make the schedules of a fleet of concepts match its file", apply_)
    apply.add_argument("file", type=Path, help="YAML: defaults, and concepts by name")
    apply.add_argument("--prune", action="store_true", help="end the schedules of this fleet that are not in the file")
    apply.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    _add_run_flags(apply)

    status = _parser(commands, "status", "show the latest runs and the schedules, one run's steps, or a fleet", status_)
    status.add_argument("run", nargs="?", default="", help="id or name of a run; without one, the latest runs")
    status.add_argument(
        "--concepts",
        type=Path,
        metavar="FILE",
        help="YAML file of a fleet: schedule, last run, champion, scores and their drift, a line a concept; exit with "
        "1 when a last run failed",
    )
    status.add_argument("--json", action="store_true", help="with --concepts: print it as one JSON object")
    status.add_argument("--watch", action="store_true", help=_WATCH_HELP)

    logs = _parser(commands, "logs", "print the log of a run's step, of the one that failed first", logs_)
    logs.add_argument("run", help="id or name of a run")
    logs.add_argument("--step", default="", help="task or title of a step, such as Train (default: the failed one)")

    cancel = _parser(commands, "cancel", "stop a run; its training keeps its last step", cancel_)
    cancel.add_argument("run", help="id or name of a run")


def submit_(arguments: argparse.Namespace) -> int:
    """Checks the options, uploads the pipeline unless it is there, and begins a run."""
    request, options = _request(arguments)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    name = arguments.name or f"{submitting.name_of_run(options)} {now}"
    connection = connect(arguments)
    version = _uploaded(connection)
    run_id = submitting.submit(connection, version, request, name)
    print(f"run        {printable(name)}\nid         {run_id}\nlink       {connection.run_link(run_id)}")
    return _watched(connection, run_id) if arguments.watch else 0


def schedule_(arguments: argparse.Namespace) -> int:
    """Checks the options, uploads the pipeline unless it is there, and makes the recurring run of that name be this."""
    trigger = Trigger(
        cron=check_cron(arguments.cron) if arguments.cron else "",
        interval_seconds=parse_interval(arguments.every) if arguments.every else 0,
    )
    request, options = _request(arguments)
    name = arguments.name or submitting.name_of_run(options)
    connection = connect(arguments)
    version = _uploaded(connection)
    recurring_run_id, is_new = schedules.schedule(connection, version, request, name, trigger)
    print(f"schedule   {printable(name)}{'' if is_new else ' (was there already, as it is asked for)'}")
    next_run = trigger.first_after(datetime.datetime.now(datetime.UTC), name)
    print(f"when       {trigger.for_people()}, next {next_run:%Y-%m-%d %H:%M} UTC, one run at a time, no catching up")
    print(f"link       {connection.schedule_link(recurring_run_id)}")
    return 0


def unschedule_(arguments: argparse.Namespace) -> int:
    """Deletes the recurring runs of a name. Runs that have begun go on: see cancel."""
    connection = connect(arguments)
    found = schedules.scheduled(connection, arguments.name)
    if not found:
        raise ConfigError(f"found no recurring run {arguments.name!r}: `status` lists them")
    for each in found:
        schedules.unschedule(connection, each)
    print(f"unscheduled {printable(arguments.name)}")
    return 0


def apply_(arguments: argparse.Namespace) -> int:
    """Creates the schedules that the file has and the cluster lacks, replaces those that differ, leaves the others.

    Of one concept runs one at a time. Intervals begin at times that follow from the concepts' names, so that not all
    run at once; cron expressions are followed to the second. How many concepts run at once is for the cluster to say:
    by namespaceParallelism of Argo Workflows, the namespace's quota, or a queue (manifests/README.md).
    """
    fleet = read_fleet(arguments.file, GUIDE_EXAMPLE)
    requests = {concept.name: _as_request(concept.options, arguments) for concept in fleet.concepts}
    connection = connect(arguments)
    version = look_up(connection, PIPELINE) if arguments.dry_run else _uploaded(connection)
    changes = plan(connection, version, fleet, requests, prune=arguments.prune)
    for change in changes if arguments.dry_run else apply(connection, version, fleet, changes):
        print(printable(f"{change.action:16} {change.name}"))
        for line in change.differences:
            print(printable(f"{'':16}   {line}"))
    return 0


def status_(arguments: argparse.Namespace) -> int:
    """Shows the latest runs and all schedules; of one run, its steps, and of a failed step its own reason.

    Of a fleet it shows how each concept is: what is not reached, cluster or registry, is said beside what is.
    """
    if arguments.concepts:
        if arguments.run or arguments.watch:
            raise ConfigError("--concepts: found a run or --watch beside it, expected the file alone")
        return _status_of_fleet(arguments)
    if arguments.json:
        raise ConfigError("--json: found it without --concepts, expected both")
    connection = connect(arguments)
    if not arguments.run:
        _print_overview(connection)
        return 0
    run = watching.find_run(connection, arguments.run)
    if arguments.watch:
        return _watched(connection, run.run_id)
    state, titles = watching.state_of(connection, run.run_id), step_titles()
    now = datetime.datetime.now(datetime.UTC)
    for step in state.steps:
        print(watching.step_line(step, titles, now))
    return _ended(connection, state, titles)


def logs_(arguments: argparse.Namespace) -> int:
    """Prints a step's log, from the cluster or from the archive."""
    connection, titles = connect(arguments), step_titles()
    run = watching.find_run(connection, arguments.run)
    state = watching.state_of(connection, run.run_id)
    wanted = arguments.step.casefold()
    named = [step for step in state.steps if wanted in (step.task, titles.get(step.task, "").casefold())]
    chosen = named if wanted else list(state.failed)
    if not chosen:
        began = [titles.get(step.task, step.task) for step in state.steps if not step.is_left_out]
        there = ", ".join(began) or "none"
        what = f"no step {arguments.step!r}" if wanted else "no step that failed"
        raise ConfigError(
            f"--step: found {what} in the run {run.display_name!r}, expected one of those that began: {there}"
        )
    print(visible(watching.log_of(connection, run.run_id, chosen[0])))
    return 0


def cancel_(arguments: argparse.Namespace) -> int:
    """Asks the cluster to stop a run: within seconds its training keeps the last step, and its pods are gone."""
    connection = connect(arguments)
    run = watching.find_run(connection, arguments.run)
    if run.state in watching.FINISHED:
        print(f"{printable(run.display_name)} has ended: {run.state.lower()}")
        return 0
    watching.cancel(connection, run.run_id)
    print(f"canceling {printable(run.display_name)}: the same options go on where its training stops")
    return 0


def step_titles() -> dict[str, str]:
    """What a person reads for each task of the pipeline, by the task's name."""
    tasks = read_pipeline(PIPELINE)["root"]["dag"]["tasks"]
    return {name: task["taskInfo"]["name"] for name, task in tasks.items()}


def _parser(commands: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=run.__doc__, allow_abbrev=False)
    add_connection_flags(parser)
    parser.set_defaults(command=run)
    return parser


def _add_request_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [--options FILE] [--preset NAME] [--OPTION VALUE ...]"
    parser.add_argument("--options", type=Path, help="YAML file of options by name; flags come before it")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="guide", help="parameters to start from (default: %(default)s)"
    )
    _add_run_flags(parser)
    add_option_flags(parser, GUIDE_EXAMPLE)


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", default=EXPERIMENT, help="experiment of the runs (default: %(default)s)")
    parser.add_argument("--service-account", default="", help="Kubernetes service account of the pods")
    parser.add_argument("--pipeline-root", default="", help="where artifacts go, in object storage")


def _request(arguments: argparse.Namespace) -> tuple[Request, Mapping[str, Any]]:
    from_file = read_yaml(arguments.options, "options by name, such as seed: 7") if arguments.options else {}
    more = from_file.pop("more_options", None) or {}
    options = {**PRESETS[arguments.preset], **more, **from_file, **given_options(arguments)}
    return _as_request(options, arguments), options


def _as_request(options: Mapping[str, Any], arguments: argparse.Namespace) -> Request:
    return Request(
        parameters=submitting.checked_parameters(options, PIPELINE),
        experiment=arguments.experiment,
        service_account=arguments.service_account,
        pipeline_root=arguments.pipeline_root,
    )


def _uploaded(connection: Connection) -> UploadedVersion:
    version = upload(connection, PIPELINE)
    print(f"pipeline   version {version.name} {'is there already' if version.was_there else 'uploaded'}")
    return version


def _watched(connection: Connection, run_id: str) -> int:
    titles = step_titles()
    state = watching.watch(
        connection, run_id, titles=titles, say=lambda line: print(line, flush=True), every_seconds=_POLL_SECONDS
    )
    return _ended(connection, state, titles)


def _ended(connection: Connection, state: watching.RunState, titles: Mapping[str, str]) -> int:
    """Prints how a run is, and why, and gives the exit code of that."""
    run = state.run
    took = f" after {human_duration((run.finished_at - run.created_at).total_seconds())}" if run.finished_at else ""
    print(f"{printable(run.display_name)}: {run.state.lower()}{took}  {connection.run_link(run.run_id)}")
    for line in watching.reasons(connection, state, titles):
        print(printable(line))
    if state.problem and state.is_finished:
        print(printable(f"its steps are not known: {state.problem}"))
    return RUN_FAILED if state.run.state in ("FAILED", "CANCELED") else 0


def _status_of_fleet(arguments: argparse.Namespace) -> int:
    fleet = read_fleet(arguments.concepts, GUIDE_EXAMPLE)
    problem: ClusterError | None = None
    view: ClusterView = {}
    try:
        view = view_of_cluster(connect(arguments), fleet, step_titles())
    except ClusterError as error:
        problem = error
    concepts = status_of_fleet(fleet, view)
    if arguments.json:
        told = {"cluster_problem": str(problem or ""), "concepts": {each.name: each.as_json() for each in concepts}}
        print(visible(json.dumps(told, indent=1, ensure_ascii=False)))
    else:
        print("\n".join(fleet_lines(concepts)))
    if problem:
        raise problem
    return RUN_FAILED if any(concept.has_failed for concept in concepts) else 0


def _print_overview(connection: Connection) -> None:
    for number, run in enumerate(watching.runs(connection)):
        if number == _SHOWN_RUNS:
            break
        created = run.created_at.strftime("%Y-%m-%d %H:%M") if run.created_at else "-"
        print(printable(f"{created}  {(run.state or 'PENDING').lower():10} {run.display_name}  {run.run_id}"))
    for each in schedules.scheduled(connection):
        trigger = schedules.trigger_of(each)
        when = trigger.for_people() if trigger else "-"
        print(printable(f"schedule  {(each.status or '').lower():10} {each.display_name}  {when}"))

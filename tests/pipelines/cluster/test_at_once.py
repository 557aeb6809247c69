"""Two who apply a fleet's file at once, whatever comes between whose requests, and one who is stopped on the way."""

from __future__ import annotations

import concurrent.futures
import copy
import itertools
from collections.abc import Callable

import pytest

from components.common.errors import ClusterError
from pipelines.cluster import fleet, uploading
from pipelines.cluster.connection import Connection
from pipelines.cluster.submitting import Request
from pipelines.cluster.uploading import UploadedVersion
from pipelines.compiling import PIPELINE
from pipelines.concepts_file import Fleet, FleetConcept
from pipelines.triggers import Trigger
from tests.pipelines.cluster.backend import KfpServer
from tests.pipelines.cluster.test_commands import connected, seconds_of

HOUR, DAY = Trigger(interval_seconds=3600), Trigger(interval_seconds=86400)
BEFORE = {"cat": HOUR, "dog": DAY, "cow": DAY}
OURS = {"cat": DAY, "dog": DAY, "bird": HOUR}


@pytest.fixture
def connection(kfp_server: KfpServer) -> Connection:
    return connected()


@pytest.fixture
def version(connection: Connection) -> UploadedVersion:
    return uploading.upload(connection, PIPELINE)


def apply(connection: Connection, version: UploadedVersion, file: dict[str, Trigger]) -> bool:
    """Makes the schedules be those of a file, all others of the fleet going; whether that was done."""
    concepts = tuple(FleetConcept(name=name, options={}, trigger=trigger) for name, trigger in file.items())
    wanted = Fleet(name="pets", concepts=concepts)
    requests = {name: Request(parameters={"placeholder_token": name}) for name in file}
    try:
        list(fleet.apply(connection, version, wanted, fleet.plan(connection, version, wanted, requests, prune=True)))
    except ClusterError:
        return False
    return True


def schedules_of(server: KfpServer) -> list[tuple[str, str, str]]:
    """Name, seconds and state of every schedule."""
    return sorted((each["display_name"], seconds_of(each), each["status"]) for each in server.recurring_runs.values())


def as_made(file: dict[str, Trigger]) -> list[tuple[str, str, str]]:
    return sorted((name, str(trigger.interval_seconds), "ENABLED") for name, trigger in file.items())


@pytest.fixture
def begin(kfp_server: KfpServer, connection: Connection, version: UploadedVersion) -> Callable[[], int]:
    """Makes the schedules be those of before: the number of the last request then."""
    assert apply(connection, version, BEFORE)
    before = copy.deepcopy(kfp_server.recurring_runs)

    def set_back() -> int:
        kfp_server.recurring_runs.clear()
        kfp_server.recurring_runs.update(copy.deepcopy(before))
        return len(kfp_server.requests)

    return set_back


@pytest.mark.parametrize("others", [OURS, BEFORE], ids=["the same file", "the file before"])
def test_another_between_any_two_requests_neither_doubles_nor_loses(
    kfp_server: KfpServer,
    connection: Connection,
    version: UploadedVersion,
    begin: Callable[[], int],
    others: dict[str, Trigger],
):
    other = connected()
    for number in itertools.count(1):
        kfp_server.interruptions = {begin() + number: lambda: apply(other, version, others)}
        done = apply(connection, version, OURS)
        names = [name for name, _, _ in schedules_of(kfp_server)]
        assert len(names) == len(set(names)) and {"cat", "dog"} <= set(names), number
        assert {state for _, _, state in schedules_of(kfp_server)} == {"ENABLED"}, number
        if others == OURS:
            assert done and schedules_of(kfp_server) == as_made(OURS), number
        if kfp_server.interruptions:
            break
    assert number > 10, "the last one would have come after all requests"


def test_stopped_before_any_request_and_given_again_is_as_if_never_stopped(
    kfp_server: KfpServer, connection: Connection, version: UploadedVersion, begin: Callable[[], int]
):
    def stop() -> None:
        kfp_server.token = "no request has this one"

    for number in itertools.count(1):
        kfp_server.interruptions = {begin() + number: stop}
        done = apply(connection, version, OURS)
        running = [name for name, _, state in schedules_of(kfp_server) if state == "ENABLED"]
        assert len(running) == len(set(running)), number
        if kfp_server.interruptions:
            break
        assert not done
        kfp_server.token = None
        assert apply(connection, version, OURS) and schedules_of(kfp_server) == as_made(OURS), number
    assert done and number > 10


def test_many_at_once_leave_the_file_of_one_of_them(
    kfp_server: KfpServer, connection: Connection, version: UploadedVersion, begin: Callable[[], int]
):
    begin()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda file: apply(connected(), version, file), [OURS, BEFORE] * 3))
    found = schedules_of(kfp_server)
    names = [name for name, _, _ in found]
    assert len(names) == len(set(names)) and {"cat", "dog"} <= set(names)
    assert {state for _, _, state in found} == {"ENABLED"}
    assert apply(connection, version, OURS) and schedules_of(kfp_server) == as_made(OURS)

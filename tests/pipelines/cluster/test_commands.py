"""Runs and schedules on a cluster, asked for by the command as a person gives it."""

from __future__ import annotations

import concurrent.futures
import json
import types
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import ClusterError
from pipelines.cli import _parser as command_parser
from pipelines.cluster import schedules, uploading
from pipelines.cluster.connection import Connection, connect
from pipelines.cluster.submitting import Request
from pipelines.compiling import PIPELINE
from pipelines.triggers import Trigger
from tests.pipelines.cluster.backend import KfpServer, left_out, node
from tests.pipelines.cluster.conftest import Command

PICTURES = ("--images-uri", "gs://bucket/cat", "--storage-uri", "gs://bucket/store")


def only(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (found,) = objects.values()
    return found


def seconds_of(recurring_run: dict[str, Any]) -> str:
    """The interval of a schedule."""
    return str(recurring_run["trigger"]["periodic_schedule"]["interval_second"])


def connected() -> Connection:
    return connect(command_parser().parse_args(["status"]))


def test_first_submit_uploads_the_pipeline_and_begins_a_run(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str]
):
    assert command("submit", *PICTURES, "--seed", "7", "--lr-scheduler", "cosine", "--name", "cats") == 0
    pipeline, version, run = (only(each) for each in (kfp_server.pipelines, kfp_server.versions, kfp_server.runs))
    assert pipeline["display_name"] == "textual-inversion"
    assert pipeline["description"].startswith("Teaches") and version["description"] == pipeline["description"]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert run["display_name"] == "cats"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["seed"] == 7 and parameters["images_uri"] == "gs://bucket/cat"
    assert parameters["more_options"]["lr_scheduler"] == "cosine"
    assert only(kfp_server.experiments)["display_name"] == "Textual Inversion"
    told = capsys.readouterr().out
    assert f"{kfp_server.url}/#/runs/details/{run['run_id']}" in told


def test_second_submit_uploads_nothing(kfp_server: KfpServer, command: Command):
    for _ in range(2):
        assert command("submit", *PICTURES) == 0
    assert len(kfp_server.pipelines) == len(kfp_server.versions) == len(kfp_server.experiments) == 1
    assert len(kfp_server.runs) == 2


def test_changed_pipeline_is_another_version_of_the_same(kfp_server: KfpServer, tmp_path: Path):
    changed = tmp_path / PIPELINE.name
    changed.write_text(PIPELINE.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    changed.with_suffix(".md").write_text("what it does", encoding="utf-8")
    first, second = (uploading.upload(connected(), file) for file in (PIPELINE, changed))
    assert first.pipeline_id == second.pipeline_id and first.version_id != second.version_id
    assert len(kfp_server.versions) == 2


def test_bad_option_is_refused_before_any_request(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "options.yaml"
    file.write_text("learning_rate: -1\nplaceholder_token: '<cat>'\nlr_schedul: cosine\n", encoding="utf-8")
    assert command("submit", *PICTURES, "--options", str(file)) == 2
    told = capsys.readouterr().err
    assert "learning_rate: found -1" in told and "did you mean lr_scheduler?" in told
    assert not kfp_server.requests


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "7\n", "1: 2\n"])
def test_file_without_options_is_refused(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
):
    file = tmp_path / "options.yaml"
    file.write_text(text, encoding="utf-8")
    assert command("submit", "--options", str(file)) == 2
    assert str(file) in capsys.readouterr().err
    assert not kfp_server.requests


def test_flags_come_before_the_file_and_the_file_before_the_preset(
    kfp_server: KfpServer, command: Command, tmp_path: Path
):
    file = tmp_path / "options.yaml"
    file.write_text("seed: 3\nresolution: 256\nmore_options: {lr_scheduler: linear}\n", encoding="utf-8")
    assert command("submit", *PICTURES, "--options", str(file), "--seed", "4") == 0
    parameters = only(kfp_server.runs)["runtime_config"]["parameters"]
    assert (parameters["seed"], parameters["resolution"]) == (4, 256)
    assert parameters["more_options"]["lr_scheduler"] == "linear"


@pytest.mark.parametrize(
    ("given", "what"),
    [("--every", "1x"), ("--cron", "0 3 * * *"), ("--cron", "a; b c d e f"), ("--cron", "0 0 24 * * *")],
)
def test_schedule_that_cannot_be_is_refused_before_any_request(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str], given: str, what: str
):
    assert command("schedule", *PICTURES, given, what) == 2
    assert f"{given[2:]}: found {what!r}" in capsys.readouterr().err
    assert not kfp_server.requests


def test_schedule_runs_one_at_a_time_without_catching_up(kfp_server: KfpServer, command: Command):
    assert command("schedule", *PICTURES, "--cron", "0 0 3 * * *") == 0
    made = only(kfp_server.recurring_runs)
    assert made["display_name"] == "cat-toy"
    assert made["max_concurrency"] == "1" and made["no_catchup"] is True
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert made["status"] == "ENABLED"


def test_schedule_again_leaves_it_and_another_replaces_it(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str]
):
    assert command("schedule", *PICTURES, "--every", "12h") == 0
    first = only(kfp_server.recurring_runs)["recurring_run_id"]
    assert command("schedule", *PICTURES, "--every", "12h") == 0
    assert only(kfp_server.recurring_runs)["recurring_run_id"] == first
    assert "was there already" in capsys.readouterr().out
    assert command("schedule", *PICTURES, "--every", "1d", "--seed", "3") == 0
    second = only(kfp_server.recurring_runs)
    assert second["recurring_run_id"] != first
    assert seconds_of(second) == "86400"
    assert second["status"] == "ENABLED"
    assert command("schedule", *PICTURES, "--every", "12h") == 0
    assert seconds_of(only(kfp_server.recurring_runs)) == "43200"


@pytest.mark.parametrize("failing", [("DELETE", "recurringruns"), ("POST", ":enable"), ("POST", "recurringruns")])
def test_interrupted_replacement_is_completed_by_the_same_command(
    kfp_server: KfpServer, command: Command, failing: tuple[str, str]
):
    assert command("schedule", *PICTURES, "--every", "12h") == 0
    kfp_server.faults = [(*failing, 403)]
    assert command("schedule", *PICTURES, "--every", "1d") == 6
    on = [each for each in kfp_server.recurring_runs.values() if each["status"] == "ENABLED"]
    assert len(on) <= 1
    assert command("schedule", *PICTURES, "--every", "1d") == 0
    made = only(kfp_server.recurring_runs)
    assert made["status"] == "ENABLED" and seconds_of(made) == "86400"


def test_two_schedules_at_once_leave_one(kfp_server: KfpServer):
    version = uploading.upload(connected(), PIPELINE)
    for seconds in (range(3600, 3601), range(3600, 3604)):
        triggers = [Trigger(interval_seconds=every) for every in seconds] * 3

        def schedule(trigger: Trigger) -> str | None:
            try:
                return schedules.schedule(connected(), version, Request(parameters={}), "cats", trigger)[0]
            except ClusterError:
                return None

        with concurrent.futures.ThreadPoolExecutor(len(triggers)) as pool:
            kept = set(filter(None, pool.map(schedule, triggers)))
        schedules.schedule(connected(), version, Request(parameters={}), "cats", triggers[-1])
        made = only(kfp_server.recurring_runs)
        assert made["status"] == "ENABLED"
        assert len(seconds) > 1 or kept == {made["recurring_run_id"]}


def test_unschedule_deletes_all_of_the_name_and_no_other(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str]
):
    for name in ("cats", "dogs"):
        assert command("schedule", *PICTURES, "--every", "12h", "--name", name) == 0
    assert command("unschedule", "cats") == 0
    assert only(kfp_server.recurring_runs)["display_name"] == "dogs"
    assert command("unschedule", "cats") == 2
    assert "`status` lists them" in capsys.readouterr().err


@pytest.fixture
def run_id(kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str]) -> str:
    assert command("submit", *PICTURES, "--name", "cats") == 0
    capsys.readouterr()
    return str(only(kfp_server.runs)["run_id"])


FAILED = [
    node("preflight", "Succeeded", driver=True),
    node("preflight", "Succeeded", at=9),
    node("import-base-model", "Succeeded", driver=True, at=20),
    node("train", "Succeeded", driver=True, at=30),
    node("train", "Error", at=40, attempt=0, message="pod deleted"),
    node("train", "Failed", at=60, attempt=1, message="main: Error (exit code 5): loss is not finite at step 7"),
]


@pytest.mark.parametrize("packed", [False, True])
def test_status_tells_each_step_and_a_failed_ones_own_reason(
    kfp_server: KfpServer, command: Command, run_id: str, capsys: pytest.CaptureFixture[str], packed: bool
):
    kfp_server.set_workflow(run_id, FAILED, packed=packed)
    kfp_server.runs[run_id]["state"] = "FAILED"
    assert command("status", "cats") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["Check everything", "Import base model", "Train"]
    assert "from the cache" in lines[1] and "from the cache" not in lines[0]
    assert lines[-1] == "Train: loss is not finite at step 7"


NOTHING_TO_DO = [
    node("preflight", "Succeeded", driver=True),
    node("preflight", "Succeeded", at=9),
    node("import-base-model", "Succeeded", driver=True, at=20),
    left_out("import-base-model", "Skipped", at=30),
    left_out("train", "Omitted", driver=True, at=31),
    left_out("train", "Omitted", at=32),
]


@pytest.mark.parametrize("more", [(), ("--watch",)])
def test_run_that_had_nothing_to_do_has_succeeded_and_says_why(
    kfp_server: KfpServer, command: Command, run_id: str, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
):
    kfp_server.set_workflow(run_id, NOTHING_TO_DO)
    kfp_server.runs[run_id]["state"] = "SUCCEEDED"
    pod = f"wf-abc-system-container-impl-{NOTHING_TO_DO[1]['id'].rpartition('-')[2]}"
    kfp_server.logs[pod] = "03:00:07 sources: all there\n03:00:08 nothing to do: learned from the same\n03:00:08 done\n"
    assert command("status", run_id, *more) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    told = [line.partition(" ")[2] if more else line for line in lines[:3]]  # a watched line begins with its time
    assert told == ["Check everything succeeded 9.0 s", "Import base model skipped", "Train omitted"]
    assert lines[3].startswith("cats: succeeded")
    assert lines[4:] == ["nothing to do: learned from the same"]
    assert command("logs", run_id, "--step", "Train") == 6
    assert "train has no log of its own: it was left out" in capsys.readouterr().err
    kfp_server.logs.clear()
    assert command("status", run_id, *more) == 0
    assert "why it had nothing to do is not known: " in capsys.readouterr().out


def test_step_whose_driver_failed_has_failed_though_the_rest_of_it_was_left_out(
    kfp_server: KfpServer, command: Command, run_id: str, capsys: pytest.CaptureFixture[str]
):
    kfp_server.set_workflow(run_id, [node("train", "Failed", driver=True, message="no"), left_out("train", "Omitted")])
    kfp_server.runs[run_id]["state"] = "FAILED"
    assert command("status", run_id) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "Train: no"


def test_reason_is_the_last_line_of_the_log_where_kubernetes_kept_none(
    kfp_server: KfpServer, command: Command, run_id: str, capsys: pytest.CaptureFixture[str]
):
    nodes = [node("train", "Failed", message="main: Error (exit code 5)")]
    kfp_server.set_workflow(run_id, nodes)
    pod = f"wf-abc-system-container-impl-{nodes[0]['id'].rpartition('-')[2]}"
    kfp_server.logs[pod] = "step 1\nERROR train: loss is not finite at step 7\n\n"
    kfp_server.runs[run_id]["state"] = "FAILED"
    assert command("status", run_id) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "Train: ERROR train: loss is not finite at step 7"
    assert command("logs", run_id) == 0
    assert "step 1\nERROR train" in capsys.readouterr().out
    assert command("logs", run_id, "--step", "Publish if learned") == 2
    assert "expected one of those that began: Train" in capsys.readouterr().err


def test_run_is_told_of_when_its_steps_are_not_known(
    kfp_server: KfpServer, command: Command, run_id: str, capsys: pytest.CaptureFixture[str]
):
    kfp_server.runs[run_id]["state"] = "FAILED"
    assert command("status", "cats") == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("cats: failed") and last.startswith(
        "its steps are not known: the API's run object holds no"
    )


def test_watching_tells_steps_as_they_begin_and_end(
    kfp_server: KfpServer,
    command: Command,
    run_id: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    moments = iter(
        [
            ("PENDING", None),
            ("RUNNING", [node("preflight", "Running")]),
            ("RUNNING", [node("preflight", "Succeeded"), node("train", "Running", at=10)]),
            ("SUCCEEDED", [node("preflight", "Succeeded"), node("train", "Succeeded", at=10)]),
        ]
    )

    def next_moment(seconds: float) -> None:
        state, nodes = next(moments)
        kfp_server.runs[run_id]["state"] = state
        if nodes is not None:
            kfp_server.set_workflow(run_id, nodes)

    monkeypatch.setattr("pipelines.cluster.watching.time", types.SimpleNamespace(sleep=next_moment))
    assert command("status", run_id, "--watch") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()[1:]) for line in lines[:4]] == [
        "Check everything running",
        "Check everything succeeded 9.0 s",
        "Train running",
        "Train succeeded 9.0 s",
    ]


def test_watching_tells_once_a_minute_what_runs(
    kfp_server: KfpServer,
    command: Command,
    run_id: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    waited = 0.0

    def wait(seconds: float) -> None:
        nonlocal waited
        waited += seconds
        if waited == 130:
            kfp_server.set_workflow(run_id, [node("preflight", "Succeeded"), node("train", "Running", at=10)])
        elif waited == 265:
            kfp_server.runs[run_id] |= {"state": "SUCCEEDED", "finished_at": "2026-11-29T03:10:00Z"}

    monkeypatch.setattr("pipelines.cluster.watching.time", types.SimpleNamespace(sleep=wait))
    assert command("status", run_id, "--watch") == 0
    lines = [" ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines()]
    before, begun, running, (last,) = lines[:2], lines[2:4], lines[4:-1], lines[-1:]
    assert set(before) == {
        "pending: the API's run object holds no workflow yet, or none that can be read; the UI has the steps' states"
    }
    assert begun == ["Check everything succeeded 9.0 s", "Train running"]
    assert len(running) == 2 and all(line.startswith("Train running for ") for line in running)
    assert last.startswith("succeeded after 10 min 00 s")


def test_overview_lists_the_latest_run_first_and_the_schedules(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str]
):
    for name in ("a", "b", "c"):
        assert command("submit", *PICTURES, "--name", name) == 0
    assert command("schedule", *PICTURES, "--cron", "0 0 3 * * *") == 0
    capsys.readouterr()
    assert command("status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines[:3]] == ["c", "b", "a"]
    assert lines[3].split() == ["schedule", "enabled", "cat-toy", "0", "0", "3", "*", "*", "*"]


def test_cancel_asks_once_and_says_when_a_run_has_ended(
    kfp_server: KfpServer, command: Command, run_id: str, capsys: pytest.CaptureFixture[str]
):
    assert command("cancel", "cats") == 0
    assert kfp_server.runs[run_id]["state"] == "CANCELING"
    kfp_server.runs[run_id]["state"] = "CANCELED"
    assert command("cancel", run_id) == 0
    assert "has ended: canceled" in capsys.readouterr().out
    assert command("cancel", "dogs") == 2


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "log in again"), (403, "ask for the right"), (500, "made to fail"), (400, "made to fail")],
)
def test_refusals_say_what_to_do(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str], status: int, told: str
):
    kfp_server.faults = [("POST", "/runs", status)]
    assert command("submit", *PICTURES) == 6
    error = capsys.readouterr().err
    assert f"answers {status}" in error and told in error
    assert not kfp_server.runs


def test_reads_are_repeated_while_the_api_is_away(kfp_server: KfpServer, command: Command):
    kfp_server.faults = [("GET", "/experiments", 503), ("GET", "/pipelines", 502)]
    assert command("submit", *PICTURES) == 0
    assert len(kfp_server.runs) == 1


def test_a_run_whose_answer_was_lost_is_not_begun_twice(
    kfp_server: KfpServer, command: Command, capsys: pytest.CaptureFixture[str]
):
    kfp_server.faults = [("POST", "/runs", 0)]
    assert command("submit", *PICTURES) == 6
    assert len(kfp_server.runs) == 1
    assert "look by `status` first" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/pipelines", "/pipelines/upload_version", "/experiments"])
def test_what_was_made_though_its_answer_was_lost_is_taken(kfp_server: KfpServer, command: Command, path: str):
    kfp_server.faults = [("POST", path, 0)]
    assert command("submit", *PICTURES) == 0
    assert len(kfp_server.pipelines) == len(kfp_server.versions) == len(kfp_server.experiments) == 1


def test_token_comes_from_the_environment_or_a_file_and_is_told_nowhere(
    kfp_server: KfpServer,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    kfp_server.token = "s3cret-token"
    assert command("status") == 6
    assert "log in again" in capsys.readouterr().err
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "s3cret-token")
    assert command("submit", *PICTURES) == 0
    monkeypatch.delenv("KF_PIPELINES_TOKEN")
    file = tmp_path / "token"
    file.write_text("s3cret-token\n", encoding="utf-8")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    assert command("submit", *PICTURES) == 0
    captured = capsys.readouterr()
    assert "s3cret" not in captured.out + captured.err
    assert "s3cret" not in json.dumps([kfp_server.runs, kfp_server.versions, kfp_server.pipelines])


def test_no_installation_there_is_one_line(command: Command, capsys: pytest.CaptureFixture[str], kfp_server: KfpServer):
    kfp_server.stop()
    assert command("status") == 6
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--host" in line

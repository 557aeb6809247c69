"""A fleet's file and the schedules that it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.cluster.backend import KfpServer
from tests.pipelines.cluster.conftest import Command
from tests.pipelines.cluster.test_commands import seconds_of

FILE = """\
fleet: toys
defaults:
  scorer: gs://bucket/clip
  schedule: {every: 1d}
concepts:
  cat-toy:
    images_uri: gs://bucket/cat
    placeholder_token: <cat-toy>
  dog:
    images_uri: gs://bucket/dog
    placeholder_token: <dog>
    initializer_token: dog
    schedule: {cron: "0 0 3 * * *"}
  bird:
    images_uri: gs://bucket/bird
    placeholder_token: <bird>
    initializer_token: bird
    learning_rate: 0.001
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "concepts.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def names_of(server: KfpServer) -> list[str]:
    return sorted(each["display_name"] for each in server.recurring_runs.values())


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if not line.startswith("pipeline")]


def test_apply_makes_every_schedule_and_then_nothing(
    kfp_server: KfpServer, command: Command, file: Path, capsys: pytest.CaptureFixture[str]
):
    assert command("apply", str(file)) == 0
    assert lines_of(capsys) == ["create cat-toy", "create dog", "create bird"]
    assert names_of(kfp_server) == ["bird", "cat-toy", "dog"]
    by_name = {each["display_name"]: each for each in kfp_server.recurring_runs.values()}
    assert by_name["dog"]["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    starts = {by_name[name]["trigger"]["periodic_schedule"]["start_time"] for name in ("cat-toy", "bird")}
    assert len(starts) == 2, "those of the same interval do not run at the same time"
    assert seconds_of(by_name["cat-toy"]) == "86400"
    assert by_name["bird"]["runtime_config"]["parameters"]["learning_rate"] == 0.001
    assert by_name["bird"]["runtime_config"]["parameters"]["more_options"]["concept_name"] == "bird"
    changes = len(kfp_server.changes)
    assert command("apply", str(file)) == 0
    assert lines_of(capsys) == ["keep cat-toy", "keep dog", "keep bird"]
    assert len(kfp_server.changes) == changes


def test_dry_run_shows_what_differs_and_changes_nothing(
    kfp_server: KfpServer, command: Command, file: Path, capsys: pytest.CaptureFixture[str]
):
    assert command("apply", str(file)) == 0
    capsys.readouterr()
    changed = FILE.replace("0.001", "0.002").replace("0 0 3", "0 0 4").replace("  cat-toy:", "  cat:")
    file.write_text(changed, encoding="utf-8")
    changes = len(kfp_server.changes)
    assert command("apply", str(file), "--dry-run", "--prune") == 0
    assert lines_of(capsys) == [
        "create cat",
        "replace dog",
        "schedule: 0 0 3 * * * -> 0 0 4 * * *",
        "replace bird",
        "learning_rate: 0.001 -> 0.002",
        "prune cat-toy",
    ]
    assert len(kfp_server.changes) == changes
    assert command("apply", str(file)) == 0
    assert lines_of(capsys)[-1] == "not in the file cat-toy"
    assert names_of(kfp_server) == ["bird", "cat", "cat-toy", "dog"]
    assert command("apply", str(file), "--prune") == 0
    assert names_of(kfp_server) == ["bird", "cat", "dog"]


def test_prune_leaves_what_other_fleets_and_people_made(kfp_server: KfpServer, command: Command, file: Path):
    pictures = ("--images-uri", "gs://bucket/x", "--storage-uri", "gs://bucket/store")
    assert command("schedule", *pictures, "--every", "1d", "--name", "mine") == 0
    other = file.with_name("other.yaml")
    other.write_text(FILE.replace("toys", "pets").replace("<", "<pet-").replace("\n  dog", "\n  pet-dog"), "utf-8")
    assert command("apply", str(file)) == command("apply", str(other)) == 0
    file.write_text(FILE.replace("cat-toy:", "cow:"), encoding="utf-8")
    assert command("apply", str(file), "--prune") == 0
    assert "mine" in names_of(kfp_server) and "pet-dog" in names_of(kfp_server)


def test_one_that_is_refused_keeps_no_other_from_being_made(
    kfp_server: KfpServer, command: Command, file: Path, capsys: pytest.CaptureFixture[str]
):
    kfp_server.faults = [("POST", "/recurringruns", 403)]
    assert command("apply", str(file)) == 6
    captured = capsys.readouterr()
    assert "cat-toy: creating the recurring run cat-toy: Kubeflow Pipelines answers 403" in captured.err
    assert names_of(kfp_server) == ["bird", "dog"]
    assert command("apply", str(file)) == 0
    assert names_of(kfp_server) == ["bird", "cat-toy", "dog"]


def test_schedule_that_was_turned_off_is_turned_on(kfp_server: KfpServer, command: Command, file: Path):
    assert command("apply", str(file)) == 0
    made = next(iter(kfp_server.recurring_runs.values()))
    made["status"] = "DISABLED"
    assert command("apply", str(file)) == 0
    assert made["status"] == "ENABLED" and len(kfp_server.recurring_runs) == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("learning_rate: 0.001", "learning_rate: -1"), "bird: learning_rate: found -1"),
        (("learning_rate", "lerning_rate"), "bird: lerning_rate: there is no such option"),
        (('cron: "0 0 3 * * *"', "cron: daily"), "dog: cron: found 'daily'"),
        (("every: 1d", "every: 1d, cron: x"), "cat-toy: schedule: found every, cron"),
        (("<bird>", "<dog>"), "two concepts have the placeholder <dog>"),
        (("fleet: toys", "fleet: a toy"), "fleet: found 'a toy'"),
        (("  bird:", "  bi/rd:"), "found 'bi/rd'"),
        (("defaults:", "default:"), "found default, expected fleet, defaults, concepts"),
        (("concepts:", "concepts: []\nx:"), "expected fleet, defaults, concepts alone"),
    ],
)
def test_file_that_cannot_be_right_is_refused_before_any_request(
    kfp_server: KfpServer,
    command: Command,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    told: str,
):
    file.write_text(FILE.replace(*change), encoding="utf-8")
    assert command("apply", str(file)) == 2
    assert told in capsys.readouterr().err
    assert not kfp_server.requests

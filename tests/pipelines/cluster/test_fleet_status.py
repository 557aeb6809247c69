"""How a fleet is, as a person and a program read it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from components.common.registry.aliases import set_alias
from components.common.registry.entry import Bundle, Facts
from components.common.registry.registry import concept_store
from components.common.registry.versions import publish_version
from tests.pipelines.cluster.backend import KfpServer, node
from tests.pipelines.cluster.conftest import Command

FILE = """\
defaults:
  scorer: gs://bucket/clip
  storage_uri: {storage}
concepts:
  cat:
    images_uri: gs://bucket/cat
    schedule: {{every: 1d}}
  dog:
    images_uri: gs://bucket/dog
    schedule: {{cron: "0 0 3 * * *"}}
  cow:
    images_uri: gs://bucket/cow
    storage_uri: ""
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pets.yaml"
    path.write_text(FILE.format(storage=tmp_path / "storage"), encoding="utf-8")
    return path


@pytest.fixture
def versions(tmp_path: Path) -> None:
    """Three versions of the cat, the third from other pictures; the champion is the second, and was the first."""
    store = concept_store(str(tmp_path / "storage" / "registry"), "cat")
    for number, (clip_i, clip_t) in enumerate([(0.75, 0.25), (0.8125, 0.24), (0.797, 0.26)], 1):
        facts = Facts(
            placeholder_token="<cat>",
            learnable_property="object",
            tokens=("<cat>",),
            passed=True,
            reasons=(),
            scores={"after": {"clip_i": clip_i, "clip_t": clip_t}},
            lineage={"base_model_digest": "12", "image_set_digest": str(number // 3)},
        )
        publish_version(store, Bundle(concept="cat", facts=facts, files={"rows": bytes(number)}), "run-1")
        if number < 3:
            set_alias(store, "champion", number)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("versions")
def test_fleet_is_a_line_a_concept_with_what_failed_below(
    kfp_server: KfpServer, command: Command, file: Path, capsys: pytest.CaptureFixture[str]
):
    assert command("apply", str(file)) == 0
    options = ("--images-uri", "gs://bucket/dog", "--placeholder-token", "<dog>", "--initializer-token", "auto")
    assert command("submit", *options) == 0
    (failed,) = kfp_server.runs.values()
    failed["state"] = "FAILED"
    kfp_server.set_workflow(failed["run_id"], [node("train", "Failed", message="main: Error (exit code 5): no luck")])
    by_name = {each["display_name"]: each for each in kfp_server.recurring_runs.values()}
    at = "2026-11-29T04:05:06Z"
    scheduled = {**failed, "run_id": "1" * 36, "state": "SUCCEEDED", "scheduled_at": at, "created_at": at}
    scheduled["recurring_run_id"] = by_name["cat"]["recurring_run_id"]
    scheduled["runtime_config"] = {"parameters": {"placeholder_token": "<cat>"}}
    kfp_server.runs["1" * 36] = scheduled
    capsys.readouterr()
    assert command("status", "--concepts", str(file)) == 1
    header, cat, dog, reason, cow, unknown, legend = lines_of(capsys)
    assert header == "CONCEPT SCHEDULE NEXT LAST RUN CHAMPION CLIP-I CLIP-T LATEST"
    assert cat == "cat every 1d 11-30 04:05 11-29 04:05 succeeded 2 0.812 +0.062 0.240 -0.010 3 ~-0.015 ~+0.020"
    tomorrow = datetime.datetime.now(datetime.UTC)
    tomorrow += datetime.timedelta(days=tomorrow.hour >= 3)
    assert dog == f"dog 0 0 3 * * * {tomorrow:%m-%d} 03:00 11-29 03:00 failed - - - -"
    assert reason == "Train: no luck"
    assert cow == "cow - - - - - - -" and unknown.startswith("registry: the file gives no storage_uri")
    assert legend.startswith("times in UTC")


@pytest.mark.usefixtures("versions")
def test_what_is_not_reached_is_said_and_the_rest_is_shown(
    kfp_server: KfpServer, command: Command, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    kfp_server.token = "another"
    alias = tmp_path / "storage" / "registry" / "dog" / "aliases" / "champion.json"
    alias.parent.mkdir(parents=True)
    alias.write_text("damaged", encoding="utf-8")
    assert command("status", "--concepts", str(file), "--json") == 6
    captured = capsys.readouterr()
    assert "log in again" in captured.err
    told = json.loads(captured.out)
    assert "log in again" in told["cluster_problem"]
    cat, dog = told["concepts"]["cat"], told["concepts"]["dog"]
    assert (cat["schedule"], cat["next_run"], cat["last_run"]) == ("every 1d", None, None)
    assert cat["champion"]["version"] == 2 and cat["champion"]["moved"]["clip_i"] == pytest.approx(0.0625)
    assert cat["latest"]["compared_with"] == 2 and cat["latest"]["is_of_the_same"] is False
    assert dog["champion"] is None and str(alias) in dog["registry_problem"]


def test_schedule_that_is_not_as_the_file_says_is_told(
    kfp_server: KfpServer, command: Command, file: Path, capsys: pytest.CaptureFixture[str]
):
    assert command("apply", str(file)) == 0
    for each in kfp_server.recurring_runs.values():
        if each["display_name"] == "cat":
            each["status"] = "DISABLED"
        else:
            each["trigger"] = {"cron_schedule": {"cron": "0 0 4 * * *"}}
    text = file.read_text(encoding="utf-8").replace("gs://bucket/cow", "gs://bucket/cow\n    schedule: {every: 2w}")
    file.write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert command("status", "--concepts", str(file)) == 0
    _, _, off, _, differs, _, missing, *_ = lines_of(capsys)
    assert off == "schedule: it is turned off"
    assert differs == "schedule: the file says 0 0 3 * * *; `apply` makes it so"
    assert missing == "schedule: it is in the file alone; `apply` makes it"


@pytest.mark.parametrize("more", [("cats",), ("--watch",)])
def test_status_of_a_fleet_takes_no_run(
    kfp_server: KfpServer, command: Command, file: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
):
    assert command("status", *more, "--concepts", str(file)) == 2
    assert command("status", "--json") == 2
    assert "--json: found it without --concepts" in capsys.readouterr().err
    assert not kfp_server.requests

"""The boundary around a step: one line for what went wrong, in the log and where Kubernetes looks for it."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest

from components.common import cli
from components.common.cli import step_boundary, tell_event
from components.common.errors import ConfigError, InterruptedTraining, StorageError


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that Kubernetes puts into a pod, empty."""
    file = tmp_path / "termination-log"
    file.touch()
    monkeypatch.setattr(cli, "TERMINATION_LOG", file)
    return file


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (
            ConfigError("resolution: found 33, expected a multiple of 8"),
            2,
            "resolution: found 33, expected a multiple of 8",
        ),
        (ConfigError("a: found 1", "b: found 2"), 2, "a: found 1; b: found 2"),
        (StorageError("gs://bucket: no\nsuch  bucket"), 4, "gs://bucket: no such bucket"),
        (InterruptedTraining("SIGTERM: step 355 is kept"), 143, "SIGTERM: step 355 is kept"),
    ],
)
def test_reason_of_a_failure_is_left_where_kubernetes_looks(
    termination_log: Path, error: Exception, code: int, reason: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped, step_boundary("step"):
        raise error
    assert stopped.value.code == code
    assert termination_log.read_text() == reason
    event = json.loads(capsys.readouterr().out)
    assert event.pop("reason").split() == reason.split()
    assert event == {"event": "textual-inversion.step-failed", "step": "step", "exit_code": code}


def test_event_is_one_line_without_secrets(
    termination_log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_a_secret_of_somebody")
    tell_event("result", {"concept": "cat\n\u202e", "promotion": "hf_a_secret_of_somebody"})
    line = capsys.readouterr().out
    assert line.isascii() and line.count("\n") == 1
    assert json.loads(line) == {"event": "textual-inversion.result", "concept": "cat\n\u202e", "promotion": "***"}


def test_each_mistake_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture):
    with pytest.raises(SystemExit), step_boundary("step"):
        raise ConfigError("a: found 1", "b: found 2", "a: found 1")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "a: found 1",
        "b: found 2",
    ]


def test_error_that_nobody_expected_leaves_its_last_line_and_goes_on(termination_log: Path):
    with pytest.raises(ZeroDivisionError), step_boundary("step"):
        raise ZeroDivisionError("the brush\nbroke")
    assert termination_log.read_text() == "ZeroDivisionError: the brush broke"


def test_success_leaves_no_reason(termination_log: Path):
    with step_boundary("step"):
        pass
    assert termination_log.read_text() == ""


def test_long_reason_is_cut_at_what_kubernetes_keeps_and_stays_text(termination_log: Path):
    with pytest.raises(SystemExit), step_boundary("step"):
        raise ConfigError("ä" * 5000)
    assert termination_log.read_bytes().decode() == "ä" * 2048


def test_where_there_is_no_pod_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cli, "TERMINATION_LOG", tmp_path / "absent")
    with pytest.raises(SystemExit), step_boundary("step"):
        raise ConfigError("a: found 1")
    assert not (tmp_path / "absent").exists() and capsys.readouterr().out == ""


def test_log_that_cannot_be_written_does_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "folder"
    folder.mkdir(mode=stat.S_IRWXU)
    monkeypatch.setattr(cli, "TERMINATION_LOG", folder)
    with pytest.raises(SystemExit) as stopped, step_boundary("step"):
        raise ConfigError("a: found 1")
    assert stopped.value.code == 2
    assert "a: found 1" in caplog.text and "could not be left" in caplog.text

"""An output that nobody reads, or that was never open: the work goes on, and its log has everything."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.trainings import REPOSITORY, kept_steps
from tests.hostile.stoppable_training import STEPS, learn
from tests.hostile.test_signals import goes_on

PYTHON = [sys.executable, "-m"]
CLOSED = {
    "read for a line": "2>&1 | head -n 1",
    "never read": "2>&1 | true",
    "error never read": "2>&1 >/dev/null | true",
    "error on a full disk": "2>/dev/full",
    "output closed": ">&-",
    "error closed": "2>&-",
    "both closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
}
"""What a shell makes of a command's standard streams."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run prints that nothing disturbs."""
    return f"[{learn(str(tmp_path_factory.mktemp('whole')))}]"


def in_shell(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of this repository that has ended, whose exit code is the last line of the output."""
    script = f'exec 9>&1; {{ "$@" 9>&-; echo $? >&9; }} {redirection}'
    return subprocess.run(
        ["sh", "-c", script, "sh", *PYTHON, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("redirection", CLOSED.values(), ids=CLOSED.keys())
def test_run_goes_on_to_its_end_and_its_log_is_whole(redirection: str, tmp_path: Path) -> None:
    done = in_shell(redirection, "tests.hostile.stoppable_run", str(tmp_path), "talkative")
    assert done.stdout.splitlines()[-1] == "0"
    assert "Error" not in done.stdout + done.stderr
    log = (tmp_path / "out" / "run.log").read_text()
    assert "    line 19999\n" in log
    assert "Pipeline 'stoppable' finished with status SUCCESS\n" in log


@pytest.mark.parametrize("redirection", CLOSED.values(), ids=CLOSED.keys())
def test_training_goes_on_to_its_end(redirection: str, tmp_path: Path) -> None:
    done = in_shell(redirection, "tests.hostile.stoppable_training", str(tmp_path), "0.01")
    assert done.stdout.splitlines()[-1] == "0"
    assert "Error" not in done.stdout + done.stderr
    assert kept_steps(tmp_path)[-1] == STEPS


@pytest.mark.parametrize("redirection", ["2>&1 | true", ">&-"], ids=["never read", "closed"])
def test_command_line_ends_well(redirection: str, tmp_path: Path) -> None:
    done = in_shell(redirection, "pipelines.cli", "compile", "--out", str(tmp_path))
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")


def test_result_that_a_full_disk_has_lost_is_no_success(tmp_path: Path) -> None:
    done = in_shell(">/dev/full", "pipelines.cli", "compile", "--out", str(tmp_path))
    assert done.stdout.splitlines()[-1] != "0"
    assert "No space left on device" in done.stderr


def test_log_of_a_run_is_whole_when_the_disk_of_its_output_is_full(tmp_path: Path) -> None:
    in_shell(">/dev/full", "tests.hostile.stoppable_run", str(tmp_path), "talkative")
    log = (tmp_path / "out" / "run.log").read_text()
    assert "    line 19999\n" in log
    assert "Pipeline 'stoppable' finished with status SUCCESS\n" in log


def test_run_whose_terminal_is_closed_stops_in_order(tmp_path: Path, learned: str) -> None:
    number, terminal = pty.fork()
    if number == 0:
        os.chdir(REPOSITORY)
        os.execv(sys.executable, [*PYTHON, "tests.hostile.stoppable_run", str(tmp_path), "plain"])
    shown = b""
    while b" step  3/" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(number, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    log = (tmp_path / "out" / "run.log").read_text()
    kept = kept_steps(tmp_path)[-1]
    assert "SIGHUP: stopping; Practise keeps what it can" in log
    assert f"SIGTERM after step {kept} of {STEPS}; kept as" in log
    assert f"resuming after step {kept} " in goes_on(tmp_path, "plain", learned)

"""Killed without warning, at any moment, and started again: the outcome is bit-identical."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.trainings import REPOSITORY

KILLS = 12


def start(*arguments: str) -> subprocess.Popen[str]:
    """A bowl's training as a process."""
    command = [sys.executable, "-m", "tests.faults.bowl_process", *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a bowl's training."""
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a training that nothing disturbs."""
    code, digest, errors = run(str(tmp_path_factory.mktemp("whole")))
    assert code == 0, errors
    return digest


def test_outcome_is_same_when_killed_between_any_two_file_operations(
    tmp_path: Path, uninterrupted: str, count_faults: Callable[[int, str], None]
) -> None:
    number, tried = 1, 0
    while True:
        root = str(tmp_path / str(number))
        code, digest, _ = run(root, "--die-at", str(number))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        tried += 1
        code, digest, errors = run(root)
        assert code == 0, errors
        assert digest == uninterrupted, f"killed before file operation {number}"
        number += 1
    assert digest == uninterrupted
    assert tried > 20
    count_faults(tried, "kills of the loop between two file operations")


def test_outcome_is_same_when_killed_again_and_again(
    tmp_path: Path, uninterrupted: str, count_faults: Callable[[int, str], None]
) -> None:
    moments = random.Random(0)
    for kill in range(KILLS):
        root = str(tmp_path / str(kill))
        process = start(root, "--seconds-a-step", "0.05")
        time.sleep(moments.uniform(0.2, 2.0))  # the moment of the kill: anywhere from imports to the last step
        process.kill()
        process.communicate()
        code, digest, errors = run(root)
        assert code == 0, errors
        assert digest == uninterrupted
    count_faults(KILLS, "kills of the loop at random moments")

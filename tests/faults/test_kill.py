"""Killed without warning, at any moment, and started again: the outcome is bit-identical."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import finish, run, start

BOWL = "tests.faults.bowl_process"
KILLS = 12


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a training that nothing disturbs."""
    code, digest, errors = run(BOWL, str(tmp_path_factory.mktemp("whole")))
    assert code == 0, errors
    return digest


def test_outcome_is_same_when_killed_between_any_two_file_operations(tmp_path: Path, uninterrupted: str) -> None:
    number, tried = 1, 0
    while True:
        root = str(tmp_path / str(number))
        code, digest, _ = run(BOWL, root, "--die-at", str(number))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        tried += 1
        code, digest, errors = run(BOWL, root)
        assert code == 0, errors
        assert digest == uninterrupted, f"killed before file operation {number}"
        number += 1
    assert digest == uninterrupted
    assert tried > 20
    print(f"{tried} kills between file operations")


def test_outcome_is_same_when_killed_again_and_again(tmp_path: Path, uninterrupted: str) -> None:
    moments = random.Random(0)
    for kill in range(KILLS):
        root = str(tmp_path / str(kill))
        process = start(BOWL, root, "--seconds-a-step", "0.05")
        time.sleep(moments.uniform(0.2, 2.0))  # the moment of the kill: anywhere from imports to the last step
        process.kill()
        finish(process)
        code, digest, errors = run(BOWL, root)
        assert code == 0, errors
        assert digest == uninterrupted

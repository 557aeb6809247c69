"""The trainer's command killed at any moment, or asked to end, and started again: the rows are bit-identical."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InterruptedTraining
from tests.faults.trainings import PYTHON, TRAINER, assert_same, finished, kept_steps, started, training_flags

STEPS = 90
KILLS_WHILE_STARTING = 2
KILLS_WHILE_TRAINING = 6
MOST_STEPS_BETWEEN_KILLS = 12
TERMINATIONS = 3
SECONDS_ALLOWED = 2.0
"""What KFP leaves to a step that it terminates."""


def command(inputs: Mapping[str, Path], folder: Path, **fields: Any) -> list[str]:
    """A training of `STEPS` steps with a checkpoint every 7."""
    usual = {
        "max_train_steps": STEPS,
        "train_batch_size": 2,
        "learning_rate": 0.01,
        "save_steps": 25,
        "checkpointing_steps": 7,
        "log_steps": 1,
    }
    flags = training_flags(inputs, folder / "checkpoints", folder / "learned", **{**usual, **fields})
    return [*PYTHON, *TRAINER, *flags]


@pytest.fixture(scope="module")
def uninterrupted(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The outcome of a training that nothing disturbs, and the seconds until its first step was done."""
    folder = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    with started(command(inputs, folder)) as training:
        training.wait_for(r" step +1/")
        seconds = time.monotonic() - begun
        assert training.exit_code() == 0, training.text[-3000:]
    return folder / "learned", seconds


def test_rows_are_bit_identical_when_killed_again_and_again(
    tmp_path: Path,
    inputs: dict[str, Path],
    uninterrupted: tuple[Path, float],
    count_faults: Callable[[int, str], None],
) -> None:
    whole, seconds_to_start = uninterrupted
    moments = random.Random(1)
    for kill in range(KILLS_WHILE_STARTING + KILLS_WHILE_TRAINING):
        with started(command(inputs, tmp_path)) as training:
            if kill < KILLS_WHILE_STARTING:
                time.sleep(moments.uniform(0, seconds_to_start))  # the moment of the kill
            else:
                training.wait_for("training from the initial rows|resuming after step")
                for _ in range(moments.randrange(MOST_STEPS_BETWEEN_KILLS)):
                    training.wait_for(r" step +\d+/")
                time.sleep(moments.uniform(0, 0.1))  # the moment of the kill in a step
            assert training.process.poll() is None, training.text[-3000:]
            training.kill()
            assert training.exit_code() == -signal.SIGKILL
    count_faults(kill + 1, "kills of the trainer at random moments")

    resumed = finished(command(inputs, tmp_path))
    assert "resuming after step" in resumed.text
    assert_same(tmp_path / "learned", whole)

    again = finished(command(inputs, tmp_path))
    assert f"nothing to train: all {STEPS} steps" in again.text
    assert not re.search(r" step +\d+/", again.text)
    assert_same(tmp_path / "learned", whole)


def test_last_completed_step_is_kept_within_two_seconds_when_terminated(
    tmp_path: Path,
    inputs: dict[str, Path],
    uninterrupted: tuple[Path, float],
    count_faults: Callable[[int, str], None],
) -> None:
    whole, _ = uninterrupted
    moments = random.Random(2)
    kept = 0
    for _ in range(TERMINATIONS):
        with started(command(inputs, tmp_path, checkpointing_steps=STEPS)) as training:
            if kept:
                training.wait_for(rf"resuming after step {kept} ")
            training.wait_for(rf" step +{kept + 5}/")
            time.sleep(moments.uniform(0, 0.1))  # the moment in a step
            seconds = training.exit_seconds()
            assert training.exit_code() == InterruptedTraining.exit_code
        printed = [int(step) for step in re.findall(r" step +(\d+)/", training.text)]
        kept = int(re.findall(rf"SIGTERM after step (\d+) of {STEPS}; kept as", training.text)[0])
        print(f"terminated after step {kept}, gone in {seconds:.2f} s")
        assert seconds < SECONDS_ALLOWED
        assert kept >= printed[-1] - 1  # one more may be completed while the last is written
        assert kept_steps(tmp_path)[-1] == kept
        assert not (tmp_path / "learned").exists()
    count_faults(TERMINATIONS, "SIGTERMs to the trainer in a step")

    finished(command(inputs, tmp_path, checkpointing_steps=STEPS))
    assert_same(tmp_path / "learned", whole)

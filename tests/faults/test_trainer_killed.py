"""The trainer's command killed at any moment, or asked to end, and started again: the rows are bit-identical."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import signal
import subprocess
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """A training that nothing disturbed: its outcome, and the seconds from its start to its first step and its end."""

    learned: Path
    to_first_step: float
    to_end: float


@pytest.fixture(scope="module")
def whole(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The training that all others have to equal."""
    folder = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    with started(command(inputs, folder)) as training:
        training.wait_for(r" step +1/")
        to_first_step = time.monotonic() - begun
        assert training.exit_code() == 0, training.text[-3000:]
    return Whole(learned=folder / "learned", to_first_step=to_first_step, to_end=time.monotonic() - begun)


@pytest.mark.timeout(1200)  # as long as a busy machine needs: every kill waits for a share of a whole training
def test_rows_are_bit_identical_when_killed_again_and_again(
    tmp_path: Path, inputs: dict[str, Path], whole: Whole, count_faults: Callable[[int, str], None]
) -> None:
    moments = random.Random(1)
    kills, runs = 0, 0
    while kills < KILLS_WHILE_STARTING + KILLS_WHILE_TRAINING:
        starting = kills < KILLS_WHILE_STARTING
        between = (0.0, whole.to_first_step) if starting else (0.0, whole.to_end - whole.to_first_step)
        with started(command(inputs, tmp_path / str(runs)), warm=not starting) as training:
            with contextlib.suppress(subprocess.TimeoutExpired):
                training.process.wait(timeout=moments.uniform(*between))
            training.kill()
            if training.exit_code() == -signal.SIGKILL:
                kills += 1
                continue
            assert training.exit_code() == 0, training.text[-3000:]  # it ended before it was killed
            assert_same(tmp_path / str(runs) / "learned", whole.learned)
            runs += 1
    count_faults(kills, "kills of the trainer at random moments")

    finished(command(inputs, tmp_path / str(runs)), warm=True)
    assert_same(tmp_path / str(runs) / "learned", whole.learned)

    again = finished(command(inputs, tmp_path / str(runs)), warm=True)
    assert f"nothing to train: all {STEPS} steps" in again.text
    assert not re.search(r" step +\d+/", again.text)
    assert_same(tmp_path / str(runs) / "learned", whole.learned)


def test_last_completed_step_is_kept_within_two_seconds_when_terminated(
    tmp_path: Path, inputs: dict[str, Path], whole: Whole, count_faults: Callable[[int, str], None]
) -> None:
    moments = random.Random(2)
    kept = 0
    for _ in range(TERMINATIONS):
        with started(command(inputs, tmp_path, checkpointing_steps=STEPS), warm=True) as training:
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

    finished(command(inputs, tmp_path, checkpointing_steps=STEPS), warm=True)
    assert_same(tmp_path / "learned", whole.learned)

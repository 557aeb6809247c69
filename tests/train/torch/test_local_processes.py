"""The step that trains by several processes of its pod; processes on the CPU stand for those of the GPUs."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from components.common.artifacts import LearnedEmbedding
from components.common.cli import TIMINGS_VARIABLE
from components.common.errors import InterruptedTraining
from components.common.training.config import TrainConfig
from components.train.command import TrainingCommand
from components.train.torch.local_processes import train_on_every_gpu
from tests.faults.trainings import kept_steps, started, trajectory

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
STEP = """
from components.common.cli import step_boundary
from components.train.command import parse_training_flags
from components.train.torch.local_processes import train_on_every_gpu

with step_boundary("train"):
    train_on_every_gpu(parse_training_flags(None), 2)
"""
"""The step's body in a process of its own, whose main thread answers signals."""


def command(inputs: dict[str, Path], folder: Path, **changes: object) -> TrainingCommand:
    fields = {
        "train_batch_size": 2,
        "max_train_steps": 4,
        "learning_rate": 0.01,
        "save_steps": 1,
        "checkpointing_steps": 2,
        "log_steps": 1,
    }
    return TrainingCommand(
        config=TrainConfig(**{**fields, **changes}),
        **{name: str(path) for name, path in inputs.items()},
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        framework="torch",
        output=str(folder / "learned"),
    )


def step(asked: TrainingCommand) -> list[str]:
    return [sys.executable, "-c", STEP, *asked.arguments()]


def test_two_processes_learn_what_one_does(sd15_inputs: dict[str, Path], tmp_path: Path) -> None:
    timings = tmp_path / "timings"
    two = command(sd15_inputs, tmp_path / "two", train_batch_size=1)
    with started(step(two), {**ONE_THREAD, TIMINGS_VARIABLE: str(timings)}) as training:
        assert training.exit_code() == 0, training.text
    assert "x 2 processes" in training.text
    assert training.text.count(" step 4/4 ") == 1, "rank 0 alone logs"
    assert [json.loads(line)["step"] for line in timings.read_text().splitlines()] == ["train"]

    several = LearnedEmbedding.read(tmp_path / "two" / "learned")
    (alone,) = train_on_every_gpu(command(sd15_inputs, tmp_path / "one"))
    expected, found = trajectory(alone), trajectory(several)
    movement = np.linalg.norm(expected[-1] - expected[0])
    difference = np.linalg.norm(found - expected, axis=(1, 2)).max()
    assert movement > 0.1
    assert difference / movement < 1e-3
    np.testing.assert_allclose(several.losses, alone.losses, rtol=1e-3)
    assert several.training_key == alone.training_key


def test_last_step_is_kept_when_the_step_is_terminated(sd15_inputs: dict[str, Path], tmp_path: Path) -> None:
    asked = command(sd15_inputs, tmp_path, max_train_steps=10_000, checkpointing_steps=10_000)
    with started(step(asked), ONE_THREAD) as training:
        training.wait_for(" step +3/")
        seconds = training.exit_seconds()
        assert training.exit_code() == InterruptedTraining.exit_code
    print(f"step of two processes terminated: gone in {seconds:.2f} s")
    (kept,) = kept_steps(tmp_path)
    assert kept >= 3
    assert "stopped: SIGTERM: 2 processes were asked to stop" in training.lines[-1]


def test_error_of_a_process_is_the_last_line_and_the_exit_code_of_the_step(
    sd15_inputs: dict[str, Path], tmp_path: Path
) -> None:
    asked = command(sd15_inputs, tmp_path, resume_from_checkpoint="step-00000007.safetensors")
    with started(step(asked), ONE_THREAD) as training:
        code = training.exit_code()
    assert code == 4
    assert " ERROR process " in training.lines[-1]
    assert "step-00000007.safetensors" in training.lines[-1]


def test_killed_process_is_told_of_and_not_those_that_lost_it(sd15_inputs: dict[str, Path], tmp_path: Path) -> None:
    asked = command(sd15_inputs, tmp_path, max_train_steps=10_000, checkpointing_steps=10_000)
    with started(step(asked), ONE_THREAD) as training:
        training.wait_for(" step +2/")
        os.kill(training.worker(1), signal.SIGKILL)
        assert training.exit_code() == 128 + signal.SIGKILL
    assert " ERROR process 1: Signal 9 (SIGKILL)" in training.lines[-1]
    assert kept_steps(tmp_path)

"""One training by one process, by `accelerate launch` and by `torchrun`: the same code, and the same run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ConfigError
from tests.faults.distributed_process import PROFILED_STEPS, gradients
from tests.faults.trainings import (
    PROGRAMS,
    PYTHON,
    TRAINER,
    Watched,
    assert_same,
    finished,
    kept_steps,
    started,
    training_flags,
    trajectory,
)
from tests.servers import free_ports

GLOBAL_BATCH = 4
STEPS = 20
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""What both launchers set where it is not set: sums are rounded alike only on the same number of threads."""
TORCHRUN = (str(PROGRAMS / "torchrun"), "--standalone", "--nproc-per-node", "2")
ACCELERATE = (str(PROGRAMS / "accelerate"), "launch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A training that has ended well: its learned embedding, checkpoints and lines."""

    folder: Path
    text: str

    @property
    def learned(self) -> LearnedEmbedding:
        return LearnedEmbedding.read(self.folder / "learned")


def flags(inputs: Mapping[str, Path], folder: Path, processes: int, **changes: Any) -> list[str]:
    """The trainer's flags with which every number of processes has the same global batch and learning rate."""
    fields = {
        "max_train_steps": STEPS,
        "train_batch_size": GLOBAL_BATCH // processes,
        "learning_rate": 0.0025,
        "scale_lr": True,
        "save_steps": 1,
        "checkpointing_steps": 4,
        "log_steps": 1,
    }
    return training_flags(inputs, folder / "checkpoints", folder / "learned", **{**fields, **changes})


@contextlib.contextmanager
def pods(*flags_of_each: list[str], per_node: int) -> Iterator[list[Watched]]:
    """The pods of a TrainJob: torchrun, with the variables that Kubeflow Trainer's torch runtime sets."""
    (port,) = free_ports(1)
    environment = {
        **ONE_THREAD,
        "PET_NNODES": str(len(flags_of_each)),
        "PET_NPROC_PER_NODE": str(per_node),
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                started([str(PROGRAMS / "torchrun"), *TRAINER, *own], {**environment, "PET_NODE_RANK": str(rank)})
            )
            for rank, own in enumerate(flags_of_each)
        ]


@pytest.fixture(scope="module")
def one(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The training by one process, started as a plain command."""
    folder = tmp_path_factory.mktemp("one")
    training = finished([*PYTHON, *TRAINER, *flags(inputs, folder, 1)], ONE_THREAD)
    return Ended(folder=folder, text=training.text)


@pytest.fixture(scope="module")
def two(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The training by two processes of `accelerate launch`."""
    folder = tmp_path_factory.mktemp("two")
    (port,) = free_ports(1)
    launch = [*ACCELERATE, "--multi_gpu", "--num_processes=2", f"--main_process_port={port}"]
    training = finished([*launch, *TRAINER, *flags(inputs, folder, 2)], ONE_THREAD)
    return Ended(folder=folder, text=training.text)


@pytest.fixture(scope="module")
def four(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The training by the pods of a TrainJob, two with two processes each."""
    folder = tmp_path_factory.mktemp("four")
    same = flags(inputs, folder, 4)
    with pods(same, same, per_node=2) as (first, second):
        assert first.exit_code() == 0, first.text[-3000:]
        assert second.exit_code() == 0, second.text[-3000:]
    return Ended(folder=folder, text=first.text)


@pytest.mark.parametrize("processes", ["one", "two", "four"])
def test_numbers_are_written_once_by_the_first_process(processes: str, request: pytest.FixtureRequest):
    ended: Ended = request.getfixturevalue(processes)
    kept = ended.folder / "checkpoints" / ended.learned.training_key
    lines = [json.loads(line) for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([line["loss"] for line in lines], ended.learned.losses, rtol=1e-6)
    (events,) = (kept / "tensorboard").iterdir()
    shown = EventAccumulator(str(events)).Reload().Scalars("loss")
    assert [point.step for point in shown] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("processes", ["two", "four"])
def test_rows_move_alike_when_processes_share_the_batch(
    one: Ended, processes: str, request: pytest.FixtureRequest
) -> None:
    several: Ended = request.getfixturevalue(processes)
    expected, found = trajectory(one.learned), trajectory(several.learned)
    movement = np.linalg.norm(expected[-1] - expected[0])
    difference = np.linalg.norm(found - expected, axis=(1, 2)).max()

    print(f"{processes} processes: rows differ by {difference / movement:.1e} of their movement")
    assert movement > 0.5
    assert 0 < difference / movement < 1e-3
    np.testing.assert_allclose(several.learned.losses, one.learned.losses, rtol=1e-3)
    assert several.learned.training_key == one.learned.training_key


def test_learning_rate_is_scaled_by_the_batch_of_all_processes(one: Ended, two: Ended, four: Ended) -> None:
    said = "global batch 4 = {} x 1 accumulated x {} processes; learning rate 1.00e-02"
    for ended, batch_size, processes in ((one, 4, 1), (two, 2, 2), (four, 1, 4)):
        assert ended.text.count(said.format(batch_size, processes)) == 1
        assert len(re.findall(r" step +20/20 .* lr 1.00e-02 ", ended.text)) == 1


@pytest.mark.parametrize("processes", [2, 4])
def test_gradients_are_equal_and_nothing_else_is_sent(
    processes: int, one: Ended, inputs: dict[str, Path], tmp_path: Path
) -> None:
    rows = trajectory(one.learned)[:-1]
    np.save(tmp_path / "rows.npy", rows)
    places = [str(inputs[name]) for name in ("latent_set", "base_model", "initial_embedding")]
    arguments = [str(tmp_path / "rows.npy"), str(tmp_path), str(GLOBAL_BATCH // processes), *places]
    launch = (str(PROGRAMS / "torchrun"), "--standalone", f"--nproc-per-node={processes}")
    finished([*launch, "-m", "tests.faults.distributed_process", *arguments], ONE_THREAD)

    expected, found = gradients(rows, inputs, GLOBAL_BATCH), np.load(tmp_path / "gradients.npy")
    errors = np.linalg.norm(found - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))
    print(f"{processes} processes: gradients of {len(errors)} steps differ by at most {errors.max():.1e}")
    assert len(errors) == STEPS
    assert errors.max() < 1e-5

    step = [["gloo:all_reduce", [[rows[0].size + 1]]]]  # the rows' gradient, and the loss
    for rank in range(processes):
        sent = json.loads((tmp_path / f"collectives-{rank}.json").read_text())
        by_gloo = [event for event in sent if event[0].startswith("gloo:")]
        assert by_gloo[-PROFILED_STEPS:] == step * PROFILED_STEPS
        assert [name for name, _ in by_gloo[:-PROFILED_STEPS]] == ["gloo:all_gather"]  # the step to begin with
        assert sum(name.startswith("c10d::") for name, _ in sent) == len(by_gloo)


def test_survivor_keeps_last_step_when_process_is_killed(
    two: Ended, inputs: dict[str, Path], tmp_path: Path, count_faults: Callable[[int, str], None]
) -> None:
    command = [*TORCHRUN, *TRAINER, *flags(inputs, tmp_path, 2, checkpointing_steps=STEPS)]
    with started(command, ONE_THREAD) as killed:
        killed.wait_for(" step +6/")
        os.kill(killed.worker(1), signal.SIGKILL)
        assert killed.exit_code() == 1
    kept = int(re.findall(rf"(?:a lost process|SIGTERM) after step (\d+) of {STEPS}; kept as", killed.text)[0])
    assert kept >= 6
    assert kept_steps(tmp_path) == [kept]

    with started(command, ONE_THREAD) as terminated:
        terminated.wait_for(f"resuming after step {kept} ")
        terminated.wait_for(f" step +{kept + 3}/")
        seconds = terminated.exit_seconds()
        assert terminated.exit_code() == 1  # torchrun's own; its processes end with 143
    print(f"torchrun terminated: gone in {seconds:.2f} s")
    assert kept_steps(tmp_path)[-1] >= kept + 3
    assert not (tmp_path / "learned").exists()
    count_faults(2, "one of two processes killed, or both terminated")

    finished(command, ONE_THREAD)
    assert_same(tmp_path / "learned", two.folder / "learned")


def test_processes_are_refused_when_they_share_no_checkpoints(
    two: Ended, inputs: dict[str, Path], tmp_path: Path, count_faults: Callable[[int, str], None]
) -> None:
    shutil.copytree(two.folder / "checkpoints", tmp_path / "0" / "checkpoints")
    with pods(flags(inputs, tmp_path / "0", 2), flags(inputs, tmp_path / "1", 2), per_node=1) as trainings:
        for training in trainings:
            assert training.exit_code() != 0
            assert "the processes found different checkpoints: after step 20, 0 by rank" in training.text
    assert not kept_steps(tmp_path / "1")
    count_faults(1, "two pods, each with checkpoints of its own")


def test_configuration_of_accelerate_is_honoured(inputs: dict[str, Path], tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path / "home"), **ONE_THREAD}
    write = "from accelerate.utils import write_basic_config; write_basic_config(mixed_precision='bf16')"
    finished([*PYTHON, "-c", write], home)
    plain = [flag for flag in flags(inputs, tmp_path, 1, max_train_steps=1) if not flag.startswith("--accelerator")]
    training = finished([*ACCELERATE, *TRAINER, *plain], home)
    assert "loaded unet: 13.5 M parameters, torch.bfloat16" in training.text
    assert LearnedEmbedding.read(tmp_path / "learned").config["mixed_precision"] == "bf16"


def test_launch_is_refused_when_accelerate_starts_too_few_processes(inputs: dict[str, Path], tmp_path: Path) -> None:
    launch = [*ACCELERATE, "--cpu", "--num_processes=2"]
    with started([*launch, *TRAINER, *flags(inputs, tmp_path, 2)], ONE_THREAD) as training:
        assert training.exit_code() == 1
    assert "accelerate was asked for several processes and started one" in training.text
    assert f"returned non-zero exit status {ConfigError.exit_code}" in training.text

"""A process for each GPU of a step's pod: a pipeline starts one, and torch's own launcher starts the others from it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

from components.common.artifacts import LearnedEmbedding
from components.common.cli import TIMINGS_VARIABLE
from components.common.errors import InterruptedTraining, TrainingError
from components.common.words import word_folders
from components.train.command import TrainingCommand
from components.train.train import train_words

MONITOR_SECONDS = 1.0
"""How often the launcher looks for a process that has failed: each time it walks through the modules of Python."""


def train_on_every_gpu(command: TrainingCommand, num_processes: int = 0) -> tuple[LearnedEmbedding, ...]:
    """The learned embedding of each word, written to `command.output` by one process for each GPU that is here.

    Args:
        command: what to train.
        num_processes: how many processes train, each on a device of its own where that is a GPU; 0 takes one for each
            GPU with accelerator `gpu`, and one elsewhere. One trains in this process.

    Raises:
        TextualInversionError: whatever the trainer raises, when it trains in this process.
        InterruptedTraining: when the processes were asked to stop; they have kept the last completed step.
        TrainingError: when a process failed; has the message and the exit code of the first that did.
    """
    if not num_processes:
        num_processes = torch.cuda.device_count() if command.accelerator == "gpu" else 1
    if num_processes > 1:
        _launch(command.arguments(), num_processes)
        return tuple(LearnedEmbedding.read(folder) for folder in word_folders(Path(command.output)))
    return command.run(train_words)


def _launch(arguments: Sequence[str], num_processes: int) -> None:
    timings = os.environ.pop(TIMINGS_VARIABLE, None)  # the step tells its duration, and not each process again
    try:
        with tempfile.TemporaryDirectory(prefix="textual-inversion-") as errors:
            launcher = ["--standalone", f"--nproc-per-node={num_processes}", f"--monitor-interval={MONITOR_SECONDS}"]
            run(parse_args([*launcher, f"--log-dir={errors}", "-m", "components.train", *arguments]))
    except SignalException as stop:
        raise InterruptedTraining(f"{stop.sigval.name}: {num_processes} processes were asked to stop") from stop
    except ChildFailedError as error:
        raise _error_of(error.failures) from error
    finally:
        if timings is not None:
            os.environ[TIMINGS_VARIABLE] = timings


def _error_of(failures: Mapping[int, ProcessFailure]) -> TrainingError:
    """The error of the process that failed first, as its message and exit code tell it; a signal's is that of a shell.

    One that was killed says nothing, and the others soon that they have lost it: it goes before them. Last come those
    that the launcher itself has terminated then.
    """

    def when(failure: ProcessFailure) -> tuple[bool, bool, int]:
        return failure.exitcode == -signal.SIGTERM, _said(failure) is not None, failure.timestamp

    rank, failure = min(failures.items(), key=lambda each: when(each[1]))
    error = TrainingError(f"process {rank}: {_said(failure) or failure.message}")
    error.exit_code = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return error


def _said(failure: ProcessFailure) -> str | None:
    """What the process has recorded before it ended; else torch knows the signal alone."""
    told = failure.error_file_data["message"]
    return told["message"] if isinstance(told, dict) else None

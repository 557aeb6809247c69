"""Trainings as processes of their own, which can be watched and killed, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.common.artifacts import LearnedEmbedding
from tests.faults.warm_python import WarmProcess

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
TRAINER = ("-m", "components.train", "--framework=torch")
PYTHON = (sys.executable,)


class Watched:
    """A process whose standard error is read line by line."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, *, warm: bool = False) -> None:
        """Starts a command; with `warm` a trainer's, `[*PYTHON, *TRAINER, ...]`, with its libraries imported."""
        self.lines: list[str] = []
        whole_env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[str] | WarmProcess
        if warm:
            _, _, module, *arguments = command
            self.process = WarmProcess(module, arguments, cwd=REPOSITORY, env=whole_env)
        else:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=whole_env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of `pattern` in a line that has not been read yet; fails when the process ends without."""
        for line in self._read():
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line with {pattern!r} before the end:\n{self.text[-3000:]}")

    def exit_code(self) -> int:
        """What the process ends with, all its lines read."""
        for _ in self._read():
            continue
        return self.process.wait()

    def kill(self) -> None:
        """Ends the process and all that it started, without warning."""
        if self.process.poll() is None:
            for number in (self.process.pid, *_descendants(self.process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        self.process.wait()

    def exit_seconds(self) -> float:
        """Asks the process to end, as Kubernetes does; gives the seconds until it has."""
        asked = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        return time.monotonic() - asked

    def worker(self, rank: int) -> int:
        """The process number of the worker of this rank, when the process is a launcher."""
        for number in _descendants(self.process.pid):
            if f"\0RANK={rank}\0" in Path(f"/proc/{number}/environ").read_text():
                return number
        raise AssertionError(f"no worker of rank {rank} below process {self.process.pid}")

    @property
    def text(self) -> str:
        """All that was read."""
        return "".join(self.lines)

    def _read(self) -> Iterator[str]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            yield line


def _descendants(number: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    return [*children, *(below for child in children for below in _descendants(child))]


@contextlib.contextmanager
def started(command: Sequence[str], env: Mapping[str, str] | None = None, *, warm: bool = False) -> Iterator[Watched]:
    """A process that is gone at the end, with all that it started."""
    watched = Watched(command, env, warm=warm)
    try:
        yield watched
    finally:
        watched.kill()
        assert watched.process.stderr is not None
        watched.process.stderr.close()


def finished(command: Sequence[str], env: Mapping[str, str] | None = None, *, warm: bool = False) -> Watched:
    """A process that has ended well."""
    with started(command, env, warm=warm) as watched:
        code = watched.exit_code()
    assert code == 0, watched.text[-3000:]
    return watched


def training_flags(inputs: Mapping[str, Path], root: str | Path, output: Path, **fields: Any) -> list[str]:
    """The trainer's command line on the CPU, with these fields of its configuration."""
    places = {**inputs, "checkpoint_root": root, "output": output, "accelerator": "cpu"}
    return [f"--{name.replace('_', '-')}={value}" for name, value in {**places, **fields}.items()]


def assert_same(found: Path, expected: Path) -> None:
    """Two learned embeddings are equal bit by bit: rows, losses, and snapshots on the way."""
    ours, theirs = LearnedEmbedding.read(found), LearnedEmbedding.read(expected)
    assert ours.steps == theirs.steps
    np.testing.assert_array_equal(ours.losses, theirs.losses)
    np.testing.assert_array_equal(trajectory(ours), trajectory(theirs))


def trajectory(learned: LearnedEmbedding) -> np.ndarray:
    """The rows at the start, at every snapshot and at the end: float32 [k, n, d]."""
    parts = (learned.initial_rows, *(snapshot.rows for snapshot in learned.snapshots), learned.rows)
    return np.stack([rows["text_encoder"] for rows in parts])


def kept_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a local checkpoint root."""
    return sorted(int(re.findall(r"step-(\d+)", file.name)[0]) for file in folder.rglob("step-*.safetensors"))

"""Every process of a run hears the signal: whatever the signal, its moment and its receiver, and if it comes twice."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from components.common.errors import InterruptedTraining
from tests.faults.trainings import PROGRAMS, PYTHON, REPOSITORY, kept_steps, training_flags
from tests.faults.trainings import started as watched
from tests.hostile.stoppable_training import STEPS, learn
from tests.train.torch import test_local_processes as processes
from tests.train.torch.conftest import make_inputs

MARK = "STOPPABLE_RUN_MARK"
MOMENTS = {
    "first-step": ("slow", r"^    painting"),
    "between-steps": ("plain", r"^    .* done in"),
    "training": ("plain", r" step +3/"),
}
"""By name: the manner of the run, and the line after which the signal is sent."""
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
STOPPING = "stopping; {} keeps what it can; again to stop at once"


class Run:
    """A local run as a process, the leader of a group and a session, whose output is read line by line."""

    def __init__(self, command: Sequence[str]) -> None:
        self.mark, self.lines = uuid.uuid4().hex, list[str]()
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, pattern: str) -> None:
        """Returns when a line with `pattern` has come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if re.search(pattern, line):
                return
        raise AssertionError(f"no line with {pattern!r} before the end:\n{self.text}")

    def signal(self, number: signal.Signals, receiver: str) -> None:
        """Sends the signal to the command's process alone, or to its whole group."""
        if receiver == "group":
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self) -> int:
        """The exit code, when all is read and no process is left."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.readlines()
        code = self.process.wait()
        assert self.left() == []
        assert "Traceback" not in self.text, self.text
        return code

    def left(self) -> list[str]:
        """The command lines of the processes of this run that are there still."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                if f"{MARK}={self.mark}\0".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    def kill(self) -> None:
        """Ends the command without warning."""
        self.process.kill()

    @property
    def text(self) -> str:
        """All that was read."""
        return "".join(self.lines)


@contextlib.contextmanager
def ran(command: Sequence[str]) -> Iterator[Run]:
    """A run that is gone at the end."""
    run = Run(command)
    try:
        yield run
    finally:
        run.kill()
        run.process.wait()
        assert run.process.stdout is not None
        run.process.stdout.close()


def started(folder: Path, manner: str, *prefix: str) -> contextlib.AbstractContextManager[Run]:
    """A run of three quick steps, see `stoppable_run`."""
    return ran([*prefix, *PYTHON, "-m", "tests.hostile.stoppable_run", str(folder), manner])


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run prints that nothing disturbs."""
    return f"[{learn(str(tmp_path_factory.mktemp('whole')))}]"


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """Lets processes hear the signals that these tests were started to ignore, as in a script's background."""
    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def goes_on(folder: Path, manner: str, learned: str) -> str:
    """The output of the same command, which ends well and gives the same."""
    with started(folder, manner) as again:
        assert again.end() == 0, again.text
    assert again.lines[-1].strip() == learned
    return again.text


@pytest.mark.parametrize(("receiver", "times"), [("command", 1), ("group", 1), ("group", 2)])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_run_stops_in_order_and_goes_on(
    tmp_path: Path, learned: str, number: signal.Signals, moment: str, receiver: str, times: int
) -> None:
    manner, pattern = MOMENTS[moment]
    with started(tmp_path, manner) as run:
        run.wait_for(pattern)
        for _ in range(times):
            run.signal(number, receiver)
        assert run.end() == 128 + number
    assert run.lines[-1] == f"stopped by {number.name}; the same command goes on where this one stopped\n"
    log = (tmp_path / "out" / "run.log").read_text()
    if moment == "first-step":
        told = f"{number.name}: {STOPPING.format('Paint')}\n"
        assert told in run.lines and told in log
    if moment != "training":
        assert kept_steps(tmp_path) == []
        return
    assert f"{number.name}: {STOPPING.format('Practise')}\n" in run.lines
    seen = int(re.findall(r" step +(\d+)/", run.text)[-1])
    ((name, kept),) = re.findall(rf"(\w+) after step (\d+) of {STEPS}; kept as", run.text)
    assert name == "SIGTERM" and int(kept) >= seen - 1 and kept_steps(tmp_path)[-1] == int(kept)
    assert f"SIGTERM after step {kept} of {STEPS}" in log
    assert f"resuming after step {kept} " in goes_on(tmp_path, manner, learned)


@pytest.mark.parametrize("receiver", ["command", "group"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_second_signal_ends_a_step_that_does_not_listen(tmp_path: Path, number: signal.Signals, receiver: str) -> None:
    with started(tmp_path, "deaf") as run:
        run.wait_for(r"^    painting")
        run.signal(number, receiver)
        run.wait_for("again to stop at once")
        run.signal(number, receiver)  # the same request still
        time.sleep(1.2)
        assert run.process.poll() is None
        asked = time.monotonic()
        run.signal(number, receiver)
        assert run.end() == 128 + number
    assert time.monotonic() - asked < 5


def test_second_signal_loses_no_step_of_a_process_in_a_session_of_its_own(tmp_path: Path, learned: str) -> None:
    with started(tmp_path, "apart") as run:
        run.wait_for(r" step +3/")
        run.signal(signal.SIGINT, "group")
        run.wait_for("again to stop at once")
        time.sleep(1.2)
        run.signal(signal.SIGINT, "group")
        assert run.end() == 130
    (kept,) = re.findall(rf"SIGTERM after step (\d+) of {STEPS}; kept as", run.text)
    assert f"resuming after step {kept} " in goes_on(tmp_path, "apart", learned)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_trainer_keeps_its_last_step_on_every_signal(tmp_path: Path, number: signal.Signals, times: int) -> None:
    with watched([*PYTHON, "-m", "tests.hostile.stoppable_training", str(tmp_path), "0.05"]) as training:
        training.wait_for(r" step +3/")
        for _ in range(times):
            training.process.send_signal(number)
        assert training.exit_code() == InterruptedTraining.exit_code
    assert "Traceback" not in training.text
    ((name, kept),) = re.findall(rf"(\w+) after step (\d+) of {STEPS}; kept as", training.text)
    assert name == number.name and kept_steps(tmp_path)[-1] == int(kept) >= 3


@pytest.fixture(scope="module")
def inputs(sd15_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifacts of a training of two vectors, as keyword arguments of the trainer."""
    return make_inputs(tmp_path_factory.mktemp("inputs"), sd15_reference, num_vectors=2)


LONG = {"max_train_steps": 10_000, "checkpointing_steps": 10_000, "train_batch_size": 2, "log_steps": 1}


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_trainer_of_each_framework_keeps_its_last_step_when_its_terminal_goes(
    tmp_path: Path, inputs: dict[str, Path], framework: str
) -> None:
    flags = training_flags(inputs, tmp_path / "checkpoints", tmp_path / "learned", **LONG)
    command = [*PYTHON, "-m", "components.train", f"--framework={framework}", *flags]
    with watched(command, {"XLA_FLAGS": "--xla_backend_optimization_level=0"}) as training:
        training.wait_for(r" step +3/")
        training.process.send_signal(signal.SIGHUP)
        assert training.exit_code() == InterruptedTraining.exit_code
    (kept,) = re.findall(r"SIGHUP after step (\d+) of 10000; kept as", training.text)
    assert kept_steps(tmp_path)[-1] == int(kept) >= 3


def test_processes_of_a_step_keep_their_last_step_when_its_terminal_goes(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    asked = processes.command(inputs, tmp_path, **LONG)
    with watched(processes.step(asked), processes.ONE_THREAD) as training:
        training.wait_for(r" step +3/")
        training.process.send_signal(signal.SIGHUP)
        assert training.exit_code() == InterruptedTraining.exit_code
    (kept,) = kept_steps(tmp_path)
    assert kept >= 3
    assert "stopped: SIGHUP: 2 processes were asked to stop" in training.lines[-1]


@pytest.mark.parametrize("manner", ["plain", "apart"])
def test_step_of_a_run_that_was_killed_keeps_its_last_step_and_ends(tmp_path: Path, learned: str, manner: str) -> None:
    with started(tmp_path, manner) as run:
        run.wait_for(r" step +3/")
        run.kill()
        run.process.wait()
        deadline = time.monotonic() + 10
        while run.left() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert run.left() == []
    kept = kept_steps(tmp_path)[-1]
    assert kept < STEPS
    assert f"resuming after step {kept} " in goes_on(tmp_path, manner, learned)


def test_step_of_a_run_that_was_killed_while_it_painted_ends(tmp_path: Path) -> None:
    with started(tmp_path, "slow") as run:
        run.wait_for(r"^    painting")
        run.kill()
        run.process.wait()
        deadline = time.monotonic() + 10
        while run.left() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert run.left() == []


def test_run_below_nohup_outlives_its_terminal(tmp_path: Path, learned: str) -> None:
    with started(tmp_path, "plain", "nohup") as run:
        run.wait_for(r" step +3/")
        run.signal(signal.SIGHUP, "group")
        assert run.end() == 0
    assert run.lines[-1].strip() == learned


def test_run_that_timeout_ends_keeps_its_last_step(tmp_path: Path, learned: str) -> None:
    with started(tmp_path, "plain", "timeout", "3600") as run:
        run.wait_for(r" step +3/")
        run.signal(signal.SIGTERM, "command")
        run.end()
    ((_, kept),) = re.findall(rf"(\w+) after step (\d+) of {STEPS}; kept as", run.text)
    assert f"resuming after step {kept} " in goes_on(tmp_path, "plain", learned)


def test_demo_below_make_is_stopped_and_then_ends_well(tmp_path: Path) -> None:
    (tmp_path / "ready").touch()
    more = "--log-steps 1 --evaluation-images-per-prompt 1 --evaluation-num-inference-steps 2"
    demo = [
        *("make", "demo", f"BIN={PROGRAMS}", f"READY={tmp_path / 'ready'}", f"OUT={tmp_path / 'out'}", "STEPS=40"),
        f"ARGS={more} --evaluation-prompts 'a photo of a {{}}' --evaluation-min-clip-i-gain=-1",
    ]
    with ran(demo) as run:
        run.wait_for(r" step +3/")
        run.signal(signal.SIGTERM, "group")  # so the command gets it twice: make passes it on
        assert run.end() != 0
    assert "textual-inversion: stopped by SIGTERM; the same command goes on where" in run.text
    assert f"SIGTERM: {STOPPING.format('Train')}\n" in run.lines
    (kept,) = re.findall(r"SIGTERM after step (\d+) of 40; kept as", run.text)
    assert kept_steps(tmp_path)[-1] == int(kept) >= 3
    with ran(demo) as run:
        assert run.end() == 0, run.text
    assert f"resuming after step {kept} " in run.text
    assert "Prepare pictures\n    reused" in run.text
    assert (tmp_path / "out" / "summary.json").is_file()

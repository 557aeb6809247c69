"""The processes of a local run's steps: each in a session of its own, asked to stop when the run is, gone with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from kfp.local import subprocess_task_handler

from components.common.cli import RUN_IS_STDIN_VARIABLE
from components.common.errors import StoppedRun
from components.common.training.stopping import hearing_stop_signals
from pipelines.step_log import StepLog

SAME_SECONDS = 1.0
"""A signal so soon after the first is the same request: `timeout` and make signal a process, and its group as well."""


class StepProcesses:
    """Starts the steps of one run, and stops the one that runs on a signal: in order, and at once on a second one.

    The step alone gets the run's signals from here: it is not in the group to which a terminal sends its own.
    """

    def __init__(self, log: StepLog) -> None:
        """Runs nothing yet; `log` is told what is waited for."""
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def of_kfp(self) -> Iterator[None]:
        """While the block runs, `kfp.local` (2.17) starts its steps here, and signals are heard.

        Raises:
            StoppedRun: when a signal was heard, after the step that ran has ended.
        """
        before = subprocess_task_handler.run_local_subprocess
        subprocess_task_handler.run_local_subprocess = self.run
        try:
            with hearing_stop_signals(self._hear):
                yield
        finally:
            subprocess_task_handler.run_local_subprocess = before
        self._check()

    def run(self, full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        """The exit code of a step's command, whose output is printed as it comes, standard error with it.

        Raises:
            StoppedRun: when a signal was heard before, or the command did not end well after one.
        """
        with self._lock:
            self._check()
            process = self._process = subprocess.Popen(
                full_command,
                env={**os.environ, **(env_vars or {}), RUN_IS_STDIN_VARIABLE: "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="backslashreplace",
                start_new_session=True,
            )
        assert process.stdout is not None
        with process:
            try:
                for line in process.stdout:
                    print(line, end="")
            except BaseException:
                self._signal_group(signal.SIGKILL)
                raise
        if process.returncode:
            self._check()
        return process.returncode

    def _hear(self, number: signal.Signals) -> None:
        with self._lock:
            if self._asked is None:
                self._asked, self._asked_at = number, time.monotonic()
                if self._runs:
                    self._log.say(
                        f"{number.name}: stopping; {self._log.running} keeps what it can; again to stop at once"
                    )
                    self._signal_group(signal.SIGTERM)
            elif self._runs and time.monotonic() - self._asked_at > SAME_SECONDS:
                self._log.say(f"{number.name}: stopping at once")
                self._signal_group(signal.SIGKILL)

    @property
    def _runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def _signal_group(self, number: signal.Signals) -> None:
        """Signals the step that runs, with all that it started in its session; after SIGKILL what is elsewhere, too."""
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(ProcessLookupError):  # all of them have just ended
            os.killpg(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.stdin.close()  # torch's launcher gives each process that trains a session of its own

    def _check(self) -> None:
        if self._asked is not None:
            raise StoppedRun(
                f"stopped by {self._asked.name}; the same command goes on where this one stopped", self._asked
            )

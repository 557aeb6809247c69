"""What a person sees of a local run: the steps' own lines as they come, without the runner's bookkeeping."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping
from typing import TextIO

from components.common.printable import printable

_RUNNER_LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - \w+ - (?P<message>.*)")
_EXECUTING = re.compile(r"Executing task '(?P<task>[^']+)'")
_FINISHED = re.compile(r"Task '(?P<task>[^']+)' finished with status (?P<status>\w+)")
_REUSED = re.compile(r"Task (?P<task>\S+) cache hit")
_EXECUTOR_RECORD = re.compile(r"\[KFP Executor \S+ [\d:]+,\d+ \w+\]: (?P<message>.*)")
_RECORD = re.compile(r"\d\d:\d\d:\d\d (?P<level>[A-Z]+ )?(?P<message>.*)")
_BOOKKEEPING = (
    "Looking for component ",
    "Loading KFP component ",
    "Got executor_input:",
    "Wrote executor output",
    "Did not",
)
_COLOUR = re.compile(r"\x1b\[\d+m")
_INDENT = "    "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A step that failed, and what it said is wrong, a line for each mistake."""

    task: str
    message: str


class StepLog(io.TextIOBase):
    """A text stream for everything that `kfp.local` (2.17) prints.

    All of it goes to `full_log`, each line as `printable` gives it; `screen` gets each step's title and the lines that
    the step wrote. What it does not recognise while a step runs it shows.

    Args:
        full_log: an open text file.
        screen: an open text stream, such as standard output.
        titles: what to call a task, by its name.
    """

    def __init__(self, *, full_log: TextIO, screen: TextIO, titles: Mapping[str, str]) -> None:
        self.failures: list[Failure] = []
        self.reused: list[str] = []
        self._full_log, self._screen, self._titles = full_log, screen, titles
        self._unfinished_line = ""
        self._task: str | None = None
        self._in_executor_input = self._in_traceback = False
        self._last_line = ""
        self._errors: list[str] = []

    def writable(self) -> bool:
        """True: this stream is written to."""
        return True

    def write(self, text: str) -> int:
        """The number of characters taken: all of `text`."""
        *lines, self._unfinished_line = (self._unfinished_line + _COLOUR.sub("", text)).split("\n")
        for line in map(printable, lines):
            self._full_log.write(f"{line}\n")
            self._take(line.rstrip())
        return len(text)

    def flush(self) -> None:
        """Flushes both streams."""
        self._full_log.flush()
        self._screen.flush()

    @property
    def running(self) -> str:
        """The title of the step that runs; empty when none does."""
        return "" if self._task is None else self._title(self._task)

    def say(self, line: str) -> None:
        """Writes a line of the run itself to both streams; any thread may call it."""
        self._full_log.write(f"{line}\n")
        self._show(line)

    def _take(self, line: str) -> None:
        runner_line = _RUNNER_LINE.fullmatch(line)
        if runner_line:
            self._take_from_runner(runner_line["message"])
        elif self._task is not None:
            self._take_from_step(line.removeprefix(_INDENT))

    def _take_from_runner(self, message: str) -> None:
        if started := _EXECUTING.match(message):
            self._task = started["task"]
            self._last_line, self._errors = "", []
            self._show(f"\n{self._title(self._task)}")
        elif finished := _FINISHED.match(message):
            self._task = None
            if finished["status"] == "FAILURE":
                said = "\n".join(self._errors) or self._last_line or "it ended without a word; see the log"
                self.failures.append(Failure(task=finished["task"], message=said))
        elif reused := _REUSED.match(message):
            self.reused.append(reused["task"])
            self._show(f"\n{self._title(reused['task'])}\n{_INDENT}reused: the same step ran before on the same inputs")

    def _take_from_step(self, line: str) -> None:
        if self._in_executor_input:
            self._in_executor_input = line != "}"
        elif executor := _EXECUTOR_RECORD.fullmatch(line):
            self._in_executor_input = executor["message"].startswith("Got executor_input:")
            self._take_words(executor["message"], "", line)
        elif record := _RECORD.fullmatch(line):
            self._take_words(record["message"], (record["level"] or "").strip(), line)
        elif line:
            self._remember(line)
            self._show(_INDENT + line)

    def _take_words(self, message: str, level: str, line: str) -> None:
        if message.startswith(_BOOKKEEPING):
            return
        self._last_line = message
        if level == "ERROR":
            self._errors.append(message)
        self._show(_INDENT + line)

    def _remember(self, line: str) -> None:
        self._last_line = line
        if line.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        elif self._in_traceback and not line.startswith(" "):
            self._errors = [line]
            self._in_traceback = False

    def _title(self, task: str) -> str:
        return self._titles.get(task, task)

    def _show(self, line: str) -> None:
        # Not print(): kfp.local replaces that built-in by an indenting one while a step runs.
        with contextlib.suppress(OSError):  # a full disk: the log has the line, too
            self._screen.write(f"{line}\n")
            self._screen.flush()

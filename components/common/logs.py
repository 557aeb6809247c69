"""One way to log for every step: plain aligned lines on standard error, rank 0 only."""

from __future__ import annotations

import errno
import importlib.metadata
import io
import json
import logging
import os
import platform
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from components.common.errors import ConfigError
from components.common.printable import masked, printable, visible

LEVEL_VARIABLE = "TEXTUAL_INVERSION_LOG_LEVEL"
"""Environment variable that says from which level on this project's own records are shown."""

_LINE = 90
"""Characters of a line, its time left out, that the pages of Kubeflow Pipelines show: they do not wrap."""


class _OwnLines(logging.Formatter):
    """`09:15:02 loss .103 ...`: the time and the message; the level where it is no plain information.

    A message is one line, whatever it quotes: none can pass for two.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        record.message = printable(record.getMessage())
        text = f"{self.formatTime(record, '%H:%M:%S')} {level}{record.message}"
        return f"{text}\n{visible(masked(self.formatException(record.exc_info)))}" if record.exc_info else text


class _Outliving(io.FileIO):
    """A file that drops what is written when its reader is gone."""

    def write(self, data: Any) -> int:
        """See `io.FileIO.write`."""
        try:
            return super().write(data)
        except OSError as error:
            if self._is_loss(error):
                raise
            return len(data)

    def _is_loss(self, error: OSError) -> bool:
        return error.errno not in (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal


class _Log(_Outliving):
    """The same, which also drops what its disk has no room for: nothing ends because a log cannot be written."""

    def _is_loss(self, error: OSError) -> bool:
        return False


def open_log(file: Path) -> TextIO:
    """A text stream to a file made anew, whose lines are in it at once, as far as there is room; writing never raises.

    Raises:
        OSError: when the file cannot be made.
    """
    return _lines(_Log(file, "w"), "utf-8")


def outlive_readers() -> None:
    """From now on standard output and standard error can be written to also when their reader is gone.

    So work goes on after `| head`, or stops in order when the terminal is closed. What has replaced them already, such
    as a test's capture, stays.
    """
    for name, kind in (("stdout", _Outliving), ("stderr", _Log)):
        stream = getattr(sys, name)
        if stream is None:  # closed from the start: the null device takes its number, lest a file of ours does
            setattr(sys, name, _lines(kind(os.open(os.devnull, os.O_WRONLY), "w"), "utf-8"))
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            setattr(sys, name, _lines(kind(stream.fileno(), "w", closefd=False), stream.encoding))


def _lines(raw: io.FileIO, encoding: str) -> TextIO:
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True)


def configure_logging(*, rank: int = 0) -> None:
    """Sends records of INFO and above (WARNING and above on ranks other than 0) to standard error.

    A program around the step may log already: its handlers stay and write their lines in this form, too. Kubeflow
    Pipelines' own has 45 characters before each line, and its pages do not wrap lines.

    Raises:
        ConfigError: when `LEVEL_VARIABLE` is no level.
    """
    outlive_readers()
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_OwnLines())
    project_level = os.environ.get(LEVEL_VARIABLE, logging.getLevelName(level))
    if project_level not in logging.getLevelNamesMapping():
        raise ConfigError(
            f"{LEVEL_VARIABLE}: found {project_level!r}, expected one of {', '.join(logging.getLevelNamesMapping())}"
        )
    for package in ("components", "pipelines"):
        logging.getLogger(package).setLevel(project_level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when it is imported: it tells what it falls back to
    for chatty in ("httpx", "urllib3", "botocore", "google"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    sys.excepthook = _show_uncaught


def _show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible(masked("".join(traceback.format_exception(kind, error, trace)))))


def log_config(logger: logging.Logger, values: Mapping[str, Any]) -> None:
    """Logs a configuration: as many values to a line as a page that does not wrap shows, `config` before each."""
    line = "config"
    for name, value in values.items():
        pair = f" {name}={json.dumps(value, ensure_ascii=False)}"
        if len(line) + len(pair) > _LINE and line != "config":
            logger.info("%s", line)
            line = "config"
        line += pair
    logger.info("%s", line)


def versions(packages: Iterable[str]) -> str:
    """Names and versions of Python and of the installed ones among `packages`, for the first line of a log."""
    found = [f"python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} absent")
    return ", ".join(found)


def human_duration(seconds: float) -> str:
    """A duration as a person says it: `12.3 s`, `4 min 05 s`, `1 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"

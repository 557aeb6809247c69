"""One way to log for every step: plain aligned lines on standard error, rank 0 only."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import sys
from collections.abc import Iterable

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure_logging(*, rank: int = 0) -> None:
    """Sends records of INFO and above (WARNING and above on ranks other than 0) to standard error.

    Calling it again changes nothing but the level: a step may be started inside a process that logs already.
    """
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level, format=_FORMAT, datefmt="%H:%M:%S", stream=sys.stderr)
    project_level = os.environ.get("TEXTUAL_INVERSION_LOG_LEVEL", logging.getLevelName(level))
    for package in ("components", "pipelines"):
        logging.getLogger(package).setLevel(project_level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when it is imported: it tells what it falls back to
    for chatty in ("httpx", "urllib3", "botocore", "google"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


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

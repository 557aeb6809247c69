"""Lines that tell how far a long transfer is."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping

from components.common.base_model import human_size

logger = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
"""A line at least this often while a large file is on its way."""


class Progress:
    """A context that logs each finished file, and every `HEARTBEAT_S` what is still on its way."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._total = sum(sizes.values())
        self._done: list[str] = []
        self._open: list[str] = []
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="import progress", daemon=True)

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        self._heartbeat.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._finished.set()
        self._heartbeat.join()

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[None]:
        """Counts the file as done when the block ends without an error."""
        with self._lock:
            self._open.append(name)
        yield
        with self._lock:
            self._open.remove(name)
            self._done.append(name)
            logger.info("%s  %s", self._line(), name)

    def _beat(self) -> None:
        while not self._finished.wait(HEARTBEAT_S):
            with self._lock:
                waiting = ", ".join(f"{name} ({human_size(self._sizes[name])})" for name in self._open)
                logger.info("%s  on its way: %s", self._line(), waiting)

    def _line(self) -> str:
        done = sum(self._sizes[name] for name in self._done)
        speed = done / max(time.monotonic() - self._started, 1e-3)
        return (
            f"{len(self._done):3d} of {len(self._sizes)} files  {human_size(done):>7s} of {human_size(self._total)}"
            f"  {human_size(speed):>7s}/s"
        )

"""When a training ends before its last step: asked to by a signal, or because its numbers are no longer finite."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import numpy as np

from components.common.artifacts import Rows
from components.common.errors import DivergedError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Kubernetes sends SIGTERM before it takes a pod away; SIGINT is Ctrl-C."""


class StopRequest:
    """Whether one of `STOP_SIGNALS` has come, and which."""

    def __init__(self) -> None:
        """Starts with no signal seen."""
        self.signal_name: str | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: remembers the signal; a second Ctrl-C ends the process at once."""
        self.signal_name = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def listening_for_stop_signals() -> Iterator[StopRequest]:
    """A `StopRequest` that hears the stop signals while the block runs; call it in the main thread."""
    request = StopRequest()
    earlier = {number: signal.signal(number, request.receive) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def check_finite(losses: np.ndarray, *, first_step: int, last_checkpoint: str | None) -> None:
    """Raises `DivergedError` when a loss (float32 [k], of the steps from `first_step` on) is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise _diverged(f"the loss of step {first_step + int(bad[0]) + 1} is {losses[bad[0]]}", last_checkpoint)


def check_finite_rows(rows: Rows, *, step: int, last_checkpoint: str | None) -> None:
    """Raises `DivergedError` when a row holds NaN or infinity after `step` steps."""
    for name, values in rows.items():
        if not np.isfinite(values).all():
            raise _diverged(f"the rows of {name} are not finite after step {step}", last_checkpoint)


def _diverged(what: str, last_checkpoint: str | None) -> DivergedError:
    kept = f"the last good checkpoint is {last_checkpoint}" if last_checkpoint else "there is no checkpoint yet"
    return DivergedError(
        f"{what}, expected finite numbers; {kept}: lower learning_rate, or use bf16 or fp32 instead of fp16"
    )

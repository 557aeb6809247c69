"""When a training ends before its last step: asked to, because it has settled, or because a number is not finite."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import numpy as np

from components.common.artifacts import Rows
from components.common.errors import DivergedError, InterruptedTraining

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Kubernetes sends SIGTERM before it takes a pod away; SIGINT is Ctrl-C; SIGHUP says that the terminal is gone."""

SECONDS_TO_EXIT = 1.5
"""How long the last words may take: KFP kills a terminated step after about 2 seconds.

On two busy cores a process was gone 0.2 s later than that.
"""


@contextlib.contextmanager
def answering_stop_signals(last_words: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, a stop signal ends the process with `InterruptedTraining.exit_code`, after `last_words`.

    They are called with the signal's name. The process exits without them when they take longer than
    `SECONDS_TO_EXIT`. Call it in the main thread.
    """
    with hearing_stop_signals(lambda number: _exit_after(last_words, number.name)):
        yield


@contextlib.contextmanager
def hearing_stop_signals(hear: Callable[[signal.Signals], None]) -> Iterator[None]:
    """While the block runs, a stop signal does nothing but have `hear` called with it, in a thread of its own.

    The main thread may be deep in a kernel for seconds, where Python runs no signal handler. A signal that the process
    was started to ignore, as by `nohup`, stays ignored. After one was heard the process is about to end, and hears no
    more. Call it in the main thread.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    was_heard = threading.Event()

    def hear_one(number: signal.Signals) -> None:
        was_heard.set()
        hear(number)

    listener = threading.Thread(target=_listen, args=(reading, hear_one), daemon=True, name="stop-signals")
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, _leave_it_to_the_thread) for number in heard}
    earlier_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier_descriptor)
        for number, handler in earlier.items():
            signal.signal(number, signal.SIG_IGN if was_heard.is_set() else handler)
        os.close(writing)
        listener.join()
        os.close(reading)


def _leave_it_to_the_thread(number: int, frame: FrameType | None) -> None:
    """The handler in the main thread: the signal's number is on its way to the listener already."""


def _listen(reading: int, hear: Callable[[signal.Signals], None]) -> None:
    while number := os.read(reading, 1):
        if number[0] in STOP_SIGNALS:
            hear(signal.Signals(number[0]))


def _exit_after(last_words: Callable[[str], None], name: str) -> None:
    deadline = threading.Timer(SECONDS_TO_EXIT, os._exit, [InterruptedTraining.exit_code])
    deadline.daemon = True
    deadline.start()
    try:
        last_words(name)
    finally:
        os._exit(InterruptedTraining.exit_code)


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


def has_settled(fixed_batch_losses: np.ndarray, *, window: int, ratio: float, min_gain: float) -> bool:
    """Whether the loss of a fixed batch, float32 [1 + looks], has fallen and stopped falling.

    The DVAR criterion of Voronov et al. 2023 (arXiv 2302.04841, section 4): the variance of the last `window` looks is
    less than `ratio` of the variance of all. The first loss is that of the initial rows: the mean of the window has to
    be below it by the share `min_gain`, since a training may rest before it learns anything.
    """
    initial, looks = fixed_batch_losses[:1], fixed_batch_losses[1:]
    if len(looks) < window:
        return False
    latest = looks[-window:]
    return bool(np.var(latest) < ratio * np.var(looks) and latest.mean() <= (1 - min_gain) * initial[0])

"""Log lines for a training loop: step, running loss, learning rate, speed and the time that is left."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

_SMOOTHING = 0.99


class Progress:
    """Keeps the losses of one training run and logs a line every `every` steps."""

    def __init__(self, name: str, *, steps: int, every: int) -> None:
        """Starts the clock."""
        self.name, self.steps, self.every = name, steps, every
        self.losses: list[float] = []
        self._average: float | None = None
        self._start = time.monotonic()

    def record(self, loss: float, lr: float) -> None:
        """Takes the loss of the step that has just been made."""
        self.losses.append(loss)
        self._average = loss if self._average is None else _SMOOTHING * self._average + (1 - _SMOOTHING) * loss
        done = len(self.losses)
        if done % self.every == 0 or done == self.steps:
            per_step = (time.monotonic() - self._start) / done
            logger.info(
                "%-4s step %5d/%d  loss %.4f  lr %.1e  %.2f s/step  eta %.1f min",
                *(self.name, done, self.steps, self._average, lr, per_step, per_step * (self.steps - done) / 60),
            )

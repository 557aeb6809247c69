"""Weights & Biases, by its own library: `WANDB_API_KEY`, `WANDB_PROJECT` and `WANDB_MODE` are read by it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from components.common.training.metrics import Metrics
from components.train.trackers.tracking import PROJECT, Tracked


class WandbTracker:
    """A run of the training's own, which one that goes on continues."""

    def __init__(self, tracked: Tracked) -> None:
        """Begins the run."""
        import wandb

        self._picture = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=tracked.training_key[:32],
            name=tracked.placeholder_token,
            config=dict(tracked.config),
            resume="allow",
        )

    def begin(self, progress: Sequence[Metrics]) -> None:
        """See `Tracker`: what the service has of steps that are taken again stays, since it takes each step once."""

    def log(self, line: Metrics) -> None:
        """See `Tracker`."""
        numbers = line.known()
        self._run.log(numbers, step=int(numbers.pop("step")))

    def show(self, pictures: Sequence[np.ndarray], step: int) -> None:
        """See `Tracker`; a preview may be finished after later lines, so that it has its step beside it."""
        self._run.log({"preview": [self._picture(pixels, caption=f"step {step}") for pixels in pictures]})

    def keep(self) -> None:
        """See `Tracker`: the library sends by itself."""

    def end(self) -> None:
        """See `Tracker`."""
        self._run.finish()

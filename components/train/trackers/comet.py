"""Comet, by its own library: `COMET_API_KEY` and `COMET_PROJECT_NAME` are read by it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from components.common.training.metrics import Metrics
from components.train.trackers.tracking import PROJECT, Tracked


class CometTracker:
    """An experiment of the training's own, which one that goes on continues."""

    def __init__(self, tracked: Tracked) -> None:
        """Begins the experiment."""
        import comet_ml

        self._experiment = comet_ml.start(
            project_name=os.environ.get("COMET_PROJECT_NAME", PROJECT),
            experiment_key=tracked.training_key[:32],
            mode="get_or_create",
        )
        self._experiment.set_name(tracked.placeholder_token)
        self._experiment.log_parameters(dict(tracked.config))

    def begin(self, progress: Sequence[Metrics]) -> None:
        """See `Tracker`: what the service has of steps that are taken again is written over by step."""

    def log(self, line: Metrics) -> None:
        """See `Tracker`."""
        numbers = line.known()
        step = int(numbers.pop("step"))
        self._experiment.log_metrics(numbers, step=step)

    def show(self, pictures: Sequence[np.ndarray], step: int) -> None:
        """See `Tracker`."""
        for number, pixels in enumerate(pictures):
            self._experiment.log_image(pixels, name=f"preview-{number}", step=step)

    def keep(self) -> None:
        """See `Tracker`: the library sends by itself."""

    def end(self) -> None:
        """See `Tracker`."""
        self._experiment.end()

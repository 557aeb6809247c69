"""What a tracker is, and all that are asked for as one that never stops a training."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from components.common.errors import ConfigError
from components.common.storage import ObjectStore
from components.common.training.metrics import Metrics
from components.common.training.watch_config import ALL_TRACKERS, NO_TRACKER, TRACKERS, WatchConfig

logger = logging.getLogger(__name__)

PROJECT = "textual-inversion"
"""What the trainings are filed under where the service's own variable names nothing else."""
_SECRETS = {"wandb": "WANDB_API_KEY", "comet_ml": "COMET_API_KEY"}
"""The environment variable from which each tracker's library reads whose the curves are."""
_WANDB_MODES_OF_NOBODY = ("offline", "disabled")


class Tracker(Protocol):
    """Draws a training's curves."""

    def begin(self, progress: Sequence[Metrics]) -> None:
        """The training begins, or goes on after these lines, which an earlier process may have shown already."""

    def log(self, line: Metrics) -> None:
        """The numbers of a progress line."""

    def show(self, pictures: Sequence[np.ndarray], step: int) -> None:
        """Pictures, uint8 [H, W, 3] each, of the rows after `step` steps."""

    def keep(self) -> None:
        """What was drawn so far is to outlive this process."""

    def end(self) -> None:
        """Nothing comes any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracked:
    """The training that is drawn.

    Attributes:
        training_key: the digest that names it; the run of one that goes on is the run of before.
        config: its configuration, for the record.
        placeholder_token: the word that is learned.
        store: the checkpoint root.
        logging_dir: where event files go; empty for beside the checkpoints.
    """

    training_key: str
    config: Mapping[str, Any]
    placeholder_token: str
    store: ObjectStore
    logging_dir: str


def wanted_trackers(config: WatchConfig) -> tuple[str, ...]:
    """The names of the trackers that are asked for, each of which can be used here.

    Raises:
        ConfigError: when one is not installed, or would not know whose the curves are.
    """
    if config.report_to == NO_TRACKER:
        return ()
    if config.report_to == ALL_TRACKERS:
        return tuple(name for name in TRACKERS if name not in _SECRETS or _is_installed(name))
    if config.report_to in _SECRETS:
        _check(config.report_to)
    return (config.report_to,)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _check(name: str) -> None:
    secret = _SECRETS[name]
    if not _is_installed(name):
        raise ConfigError(
            f"report_to: found {name}, but the package {name} is not installed here, as in none of this release's "
            f"images: add it to requirements.in of the image that trains and set the secret {secret} in the step's "
            "environment, or choose tensorboard or none"
        )
    offline = name == "wandb" and os.environ.get("WANDB_MODE") in _WANDB_MODES_OF_NOBODY
    if not os.environ.get(secret) and not offline:
        raise ConfigError(
            f"report_to: found {name}, but no {secret} in the environment, from which it reads whose the curves are: "
            "set it from a secret, or choose tensorboard or none"
        )


class Trackers:
    """All trackers of a training: one that fails is told once, and is left out from then on."""

    def __init__(self, names: Sequence[str], tracked: Tracked) -> None:
        """Starts them."""
        self._trackers: dict[str, Tracker] = {}
        for name in names:
            with self._left_out_if_it_fails(name):
                self._trackers[name] = _MAKERS[name](tracked)

    def begin(self, progress: Sequence[Metrics]) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.begin(progress))

    def log(self, line: Metrics) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.log(line))

    def show(self, pictures: Sequence[np.ndarray], step: int) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.show(pictures, step))

    def keep(self) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.keep())

    def end(self) -> None:
        """See `Tracker`."""
        self._each(lambda tracker: tracker.end())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._left_out_if_it_fails(name):
                call(tracker)

    @contextlib.contextmanager
    def _left_out_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a tracker's library raises, the training is worth more
            self._trackers.pop(name, None)
            logger.warning("%s is left out from here on, the training goes on: %s", name, error)


def _tensorboard(tracked: Tracked) -> Tracker:
    from components.train.trackers.tensorboard import TensorBoardTracker

    return TensorBoardTracker(tracked)


def _wandb(tracked: Tracked) -> Tracker:
    from components.train.trackers.weights_and_biases import WandbTracker

    return WandbTracker(tracked)


def _comet(tracked: Tracked) -> Tracker:
    from components.train.trackers.comet import CometTracker

    return CometTracker(tracked)


_MAKERS: dict[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "comet_ml": _comet,
}

"""A trainer on a bowl: rows roll towards a target by momentum and noise, so that a lost or doubled step shows.

It is a real implementation of the loop's `Trainer` protocol in numpy: fast, and exactly reproducible.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.common.storage import open_store
from components.common.training.checkpoints import Checkpoint, CheckpointFolder, TrainingState
from components.common.training.config import TrainConfig
from components.common.training.loop import Watcher, train
from components.common.training.sampling_plan import Batch, SamplingPlan

ENCODER = "text_encoder"


class Device:
    """What a bowl is computed on: so many steps behind the host, unless the host waits for it."""

    def __init__(self, behind: int) -> None:
        """Takes the steps that it is behind."""
        self.behind, self.finished = behind, 0

    def start(self, step: int) -> None:
        """The host asks for one more step, its `step`-th."""
        self.wait_for(step - self.behind)

    def wait_for(self, step: int) -> None:
        """Returns when so many steps are finished."""
        self.finished = max(self.finished, step)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BowlState:
    """A copy of a bowl's state with some losses, after so many steps on a device."""

    state: TrainingState
    losses: np.ndarray
    device: Device
    started: int

    def done(self) -> bool:
        """Whether the device has come this far."""
        return self.device.finished >= self.started

    def read(self) -> tuple[TrainingState, np.ndarray]:
        """The state and the losses."""
        self.device.wait_for(self.started)
        return self.state, self.losses


class BowlTrainer:
    """Rows [2, 3]; the loss is the mean squared distance of rows + the batch's noise to a target."""

    def __init__(
        self, *, diverges_at: int | None = None, terminates_at: int | None = None, device_behind: int = 0
    ) -> None:
        """Optionally gives a NaN loss, or sends SIGTERM to itself, in the step of that number (from 0)."""
        self.rows = np.zeros((2, 3), np.float32)
        self.first, self.second = np.zeros_like(self.rows), np.zeros_like(self.rows)
        self.steps_taken = 0
        self.looked_at: set[int] = set()
        self.most_copies = 0
        self._copies: weakref.WeakSet[BowlState] = weakref.WeakSet()
        self._device = Device(device_behind)
        self._diverges_at, self._terminates_at = diverges_at, terminates_at

    def step(self, batch: Batch, learning_rate: float) -> Any:
        """One step of momentum and squared gradients."""
        noise = batch.diffusion_noise.reshape(len(batch), -1)[:, :6].mean(axis=0).reshape(2, 3)
        gradient = self.rows - 1.0 + 0.1 * noise
        self.first = np.float32(0.9) * self.first + np.float32(0.1) * gradient
        self.second = np.float32(0.99) * self.second + np.float32(0.01) * gradient**2
        self.rows = self.rows - np.float32(learning_rate) * self.first / (np.sqrt(self.second) + np.float32(1e-3))
        self.steps_taken += 1
        self._device.start(self.steps_taken)
        if batch.step == self._terminates_at:
            os.kill(os.getpid(), signal.SIGTERM)
            while True:  # a step that takes for ever
                time.sleep(1)
        return np.float32(np.nan) if batch.step == self._diverges_at else np.float32((gradient**2).mean())

    def loss_of(self, batch: Batch) -> Any:
        """The mean squared distance of the rows to the target."""
        self.looked_at.add(batch.step)
        return np.float32(((self.rows - 1.0) ** 2).mean())

    def copy_state(self, step: int, losses: Sequence[Any]) -> BowlState:
        """A copy of the state."""
        parts = {"rows": self.rows, "first_moment": self.first, "second_moment": self.second}
        state = TrainingState(step=step, **{name: {ENCODER: value.copy()} for name, value in parts.items()})
        copy = BowlState(
            state=state, losses=np.array(losses, np.float32), device=self._device, started=self.steps_taken
        )
        self._copies.add(copy)
        self.most_copies = max(self.most_copies, len(self._copies))
        return copy

    def write_state(self, state: TrainingState) -> None:
        """Takes over a state."""
        self.rows, self.first, self.second = (
            part[ENCODER].copy() for part in (state.rows, state.first_moment, state.second_moment)
        )

    def memory_bytes(self) -> int:
        """What the rows take."""
        return self.rows.nbytes

    @property
    def vocabulary_norms(self) -> dict[str, float]:
        """As long as a row of the target."""
        return {ENCODER: float(np.sqrt(3))}


def bowl_config(**changes: Any) -> TrainConfig:
    """A short training with frequent checkpoints and snapshots."""
    fields = {
        "max_train_steps": 23,
        "train_batch_size": 2,
        "learning_rate": 0.05,
        "checkpointing_steps": 5,
        "save_steps": 6,
        "log_steps": 4,
    }
    return TrainConfig(**{**fields, **changes})


def bowl_plan(config: TrainConfig) -> SamplingPlan:
    """The plan of a bowl's training."""
    return SamplingPlan(
        seed=config.seed,
        num_pictures=5,
        repeats=config.repeats,
        global_batch=config.global_batch(1),
        num_templates=3,
        flip_probability=0.5,
        num_train_timesteps=1000,
        latents_shape=(4, 2, 2),
    )


def bowl_checkpoints(root: Path | str, *, total_limit: int = 0, seed: int = 0) -> CheckpointFolder:
    """The checkpoints of a bowl's training under `root`."""
    return CheckpointFolder(open_store(str(root)), {"seed": seed, "task": "bowl"}, total_limit=total_limit)


def train_bowl(
    root: Path | str, trainer: BowlTrainer | None = None, watcher: Watcher | None = None, **changes: Any
) -> Checkpoint:
    """A bowl's training with checkpoints under `root`."""
    config = bowl_config(**changes)
    folder = bowl_checkpoints(root, total_limit=config.checkpoints_total_limit, seed=config.seed)
    return train(trainer or BowlTrainer(), config=config, plan=bowl_plan(config), checkpoints=folder, watcher=watcher)


if __name__ == "__main__":
    changes = {name: json.loads(value) for name, _, value in (flag.partition("=") for flag in sys.argv[3:])}
    behind = changes.pop("device_behind", 0)
    train_bowl(sys.argv[1], BowlTrainer(terminates_at=int(sys.argv[2]), device_behind=behind), **changes)

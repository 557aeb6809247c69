"""The one training loop: plan, checkpoints, signals, snapshots and progress lines, for every framework.

A framework supplies a `Trainer`. Everything about faults is written here once: a step is done or it is not, a
checkpoint holds all that the next step needs, and a training that is started again goes on as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any, Protocol

import numpy as np

from components.common.artifacts import Snapshot
from components.common.errors import ConfigError, InterruptedTraining
from components.common.logs import human_duration
from components.common.training.checkpoints import Checkpoint, CheckpointFolder, TrainingState
from components.common.training.config import TrainConfig
from components.common.training.sampling_plan import Batch, SamplingPlan
from components.common.training.schedules import learning_rate
from components.common.training.stopping import check_finite, check_finite_rows, listening_for_stop_signals

logger = logging.getLogger(__name__)


class Trainer(Protocol):
    """What a framework supplies: one optimizer step, and its state as numpy arrays."""

    def step(self, batch: Batch, learning_rate: float) -> Any:
        """Takes one optimizer step over this process's samples; gives a handle of the global batch's mean loss.

        The handle may be a value that the device has not computed yet: nothing here waits for it.
        """

    def read_losses(self, handles: list[Any]) -> np.ndarray:
        """The losses behind the handles, float32 [k]; waits for the device."""

    def read_state(self, step: int) -> TrainingState:
        """A copy of rows and moments as they are after `step` steps; waits for the device."""

    def write_state(self, state: TrainingState) -> None:
        """Makes rows and moments those of `state`."""

    def memory_bytes(self) -> int:
        """The most memory used so far: of the device where it can tell, else of the process."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Which part of every global batch this process takes: `rank` of `num_processes`, in equal contiguous shares."""

    rank: int = 0
    num_processes: int = 1

    def positions(self, global_batch: int) -> range:
        """The positions of this process in the global batch."""
        share = global_batch // self.num_processes
        return range(self.rank * share, (self.rank + 1) * share)


def train(
    trainer: Trainer,
    *,
    config: TrainConfig,
    plan: SamplingPlan,
    checkpoints: CheckpointFolder,
    placement: Placement | None = None,
) -> Checkpoint:
    """The finished training: rows, losses of every step and snapshots; resumed where an earlier start left off.

    Raises:
        InterruptedTraining: after SIGTERM or Ctrl-C; a checkpoint of the last completed step was written.
        DivergedError: when a loss is not finite; names the step and the last good checkpoint.
        ConfigError: when `resume_from_checkpoint` names a checkpoint of another training.
        StorageError: when checkpoints cannot be written or read.
    """
    run = _Run(trainer, config, plan, checkpoints, placement or Placement())
    run.resume()
    with listening_for_stop_signals() as stop:
        while run.step < config.max_train_steps:
            run.take_step()
            if stop.signal_name:
                run.save()
                raise InterruptedTraining(
                    f"{stop.signal_name} after step {run.step} of {config.max_train_steps}; "
                    f"kept as {run.last_checkpoint}: start the same command again to go on from there"
                )
    return run.finish()


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self,
        trainer: Trainer,
        config: TrainConfig,
        plan: SamplingPlan,
        checkpoints: CheckpointFolder,
        placement: Placement,
    ) -> None:
        self._trainer, self._config, self._plan = trainer, config, plan
        self._checkpoints, self._placement = checkpoints, placement
        self._peak = config.peak_learning_rate(placement.num_processes)
        self._losses = np.zeros(0, np.float32)
        self._pending: list[Any] = []
        self._snapshots: list[Snapshot] = []
        self._saved_step: int | None = None
        self.step = 0
        self.last_checkpoint: str | None = None
        self._progress_from = (time.monotonic(), 0)

    def resume(self) -> None:
        """Goes on from the checkpoint that `resume_from_checkpoint` asks for, if there is one."""
        checkpoint = self._wanted_checkpoint()
        if checkpoint is None:
            logger.info("training from the initial rows; key %s", self._checkpoints.training_key[:12])
            return
        self._trainer.write_state(checkpoint.state)
        self.step = self._saved_step = checkpoint.state.step
        self._losses = checkpoint.losses
        self._snapshots = list(checkpoint.snapshots)
        self.last_checkpoint = self._checkpoints.uri_of(checkpoint)
        self._progress_from = (time.monotonic(), self.step)
        if self.step == self._config.max_train_steps:
            logger.info("nothing to train: all %d steps are in %s", self.step, self.last_checkpoint)
        else:
            logger.info("resuming after step %d from %s", self.step, self.last_checkpoint)

    def take_step(self) -> None:
        """One optimizer step, and what is due after it: a progress line, a snapshot, a checkpoint."""
        batch = self._plan.batch(self.step, self._placement.positions(self._plan.global_batch))
        rate = learning_rate(self._config, step=self.step, peak=self._peak)
        self._pending.append(self._trainer.step(batch, rate))
        self.step += 1
        last = self.step == self._config.max_train_steps
        if last or self.step % self._config.log_steps == 0:
            self._read_losses()
            self._log_progress(rate)
        if self.step % self._config.save_steps == 0 and not last:
            self._snapshots.append(Snapshot(step=self.step, rows=self._trainer.read_state(self.step).rows))
        if last or self.step % self._config.checkpointing_steps == 0:
            self.save()

    def save(self) -> None:
        """Writes a checkpoint of the last completed step, unless it is there already; the first process alone writes."""
        self._read_losses()
        checkpoint = self._checkpoint()
        check_finite_rows(checkpoint.state.rows, step=self.step, last_checkpoint=self.last_checkpoint)
        self.last_checkpoint = self._checkpoints.uri_of(checkpoint)
        if self._saved_step != self.step and self._placement.rank == 0:
            self._checkpoints.save(checkpoint)
        self._saved_step = self.step

    def finish(self) -> Checkpoint:
        """The finished training."""
        self._read_losses()
        return self._checkpoint()

    def _wanted_checkpoint(self) -> Checkpoint | None:
        wanted, most = self._config.resume_from_checkpoint, self._config.max_train_steps
        if wanted == "none":
            return None
        if wanted == "latest":
            return self._checkpoints.latest(at_most=most)
        checkpoint = self._checkpoints.named(wanted)
        if checkpoint.state.step > most:
            raise ConfigError(
                f"resume_from_checkpoint: {wanted} is of step {checkpoint.state.step}, after max_train_steps {most}: "
                "name an earlier checkpoint or raise max_train_steps"
            )
        return checkpoint

    def _checkpoint(self) -> Checkpoint:
        state = self._trainer.read_state(self.step)
        return Checkpoint(state=state, losses=self._losses, snapshots=tuple(self._snapshots))

    def _read_losses(self) -> None:
        if not self._pending:
            return
        losses = self._trainer.read_losses(self._pending)
        check_finite(losses, first_step=len(self._losses), last_checkpoint=self.last_checkpoint)
        self._losses = np.concatenate([self._losses, losses])
        self._pending = []

    def _log_progress(self, rate: float) -> None:
        now, total = time.monotonic(), self._config.max_train_steps
        since, first = self._progress_from
        steps_per_second = (self.step - first) / max(now - since, 1e-9)
        logger.info(
            "step %*d/%d  loss %.4f  lr %.2e  %6.1f samples/s  mem %.2f GB  eta %s",
            len(str(total)),
            self.step,
            total,
            float(self._losses[-self._config.log_steps :].mean()),
            rate,
            steps_per_second * self._plan.global_batch,
            self._trainer.memory_bytes() / 1e9,
            human_duration((total - self.step) / steps_per_second),
        )

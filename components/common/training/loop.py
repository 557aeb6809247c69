"""The one training loop: plan, checkpoints, signals, snapshots and progress lines, for every framework.

A framework supplies a `Trainer`. Everything about faults is written here once: a step is done or it is not, a
checkpoint holds all that the next step needs, and a training that is started again goes on as if it had never stopped.

Several words are several trainings whose steps are taken together. Each has its own plan, checkpoints and end, those
of the training that the word would have alone: so one that was begun or finished alone is found, and the other way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from components.common.artifacts import Rows, Snapshot
from components.common.errors import ConfigError, DivergedError, LostProcessError, TrainingError
from components.common.logs import human_duration
from components.common.storage.store import run_parallel
from components.common.training.checkpoints import Checkpoint, CheckpointFolder, TrainingState
from components.common.training.config import TrainConfig
from components.common.training.metrics import Metrics, mean_norm
from components.common.training.sampling_plan import Batch, SamplingPlan
from components.common.training.schedules import learning_rate
from components.common.training.stopping import (
    answering_stop_signals,
    check_finite,
    check_finite_rows,
    has_settled,
)

logger = logging.getLogger(__name__)

_FIXED_BATCH = 2**40
"""The step of the sampling plan that early stopping looks at: one that is never trained on."""
_NO_LOSSES = np.zeros(0, np.float32)


class StateCopy(Protocol):
    """What a trainer's state was after some step, copied on its device."""

    def done(self) -> bool:
        """Whether the device has come this far, without a failure; then `read` does not wait."""

    def read(self) -> tuple[TrainingState, np.ndarray]:
        """The state, and the losses (float32 [k]) that it was asked to keep with it; any thread may call it."""


class Trainer(Protocol):
    """What a framework supplies: one optimizer step, and its state as numpy arrays."""

    def step(self, batch: Batch, learning_rate: float) -> Any:
        """Takes one optimizer step over this process's samples; gives a handle of the global batch's mean loss.

        The handle may be a value that the device has not computed yet: nothing here waits for it.
        """

    def loss_of(self, batch: Batch) -> Any:
        """A handle of the global batch's mean loss at the rows as they are; nothing is learned from it."""

    def copy_state(self, step: int, losses: Sequence[Any]) -> StateCopy:
        """A copy of what a step changes as it is after `step` steps, with the losses behind the handles; no waiting."""

    def write_state(self, state: TrainingState) -> None:
        """Makes what a step changes that of `state`."""

    def memory_bytes(self) -> int:
        """The most memory used so far: of the device where it can tell, else of the process."""

    @property
    def vocabulary_norms(self) -> Mapping[str, float]:
        """The mean Euclidean norm of the vocabulary's token embeddings by text encoder."""


class Watcher(Protocol):
    """Who looks on, in the process of rank 0; nothing that it does changes what is learned."""

    def begin(self, progress: Sequence[Metrics]) -> None:
        """The training begins, or goes on after these lines."""

    def wants_rows(self, step: int) -> bool:
        """Whether it wants to see the rows after `step` steps, for which the loop waits for the device."""

    def see_rows(self, step: int, rows: Rows) -> None:
        """The rows after `step` steps, float32 [n, d] by text encoder."""

    def see_progress(self, line: Metrics) -> None:
        """The numbers of a progress line."""

    def see_checkpoint(self, progress: Sequence[Metrics]) -> None:
        """A checkpoint is kept, which has these lines."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One word's training.

    Attributes:
        trainer: takes its steps.
        config: how it is trained.
        plan: its samples.
        checkpoints: where they are kept.
        watcher: who looks on.
        name: what its lines in the log begin with; empty where it is the only one.
    """

    trainer: Trainer
    config: TrainConfig
    plan: SamplingPlan
    checkpoints: CheckpointFolder
    watcher: Watcher | None = None
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextStep:
    """The optimizer step that is to be taken with a trainer: this process's samples, and the learning rate."""

    trainer: Any
    batch: Batch
    learning_rate: float


TakeSteps = Callable[[Sequence[NextStep]], Sequence[Any]]
"""Takes one optimizer step with each of some trainers at once; gives what `Trainer.step` gives, in their order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Which part of every global batch this process takes: `rank` of `num_processes`, in equal contiguous shares.

    Attributes:
        rank: this process's number, from 0.
        num_processes: how many train together.
        from_all: gives the numbers that all processes call it with; each waits for the others.
    """

    rank: int = 0
    num_processes: int = 1
    from_all: Callable[[int], Sequence[int]] = lambda own: (own,)

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
    watcher: Watcher | None = None,
) -> Checkpoint:
    """The finished training: rows, losses of every step and snapshots; resumed where an earlier start left off.

    Raises:
        TrainingError, ConfigError, StorageError: as `train_together`.
    """
    training = Training(trainer=trainer, config=config, plan=plan, checkpoints=checkpoints, watcher=watcher)
    return train_together([training], take_steps=_one_by_one, placement=placement)[0]


def _one_by_one(steps: Sequence[NextStep]) -> list[Any]:
    return [step.trainer.step(step.batch, step.learning_rate) for step in steps]


def train_together(
    trainings: Sequence[Training], *, take_steps: TakeSteps, placement: Placement | None = None
) -> list[Checkpoint]:
    """The finished trainings, each with what it would be alone; one that has ended takes no part in later steps.

    SIGTERM, SIGHUP and Ctrl-C end the process, with the last completed step kept and the exit code of
    `InterruptedTraining`.

    Args:
        trainings: of which none, or each, has a name.
        take_steps: takes a step with some of their trainers.
        placement: which part of every global batch this process takes.

    Raises:
        DivergedError: when a loss is not finite; names the step and the last good checkpoint.
        LostProcessError: when another process is gone; the last completed step is kept.
        TrainingError: when not all processes found the same checkpoint.
        ConfigError: when `resume_from_checkpoint` names a checkpoint of another training.
        StorageError: when checkpoints cannot be written or read.
    """
    runs = [_Run(training, placement or Placement()) for training in trainings]
    for run in runs:
        run.resume()

    def keep_last_completed_steps(cause: str) -> None:
        run_parallel(lambda run: run.keep_last_completed_step(cause), zip(runs))

    with answering_stop_signals(keep_last_completed_steps), ThreadPoolExecutor(1) as planner:
        ahead = {run: planner.submit(run.plan_batch, run.step) for run in runs}
        try:
            while active := [run for run in runs if not run.finished]:
                steps = [run.next_step(ahead[run].result()) for run in active]
                ahead = {run: planner.submit(run.plan_batch, run.step + 1) for run in active}
                for run, step, loss in zip(active, steps, take_steps(steps), strict=True):
                    run.note_step(loss, step.learning_rate)
        except LostProcessError:
            keep_last_completed_steps("a lost process")
            raise
    return [run.checkpoint() for run in runs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _History:
    """What was read from the device: the history that a checkpoint keeps."""

    losses: np.ndarray
    fixed_batch_losses: np.ndarray
    snapshots: tuple[Snapshot, ...]
    progress: tuple[Metrics, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Completed:
    """All that is known after a step: what was read before, and the copy on the device that has the rest."""

    known: _History
    step: int
    copy: StateCopy
    num_losses: int
    is_snapshot: bool

    def checkpoint(self) -> Checkpoint:
        state, losses = self.copy.read()
        taken = (Snapshot(step=self.step, rows=state.learned),) if self.is_snapshot else ()
        return Checkpoint(
            state=state,
            losses=np.concatenate([self.known.losses, losses[: self.num_losses]]),
            fixed_batch_losses=np.concatenate([self.known.fixed_batch_losses, losses[self.num_losses :]]),
            snapshots=(*self.known.snapshots, *taken),
            progress=self.known.progress,
        )


class _Run:
    """The state of one training in a call of `train_together`."""

    def __init__(self, training: Training, placement: Placement) -> None:
        self._trainer, self._config, self._plan = training.trainer, training.config, training.plan
        self._checkpoints, self._placement, self._watcher = training.checkpoints, placement, training.watcher
        self._name, self._log = training.name, _NamedLog(logger, {"name": training.name})
        self._peak = self._config.peak_learning_rate(placement.num_processes)
        self._known = _History(losses=_NO_LOSSES, fixed_batch_losses=_NO_LOSSES, snapshots=(), progress=())
        self._pending: list[Any] = []
        self._pending_looks: list[Any] = []
        self._saved_step: int | None = None
        self._last_checkpoint: str | None = None
        self._completed: deque[_Completed] = deque()
        self._progress_from = self._line_from = (time.monotonic(), 0)
        self.step = 0

    def resume(self) -> None:
        """Goes on from the checkpoint that `resume_from_checkpoint` asks for, if there is one."""
        checkpoint = self._wanted_checkpoint()
        if checkpoint is None:
            self._log.info(
                "training from the initial rows; key %s%s", self._checkpoints.training_key[:12], self._nearest_other()
            )
        else:
            self._take_over(checkpoint)
        steps = self._placement.from_all(self.step)
        if len(set(steps)) > 1:
            raise TrainingError(
                f"the processes found different checkpoints: after step {', '.join(map(str, steps))} by rank: give all "
                "of them the same checkpoint_root, in storage that they share, and start the same command again"
            )
        if checkpoint is None and self._config.early_stopping_every:
            self._look()
        self._note_completed()
        if self._watcher:
            self._watcher.begin(self._known.progress)

    def plan_batch(self, step: int) -> Batch:
        """This process's samples of a step."""
        return self._plan.batch(step, self._placement.positions(self._plan.global_batch))

    @property
    def finished(self) -> bool:
        """Whether there is no step left to take."""
        return self.step >= self._config.max_train_steps or self._has_settled()

    def next_step(self, batch: Batch) -> NextStep:
        """What is to be done with the samples of the next step."""
        rate = learning_rate(self._config, step=self.step, peak=self._peak)
        return NextStep(trainer=self._trainer, batch=batch, learning_rate=rate)

    def note_step(self, loss: Any, rate: float) -> None:
        """What is due after an optimizer step: a progress line, a snapshot, a checkpoint.

        Args:
            loss: the handle of the step's loss.
            rate: its learning rate.
        """
        self._pending.append(loss)
        self.step += 1
        every = self._config.early_stopping_every
        looks = every > 0 and self.step % every == 0
        if looks:
            self._look()
        is_snapshot = self.step % self._config.save_steps == 0 and self.step != self._config.max_train_steps
        self._note_completed(is_snapshot=is_snapshot)
        if looks or is_snapshot:
            self._read()
        last = self.finished
        if last or self.step % self._config.log_steps == 0:
            self._log_progress(self._read(), rate)
        if last or self.step % self._config.checkpointing_steps == 0:
            self._save(self._read())
            if self._watcher:
                self._watcher.see_checkpoint(self._known.progress)
        if self._watcher and self._watcher.wants_rows(self.step):
            self._watcher.see_rows(self.step, self._read().state.learned)
        if last and self.step < self._config.max_train_steps:
            self._log.info(
                "the loss of the fixed batch has settled: stopping after step %d, %d steps before the last",
                *(self.step, self._config.max_train_steps - self.step),
            )

    def checkpoint(self) -> Checkpoint:
        """The training as it is now."""
        return self._read()

    def keep_last_completed_step(self, cause: str) -> None:
        """Writes a checkpoint of the newest step that the device has finished; may be called from any thread."""
        if self._placement.rank != 0:
            return
        completed = next((c for c in reversed(tuple(self._completed)) if c.copy.done()), None)
        if completed is None:
            self._log.warning("%s before the first step was finished: start the same command again", cause)
            return
        if completed.step > (self._saved_step or 0):
            self._save(completed.checkpoint())
        kept = f"kept as {self._last_checkpoint}" if completed.step else "nothing to keep yet"
        again = "" if self._config.resume_from_checkpoint == "latest" else ", with resume_from_checkpoint=latest,"
        self._log.warning(
            "%s after step %d of %d; %s: start the same command again%s to go on from there",
            *(cause, completed.step, self._config.max_train_steps, kept, again),
        )

    def _look(self) -> None:
        self._pending_looks.append(self._trainer.loss_of(self.plan_batch(_FIXED_BATCH)))

    def _save(self, checkpoint: Checkpoint) -> None:
        step = checkpoint.state.step
        with self._named_when_diverged():
            check_finite(checkpoint.losses, first_step=0, last_checkpoint=self._last_checkpoint)
            check_finite_rows(checkpoint.state.rows, step=step, last_checkpoint=self._last_checkpoint)
        if self._saved_step != step and self._placement.rank == 0:
            self._checkpoints.save(checkpoint)
        self._saved_step, self._last_checkpoint = step, self._checkpoints.uri_of(checkpoint)

    @contextlib.contextmanager
    def _named_when_diverged(self) -> Iterator[None]:
        try:
            yield
        except DivergedError as error:
            if not self._name:
                raise
            raise DivergedError(f"{self._name}: {error}") from error

    def _has_settled(self) -> bool:
        config = self._config
        return config.early_stopping_every > 0 and (
            self.step >= config.early_stopping_min_steps
            and has_settled(
                self._known.fixed_batch_losses,
                window=config.early_stopping_window,
                ratio=config.early_stopping_ratio,
                min_gain=config.early_stopping_min_gain,
            )
        )

    def _take_over(self, checkpoint: Checkpoint) -> None:
        self._trainer.write_state(checkpoint.state)
        self.step = self._saved_step = checkpoint.state.step
        self._known = _history_of(checkpoint)
        self._last_checkpoint = self._checkpoints.uri_of(checkpoint)
        self._progress_from = self._line_from = (time.monotonic(), self.step)
        if self.finished:
            self._log.info("nothing to train: all %d steps are in %s", self.step, self._last_checkpoint)
        else:
            self._log.info("resuming after step %d from %s", self.step, self._last_checkpoint)

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

    def _nearest_other(self) -> str:
        if self._config.resume_from_checkpoint != "latest" or self._placement.rank != 0:
            return ""
        other = self._checkpoints.nearest_other()
        return f"; of the other trainings there {other}" if other else ""

    def _note_completed(self, *, is_snapshot: bool = False) -> None:
        """Copies the state for a stop signal, and lets go of the copies older than the newest that is done.

        So there are as many as the host is steps ahead of the device: at most `log_steps`, after which it waits, of a
        few kilobytes each.
        """
        while len(self._completed) > 1 and self._completed[1].copy.done():
            self._completed.popleft()
        copy = self._trainer.copy_state(self.step, (*self._pending, *self._pending_looks))
        self._completed.append(
            _Completed(
                known=self._known, step=self.step, copy=copy, num_losses=len(self._pending), is_snapshot=is_snapshot
            )
        )

    def _read(self) -> Checkpoint:
        """Waits for the device; raises `DivergedError` when a loss read for the first time is not finite."""
        checkpoint = self._completed[-1].checkpoint()
        known = len(self._known.losses)
        with self._named_when_diverged():
            check_finite(checkpoint.losses[known:], first_step=known, last_checkpoint=self._last_checkpoint)
        if self._pending:
            self._known = _history_of(checkpoint)
            self._pending, self._pending_looks = [], []
            self._note_completed()
        return checkpoint

    def _log_progress(self, checkpoint: Checkpoint, rate: float) -> None:
        """Notes the numbers of this step with the history, and tells them."""
        now, total = time.monotonic(), self._config.max_train_steps
        since, first = self._progress_from
        steps_per_second = (self.step - first) / max(now - since, 1e-9)
        line = self._progress_line(checkpoint, rate, now)
        self._known = dataclasses.replace(self._known, progress=(*self._known.progress, line))
        self._completed[-1] = dataclasses.replace(self._completed[-1], known=self._known)
        self._log.info(
            "step %*d/%d  loss %.4f  lr %.2e  %6.1f samples/s  mem %.2f GB  eta %s",
            len(str(total)),
            self.step,
            total,
            line.loss,
            rate,
            steps_per_second * self._plan.global_batch,
            line.memory_bytes / 1e9,
            human_duration((total - self.step) / steps_per_second),
        )
        if self._watcher:
            self._watcher.see_progress(line)

    def _progress_line(self, checkpoint: Checkpoint, rate: float, now: float) -> Metrics:
        last = self._known.progress[-1].step if self._known.progress else 0
        every = self._config.early_stopping_every
        looks = self._known.fixed_batch_losses[1 + last // every :] if every else _NO_LOSSES  # the first is of step 0
        (since, first), self._line_from = self._line_from, (now, self.step)
        return Metrics(
            step=self.step,
            loss=float(self._known.losses[max(last, self.step - self._config.log_steps) :].mean()),
            lr=rate,
            rows_norm=mean_norm(checkpoint.state.rows, self._trainer.vocabulary_norms),
            samples_per_second=(self.step - first) * self._plan.global_batch / max(now - since, 1e-9),
            memory_bytes=self._trainer.memory_bytes(),
            fixed_batch_loss=float(looks[-1]) if len(looks) else math.nan,
        )


class _NamedLog(logging.LoggerAdapter[logging.Logger]):
    """A log whose lines begin with a training's name, where it has one."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """See `logging.LoggerAdapter.process`."""
        name = str((self.extra or {}).get("name", "")).replace("%", "%%")
        return (f"{name}: {msg}" if name else msg), kwargs


def _history_of(checkpoint: Checkpoint) -> _History:
    return _History(
        losses=checkpoint.losses,
        fixed_batch_losses=checkpoint.fixed_batch_losses,
        snapshots=checkpoint.snapshots,
        progress=checkpoint.progress,
    )

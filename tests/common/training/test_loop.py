"""The training loop loses no step: resuming, stopping, snapshots and divergence."""

from __future__ import annotations

import dataclasses
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from components.common.artifacts import Rows
from components.common.errors import ConfigError, DivergedError, InterruptedTraining, ObjectNotFoundError
from components.common.training.checkpoints import Checkpoint
from components.common.training.metrics import Metrics
from tests.common.training.bowl import ENCODER, BowlTrainer, bowl_checkpoints, train_bowl

REPOSITORY = Path(__file__).parents[3]


def assert_same_outcome(left: Checkpoint, right: Checkpoint) -> None:
    assert left.state.step == right.state.step
    for part in ("rows", "first_moment", "second_moment"):
        np.testing.assert_array_equal(getattr(left.state, part)[ENCODER], getattr(right.state, part)[ENCODER])
    np.testing.assert_array_equal(left.losses, right.losses)
    assert [snapshot.step for snapshot in left.snapshots] == [snapshot.step for snapshot in right.snapshots]
    for ours, theirs in zip(left.snapshots, right.snapshots, strict=True):
        np.testing.assert_array_equal(ours.rows[ENCODER], theirs.rows[ENCODER])


def assert_same_lines(left: Checkpoint, right: Checkpoint) -> None:
    """All but the time that it took is the same."""
    ours, theirs = (
        [{**line.known(), "samples_per_second": 0} for line in outcome.progress] for outcome in (left, right)
    )
    assert ours == theirs


class Onlooker:
    """A `Watcher` that remembers what it was shown."""

    def __init__(self) -> None:
        self.began_after: list[int] = []
        self.lines: list[Metrics] = []
        self.rows: dict[int, np.ndarray] = {}
        self.kept: list[list[int]] = []

    def begin(self, progress: Sequence[Metrics]) -> None:
        self.began_after = [line.step for line in progress]

    def wants_rows(self, step: int) -> bool:
        return step % 7 == 0

    def see_rows(self, step: int, rows: Rows) -> None:
        self.rows[step] = rows[ENCODER].copy()

    def see_progress(self, line: Metrics) -> None:
        self.lines.append(line)

    def see_checkpoint(self, progress: Sequence[Metrics]) -> None:
        self.kept.append([line.step for line in progress])


def test_watcher_is_shown_lines_checkpoints_and_the_rows_that_it_wants(tmp_path: Path) -> None:
    onlooker = Onlooker()
    outcome = train_bowl(tmp_path / "watched", watcher=onlooker)
    assert_same_outcome(outcome, train_bowl(tmp_path / "alone"))
    assert tuple(onlooker.lines) == outcome.progress
    assert [line.step for line in onlooker.lines] == [4, 8, 12, 16, 20, 23]
    assert onlooker.kept == [[4], [4, 8], [4, 8, 12], [4, 8, 12, 16, 20], [4, 8, 12, 16, 20, 23]]
    assert list(onlooker.rows) == [7, 14, 21]
    seventh = train_bowl(tmp_path / "seventh", max_train_steps=7)
    np.testing.assert_array_equal(onlooker.rows[7], seventh.state.rows[ENCODER])


def test_lines_say_the_mean_loss_since_the_line_before_and_the_norm_of_the_rows(tmp_path: Path) -> None:
    outcome = train_bowl(tmp_path, early_stopping_every=3, early_stopping_window=20)
    for line, first in zip(outcome.progress, (0, 4, 8, 12, 16, 20), strict=True):
        assert line.loss == pytest.approx(outcome.losses[first : line.step].mean())
        looks = outcome.fixed_batch_losses[1 + first // 3 : 1 + line.step // 3]  # the first is of the initial rows
        assert line.known().get("fixed_batch_loss") == (pytest.approx(looks[-1]) if len(looks) else None)
    norm = np.linalg.norm(outcome.state.rows[ENCODER], axis=1).mean() / np.sqrt(3)
    assert outcome.progress[-1].rows_norm == pytest.approx(norm)


def test_lines_go_on_where_the_checkpoint_has_them(tmp_path: Path) -> None:
    train_bowl(tmp_path, max_train_steps=10)
    onlooker = Onlooker()
    train_bowl(tmp_path, watcher=onlooker, resume_from_checkpoint="step-00000005")
    assert onlooker.began_after == [4] and [line.step for line in onlooker.lines] == [8, 12, 16, 20, 23]


def test_checkpoint_without_lines_is_gone_on_from(tmp_path: Path) -> None:
    checkpoint = dataclasses.replace(train_bowl(tmp_path / "a", max_train_steps=10), progress=())
    bowl_checkpoints(tmp_path / "b").save(checkpoint)
    outcome = train_bowl(tmp_path / "b")
    assert [line.step for line in outcome.progress] == [12, 16, 20, 23]
    assert outcome.progress[0].loss == pytest.approx(outcome.losses[8:12].mean())


def test_outcome_has_every_loss_and_snapshot(tmp_path: Path) -> None:
    outcome = train_bowl(tmp_path)
    assert len(outcome.losses) == 23
    assert [snapshot.step for snapshot in outcome.snapshots] == [6, 12, 18]
    assert outcome.losses[-1] < outcome.losses[0] / 2
    assert not np.array_equal(outcome.snapshots[0].rows[ENCODER], outcome.snapshots[1].rows[ENCODER])


@pytest.mark.parametrize("stopped_in", [0, 1, 4, 5, 13, 22])
def test_outcome_is_bit_identical_when_terminated_and_started_again(tmp_path: Path, stopped_in: int) -> None:
    command = [sys.executable, "-m", "tests.common.training.bowl", str(tmp_path / "parts"), str(stopped_in)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == InterruptedTraining.exit_code
    assert f"SIGTERM after step {stopped_in} of 23" in ended.stderr

    second = BowlTrainer()
    resumed = train_bowl(tmp_path / "parts", second)

    assert second.steps_taken == 23 - stopped_in
    whole = train_bowl(tmp_path / "whole")
    assert_same_outcome(resumed, whole)
    assert_same_lines(resumed, whole)


@pytest.mark.parametrize(("stopped_in", "behind"), [(4, 6), (15, 5), (21, 9), (21, 20)])
def test_last_step_of_the_device_is_kept_when_the_host_is_ahead_of_it(
    tmp_path: Path, stopped_in: int, behind: int
) -> None:
    finished = max(stopped_in + 1 - behind, 0)
    rarely = {"log_steps": 100, "checkpointing_steps": 100, "save_steps": 100}
    flags = [f"{name}={value}" for name, value in {**rarely, "device_behind": behind}.items()]
    command = [sys.executable, "-m", "tests.common.training.bowl", str(tmp_path / "parts"), str(stopped_in), *flags]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == InterruptedTraining.exit_code
    assert f"SIGTERM after step {finished} of 23" in ended.stderr

    second = BowlTrainer()
    resumed = train_bowl(tmp_path / "parts", second, **rarely)
    assert second.steps_taken == 23 - finished
    assert_same_outcome(resumed, train_bowl(tmp_path / "whole", **rarely))


@pytest.mark.parametrize(("behind", "copies"), [(0, 2), (7, 8), (1000, 31)])
def test_copies_are_let_go_when_a_later_one_is_done(tmp_path: Path, behind: int, copies: int) -> None:
    trainer = BowlTrainer(device_behind=behind)
    train_bowl(tmp_path, trainer, max_train_steps=300, log_steps=30, checkpointing_steps=300, save_steps=300)
    assert trainer.most_copies == copies


@pytest.mark.parametrize(
    ("resumes", "said"), [("latest", "again to go on"), ("none", "again, with resume_from_checkpoint=latest, to go on")]
)
def test_stopped_training_says_how_to_go_on(tmp_path: Path, resumes: str, said: str) -> None:
    command = [sys.executable, "-m", "tests.common.training.bowl", str(tmp_path), "7"]
    ended = subprocess.run(
        [*command, f'resume_from_checkpoint="{resumes}"'],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"SIGTERM after step 7 of 23; kept as file://{tmp_path}" in ended.stderr
    assert f"start the same command {said} from there" in ended.stderr


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train_bowl(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


def test_repeated_training_takes_no_step(tmp_path: Path) -> None:
    first = train_bowl(tmp_path)
    again = BowlTrainer()
    assert_same_outcome(train_bowl(tmp_path, again), first)
    assert again.steps_taken == 0


def test_raised_max_train_steps_goes_on(tmp_path: Path) -> None:
    train_bowl(tmp_path / "parts", max_train_steps=10)
    longer = BowlTrainer()
    resumed = train_bowl(tmp_path / "parts", longer)
    assert longer.steps_taken == 13
    assert_same_outcome(resumed, train_bowl(tmp_path / "whole"))


def test_lowered_max_train_steps_takes_earlier_checkpoint(tmp_path: Path) -> None:
    train_bowl(tmp_path / "long")
    shorter = BowlTrainer()
    outcome = train_bowl(tmp_path / "long", shorter, max_train_steps=12)
    assert shorter.steps_taken == 2
    assert_same_outcome(outcome, train_bowl(tmp_path / "short", max_train_steps=12))


def test_no_step_is_taken_when_max_train_steps_is_0(tmp_path: Path) -> None:
    trainer = BowlTrainer()
    outcome = train_bowl(tmp_path, trainer, max_train_steps=0)
    assert (trainer.steps_taken, outcome.state.step, len(outcome.losses)) == (0, 0, 0)


def test_resume_none_starts_anew(tmp_path: Path) -> None:
    train_bowl(tmp_path)
    anew = BowlTrainer()
    train_bowl(tmp_path, anew, resume_from_checkpoint="none")
    assert anew.steps_taken == 23


def test_resume_by_name(tmp_path: Path) -> None:
    whole = train_bowl(tmp_path)
    trainer = BowlTrainer()
    assert_same_outcome(train_bowl(tmp_path, trainer, resume_from_checkpoint="step-00000015"), whole)
    assert trainer.steps_taken == 8


def test_resume_by_name_fails_clearly_when_impossible(tmp_path: Path) -> None:
    train_bowl(tmp_path)
    with pytest.raises(ObjectNotFoundError, match="step-00000016"):
        train_bowl(tmp_path, resume_from_checkpoint="step-00000016")
    with pytest.raises(ConfigError, match="of step 20, after max_train_steps 18"):
        train_bowl(tmp_path, resume_from_checkpoint="step-00000020", max_train_steps=18)


def test_diverged_training_names_step_and_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"loss of step 14 is nan.*last good checkpoint is .*step-00000010"):
        train_bowl(tmp_path, BowlTrainer(diverges_at=13))
    latest = bowl_checkpoints(tmp_path).latest(at_most=23)
    assert latest is not None and latest.state.step == 10


def test_progress_lines_say_step_loss_and_eta(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train_bowl(tmp_path)
    lines = [record.message for record in caplog.records if record.message.startswith("step")]
    assert [line.split("/")[0].split()[1] for line in lines] == ["4", "8", "12", "16", "20", "23"]
    assert all(word in lines[0] for word in ("loss", "lr", "samples/s", "mem", "eta"))


STOPPING = {"early_stopping_every": 3, "early_stopping_window": 4, "max_train_steps": 300, "learning_rate": 0.1}


def test_training_stops_early_when_fixed_batch_has_settled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        outcome = train_bowl(tmp_path, **STOPPING)
    initial, *looks = outcome.fixed_batch_losses
    assert initial == 1.0, "of the initial rows, before the first step"
    assert 3 * len(looks) == outcome.state.step == len(outcome.losses) < 300
    settled = [np.var(looks[:n][-4:]) < 0.15 * np.var(looks[:n]) for n in range(4, len(looks) + 1)]
    assert settled == [False] * (len(settled) - 1) + [True]
    assert f"has settled: stopping after step {outcome.state.step}" in caplog.text
    again = BowlTrainer()
    assert_same_outcome(train_bowl(tmp_path, again, **STOPPING), outcome)
    assert again.steps_taken == 0


@pytest.mark.parametrize("stopped_in", [2, 5, 6, 11])
def test_early_stop_comes_at_the_same_step_when_terminated_and_started_again(tmp_path: Path, stopped_in: int) -> None:
    flags = [f"{name}={value}" for name, value in STOPPING.items()]
    command = [sys.executable, "-m", "tests.common.training.bowl", str(tmp_path / "parts"), str(stopped_in), *flags]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == InterruptedTraining.exit_code, ended.stderr
    resumed, whole = train_bowl(tmp_path / "parts", **STOPPING), train_bowl(tmp_path / "whole", **STOPPING)
    assert_same_outcome(resumed, whole)
    np.testing.assert_array_equal(resumed.fixed_batch_losses, whole.fixed_batch_losses)


def test_training_does_not_stop_on_a_plateau_before_it_has_learned(tmp_path: Path) -> None:
    resting = dict(STOPPING, early_stopping_min_gain=0.0, max_train_steps=60, learning_rate=1e-7)
    assert train_bowl(tmp_path / "resting", **resting, early_stopping_ratio=2).state.step == 12
    resting["early_stopping_min_gain"] = 0.01
    assert train_bowl(tmp_path / "waiting", **resting, early_stopping_ratio=2).state.step == 60


def test_training_does_not_stop_before_its_fewest_steps(tmp_path: Path) -> None:
    soon = train_bowl(tmp_path / "soon", **STOPPING)
    assert 0 < soon.state.step < 150
    late = train_bowl(tmp_path / "late", **STOPPING, early_stopping_min_steps=151)
    assert late.state.step == 151


def test_fixed_batch_is_never_trained_on(tmp_path: Path) -> None:
    trainer = BowlTrainer()
    train_bowl(tmp_path, trainer, **STOPPING)
    assert len(trainer.looked_at) == 1
    assert trainer.looked_at.isdisjoint(range(10_000))

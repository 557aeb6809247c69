"""Several trainings in one loop are each what they are alone, whichever of them ends, fails or was there before."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.errors import DivergedError, InterruptedTraining
from components.common.training.checkpoints import Checkpoint
from components.common.training.loop import NextStep, Training, train_together
from tests.common.training.bowl import ENCODER, BowlTrainer, bowl_checkpoints, bowl_config, bowl_plan, train_bowl
from tests.common.training.test_loop import assert_same_outcome

REPOSITORY = Path(__file__).parents[3]


class Steps:
    """Takes the steps of bowls one by one, and remembers which were taken together."""

    def __init__(self) -> None:
        self.together: list[list[int]] = []

    def __call__(self, steps: Sequence[NextStep]) -> list[Any]:
        self.together.append([step.batch.step for step in steps])
        return [step.trainer.step(step.batch, step.learning_rate) for step in steps]


def bowl(root: Path, name: str, trainer: BowlTrainer | None = None, **changes: Any) -> Training:
    config = bowl_config(**changes)
    return Training(
        trainer=trainer or BowlTrainer(),
        config=config,
        plan=bowl_plan(config),
        checkpoints=bowl_checkpoints(root / name, seed=config.seed),
        name=name,
    )


def alone(root: Path, **changes: Any) -> Checkpoint:
    return train_bowl(root / "alone", **changes)


def test_one_that_has_ended_leaves_the_others(tmp_path: Path) -> None:
    steps = Steps()
    short = {"seed": 1, "max_train_steps": 4}
    outcomes = train_together([bowl(tmp_path, "a"), bowl(tmp_path, "b", **short)], take_steps=steps)
    assert_same_outcome(outcomes[0], alone(tmp_path / "a"))
    assert_same_outcome(outcomes[1], alone(tmp_path / "b", **short))
    assert steps.together == [[step, step] for step in range(4)] + [[step] for step in range(4, 23)]


def test_one_that_settles_leaves_the_others(tmp_path: Path) -> None:
    looking = {"early_stopping_every": 2, "early_stopping_window": 3, "early_stopping_ratio": 0.5}
    slow = {**looking, "learning_rate": 0.001, "seed": 1}
    outcomes = train_together([bowl(tmp_path, "a", **looking), bowl(tmp_path, "b", **slow)], take_steps=Steps())
    assert_same_outcome(outcomes[0], alone(tmp_path / "a", **looking))
    assert_same_outcome(outcomes[1], alone(tmp_path / "b", **slow))
    assert outcomes[0].state.step < outcomes[1].state.step


def test_each_goes_on_where_it_was(tmp_path: Path) -> None:
    train_together([bowl(tmp_path, "a", max_train_steps=10)], take_steps=Steps())
    steps = Steps()
    outcomes = train_together([bowl(tmp_path, "a"), bowl(tmp_path, "b", seed=1)], take_steps=steps)
    assert steps.together[0] == [10, 0] and steps.together[-1] == [22]
    expected = alone(tmp_path / "a")
    np.testing.assert_array_equal(outcomes[0].state.rows[ENCODER], expected.state.rows[ENCODER])
    np.testing.assert_array_equal(outcomes[0].losses, expected.losses)
    assert_same_outcome(outcomes[1], alone(tmp_path / "b", seed=1))


def test_lines_of_the_log_begin_with_the_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train_together([bowl(tmp_path, "<50%>"), bowl(tmp_path, "b", seed=1)], take_steps=Steps())
    lines = [line for line in caplog.messages if "samples/s" in line]
    assert [line.partition(":")[0] for line in lines[:2]] == ["<50%>", "b"]


def test_the_one_that_diverges_is_named(tmp_path: Path) -> None:
    bad = bowl(tmp_path, "b", BowlTrainer(diverges_at=6), seed=1)
    with pytest.raises(DivergedError, match=r"^b: the loss of step 7 is nan"):
        train_together([bowl(tmp_path, "a"), bad], take_steps=Steps())


def test_all_keep_their_last_step_when_told_to_stop(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.common.training.test_together import *; "
        "root = Path(sys.argv[1]); "
        "train_together([bowl(root, 'a'), bowl(root, 'b', BowlTrainer(terminates_at=8), seed=1)], take_steps=Steps())"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, check=False)
    assert ended.returncode == InterruptedTraining.exit_code
    for name, seed in (("a", 0), ("b", 1)):
        kept = bowl_checkpoints(tmp_path / name, seed=seed).latest(at_most=23)
        assert kept is not None and kept.state.step == 8
    outcomes = train_together([bowl(tmp_path, "a"), bowl(tmp_path, "b", seed=1)], take_steps=Steps())
    assert_same_outcome(outcomes[0], alone(tmp_path / "a"))
    assert_same_outcome(outcomes[1], alone(tmp_path / "b", seed=1))

"""Which checkpoints are kept, found, passed over and refused."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors

from components.common.errors import ConfigError, ObjectNotFoundError
from components.common.storage import open_store
from components.common.training.checkpoints import CheckpointFolder
from tests.common.training.bowl import BowlTrainer, bowl_checkpoints, train_bowl
from tests.common.training.test_loop import assert_same_outcome


def folder_of(root: Path, seed: int = 0) -> Path:
    return root / bowl_checkpoints(root, seed=seed).training_key


def steps_in(root: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step-")) for file in folder_of(root).glob("step-*"))


def damage(root: Path, step: int) -> None:
    (folder_of(root) / f"step-{step:08d}.safetensors").write_bytes(b"half")


def test_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = train_bowl(tmp_path)
    folder = tmp_path / bowl_checkpoints(tmp_path).training_key
    (folder / "step-00000023.safetensors").write_bytes(b"half")
    intact = bytearray((folder / "step-00000020.safetensors").read_bytes())
    intact[-1] ^= 1
    (folder / "step-00000020.safetensors").write_bytes(bytes(intact))
    trainer = BowlTrainer()

    with caplog.at_level(logging.WARNING):
        assert_same_outcome(train_bowl(tmp_path, trainer), whole)

    assert trainer.steps_taken == 8
    assert caplog.text.count("damaged checkpoint") == 2


def test_total_limit_keeps_newest_checkpoints(tmp_path: Path) -> None:
    train_bowl(tmp_path, checkpoints_total_limit=2)
    folder = tmp_path / bowl_checkpoints(tmp_path).training_key
    assert sorted(file.name for file in folder.glob("*.safetensors")) == [
        "step-00000020.safetensors",
        "step-00000023.safetensors",
    ]


def test_other_seed_is_another_training(tmp_path: Path) -> None:
    train_bowl(tmp_path)
    other = BowlTrainer()
    train_bowl(tmp_path, other, seed=1)
    assert other.steps_taken == 23


def test_total_limit_leaves_what_lies_beside_the_checkpoints(tmp_path: Path) -> None:
    beside = tmp_path / bowl_checkpoints(tmp_path).training_key / "learned_embeds-steps-5.safetensors"
    beside.parent.mkdir()
    beside.write_bytes(b"rows")
    assert train_bowl(tmp_path, checkpoints_total_limit=1, max_train_steps=10).state.step == 10
    assert beside.read_bytes() == b"rows"
    assert [file.name for file in sorted(beside.parent.glob("step-*"))] == ["step-00000010.safetensors"]


def test_total_limit_keeps_good_checkpoints_when_newer_ones_are_damaged(tmp_path: Path) -> None:
    train_bowl(tmp_path, max_train_steps=20)
    damage(tmp_path, 20)
    damage(tmp_path, 15)
    train_bowl(tmp_path, BowlTrainer(), max_train_steps=14, checkpoints_total_limit=1, checkpointing_steps=3)
    assert steps_in(tmp_path) == [14, 15, 20]
    latest = bowl_checkpoints(tmp_path).latest(at_most=23)
    assert latest is not None and latest.state.step == 14


def test_total_limit_deletes_damaged_checkpoints_before_good_ones(tmp_path: Path) -> None:
    train_bowl(tmp_path, max_train_steps=12)
    damage(tmp_path, 12)
    train_bowl(tmp_path, max_train_steps=13, checkpoints_total_limit=2)
    assert steps_in(tmp_path) == [10, 13]


@pytest.mark.parametrize("resumes", ["none", "step-00000005"])
def test_total_limit_leaves_later_checkpoints_when_going_back(tmp_path: Path, resumes: str) -> None:
    whole = train_bowl(tmp_path)
    again = train_bowl(tmp_path, max_train_steps=12, checkpoints_total_limit=1, resume_from_checkpoint=resumes)
    assert again.state.step == 12
    assert steps_in(tmp_path) == [12, 15, 20, 23]
    trainer = BowlTrainer()
    assert_same_outcome(train_bowl(tmp_path, trainer), whole)
    assert trainer.steps_taken == 0


def test_total_limit_counts_later_checkpoints_when_they_are_overtaken(tmp_path: Path) -> None:
    train_bowl(tmp_path)
    train_bowl(tmp_path, checkpoints_total_limit=2, resume_from_checkpoint="step-00000005")
    assert steps_in(tmp_path) == [20, 23]


def test_total_limit_keeps_what_was_written_when_later_steps_exist(tmp_path: Path) -> None:
    train_bowl(tmp_path, checkpoints_total_limit=1)
    assert steps_in(tmp_path) == [23]
    train_bowl(tmp_path, max_train_steps=7, checkpoints_total_limit=1)
    assert steps_in(tmp_path) == [7, 23]


def test_named_checkpoint_of_other_fields_is_refused_with_those_that_differ(tmp_path: Path) -> None:
    train_bowl(tmp_path, seed=1)
    train_bowl(tmp_path, seed=0, max_train_steps=10)
    with pytest.raises(ConfigError) as refused:
        train_bowl(tmp_path, seed=0, resume_from_checkpoint="step-00000015")
    other = folder_of(tmp_path, seed=1) / "step-00000015.safetensors"
    assert f"{other} differs in seed: found 1, expected 0: give the same values" in str(refused.value)
    assert steps_in(tmp_path) == [5, 10]


def test_nearest_of_several_other_trainings_is_named(tmp_path: Path) -> None:
    folder = bowl_checkpoints(tmp_path)
    for seed in (1, 2, 3):
        train_bowl(tmp_path, seed=seed, max_train_steps=5)
    shutil.rmtree(folder_of(tmp_path, seed=1))
    further = CheckpointFolder(open_store(str(tmp_path)), {"seed": 4, "task": "valley"})
    further.save(bowl_checkpoints(tmp_path, seed=2).named("step-00000005"))
    (folder_of(tmp_path, seed=3) / "step-00000005.safetensors").write_bytes(b"half")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "step-00000005.safetensors").write_bytes(b"of somebody else")
    expected = folder_of(tmp_path, seed=2) / "step-00000005.safetensors"
    assert folder.nearest_other() == f"file://{expected} differs in seed: found 2, expected 0"
    assert folder.nearest_other("step-00000006") is None


def test_missing_name_is_not_found_when_no_training_has_it(tmp_path: Path) -> None:
    train_bowl(tmp_path, seed=1)
    with pytest.raises(ObjectNotFoundError, match="step-00000016"):
        train_bowl(tmp_path, seed=0, resume_from_checkpoint="step-00000016")


@pytest.mark.parametrize(("resumes", "says"), [("latest", True), ("none", False)])
def test_new_training_says_in_what_the_nearest_other_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, resumes: str, says: bool
) -> None:
    train_bowl(tmp_path, seed=1)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        train_bowl(tmp_path, seed=0, resume_from_checkpoint=resumes)
    (line,) = [record.message for record in caplog.records if "training from the initial rows" in record.message]
    assert ("step-00000023.safetensors differs in seed: found 1, expected 0" in line) is says


def test_checkpoint_of_other_fields_is_refused_when_it_was_put_in_place_by_hand(tmp_path: Path) -> None:
    train_bowl(tmp_path, seed=1, max_train_steps=5)
    shutil.copytree(folder_of(tmp_path, seed=1), folder_of(tmp_path, seed=0))
    with pytest.raises(ConfigError, match="another training, differs in seed: found 1, expected 0"):
        train_bowl(tmp_path, seed=0)


def test_average_is_kept_where_there_is_one_and_learned(tmp_path: Path) -> None:
    plain = train_bowl(tmp_path, max_train_steps=5)
    assert plain.state.ema == {} and plain.state.learned is plain.state.rows
    folder = bowl_checkpoints(tmp_path)
    with safetensors.safe_open(folder_of(tmp_path) / f"{plain.name}.safetensors", "numpy") as opened:
        assert not [name for name in opened.keys() if name.startswith("ema")]  # noqa: SIM118
    ema = {name: rows / 2 for name, rows in plain.state.rows.items()}
    folder.save(dataclasses.replace(plain, state=dataclasses.replace(plain.state, ema=ema)))
    read = folder.named(plain.name).state
    for name, rows in ema.items():
        np.testing.assert_array_equal(read.learned[name], rows)
        np.testing.assert_array_equal(read.rows[name], plain.state.rows[name])

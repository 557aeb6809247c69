"""The training step from artifacts to artifact, by both frameworks, and its checkpoints in each other's hands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import LatentSet, LearnedEmbedding
from components.common.errors import ArtifactError, ConfigError
from components.common.training.config import TrainConfig
from components.train.train import train
from tests import flax_runs as runs
from tests.faults.trainings import training_flags
from tests.train import trainings


def run(framework: str, folder: Path, inputs: dict[str, Path], **changes: Any) -> LearnedEmbedding:
    return trainings.run(framework, folder, inputs, TrainConfig(**{**trainings.SHORT, **changes}))


@pytest.fixture(scope="module")
def whole(micro_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, LearnedEmbedding]:
    """What an uninterrupted training learns, by framework."""
    return {name: run(name, tmp_path_factory.mktemp(name), micro_inputs) for name in ("torch", "flax")}


@pytest.fixture(params=["torch", "flax"])
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework in turn."""
    return str(request.param)


def assert_learned_the_same(found: LearnedEmbedding, expected: LearnedEmbedding) -> None:
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
    moved = expected.rows[runs.TEXT_ENCODER] - expected.initial_rows[runs.TEXT_ENCODER]
    difference = found.rows[runs.TEXT_ENCODER] - expected.rows[runs.TEXT_ENCODER]
    assert np.linalg.norm(difference) < 1e-3 * np.linalg.norm(moved)


def test_learned_embedding_is_written(
    tmp_path: Path, micro_inputs: dict[str, Path], whole: dict[str, LearnedEmbedding], framework: str
) -> None:
    learned = run(framework, tmp_path, micro_inputs)
    again = LearnedEmbedding.read(tmp_path / "learned")
    assert again.steps == 6 and again.lineage["framework"] == framework
    assert again.lineage["devices"] == "1 x cpu"
    assert [snapshot.step for snapshot in again.snapshots] == [2, 4]
    np.testing.assert_array_equal(again.rows[runs.TEXT_ENCODER], learned.rows[runs.TEXT_ENCODER])
    np.testing.assert_array_equal(again.rows[runs.TEXT_ENCODER], whole[framework].rows[runs.TEXT_ENCODER])
    moved = np.abs(again.rows[runs.TEXT_ENCODER] - again.initial_rows[runs.TEXT_ENCODER])
    assert (moved > 0.05).any() and np.isfinite(moved).all()


def test_header_of_learned_file_names_its_origin(tmp_path: Path, micro_inputs: dict[str, Path], framework: str) -> None:
    run(framework, tmp_path, micro_inputs, max_train_steps=0)
    data = (tmp_path / "learned" / "learned_embeds.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert set(header) == {"__metadata__", "<cat-toy>"}
    assert json.loads(header["__metadata__"]["lineage"])["framework"] == framework


def test_frameworks_have_one_training_key_and_learn_the_same(whole: dict[str, LearnedEmbedding]) -> None:
    assert whole["torch"].training_key == whole["flax"].training_key
    assert_learned_the_same(whole["torch"], whole["flax"])


def test_rows_are_bit_identical_when_resumed(
    tmp_path: Path, micro_inputs: dict[str, Path], whole: dict[str, LearnedEmbedding], framework: str
) -> None:
    run(framework, tmp_path, micro_inputs, max_train_steps=2)
    resumed = run(framework, tmp_path, micro_inputs)
    np.testing.assert_array_equal(resumed.rows[runs.TEXT_ENCODER], whole[framework].rows[runs.TEXT_ENCODER])
    np.testing.assert_array_equal(resumed.losses, whole[framework].losses)


def test_frameworks_go_on_for_each_other(
    tmp_path: Path, micro_inputs: dict[str, Path], whole: dict[str, LearnedEmbedding]
) -> None:
    run("torch", tmp_path, micro_inputs, max_train_steps=2)
    run("flax", tmp_path, micro_inputs, max_train_steps=4)
    mixed = run("torch", tmp_path, micro_inputs)
    assert mixed.steps == 6
    assert_learned_the_same(mixed, whole["flax"])


def test_inputs_of_another_model_are_refused(tmp_path: Path, micro_inputs: dict[str, Path], framework: str) -> None:
    foreign = LatentSet.read(micro_inputs["latent_set"])
    LatentSet(latents=foreign.latents, scaling_factor=1.0, base_model_digest="0" * 64, image_set_digest="").write(
        tmp_path / "foreign"
    )
    with pytest.raises(ArtifactError, match="latent set was made with the base model 000000000000"):
        run(framework, tmp_path, {**micro_inputs, "latent_set": tmp_path / "foreign"})
    assert not (tmp_path / "learned").exists()


def test_framework_that_does_not_train_on_the_accelerator_is_refused(
    tmp_path: Path, micro_inputs: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match=r"framework: found torch with accelerator tpu, expected auto or flax"):
        train(
            TrainConfig(),
            framework="torch",
            **micro_inputs,
            checkpoint_root=str(tmp_path),
            accelerator="tpu",
            output=tmp_path / "learned",
        )


def execute(framework: str, inputs: dict[str, Path], folder: Path, **fields: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        trainings.command(framework, folder, inputs, **{**trainings.SHORT, **fields}),
        cwd=runs.REPOSITORY,
        env=runs.subprocess_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_command_fails_with_one_line_when_artifact_is_damaged(
    tmp_path: Path, micro_inputs: dict[str, Path], framework: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(micro_inputs["latent_set"], damaged)
    (damaged / LatentSet.FILE).write_bytes(b"")
    ended = execute(framework, {**micro_inputs, "latent_set": damaged}, tmp_path)
    assert ended.returncode == ArtifactError.exit_code
    last = ended.stderr.strip().splitlines()[-1]
    assert " ERROR " in last and "has 0 bytes" in last
    assert "Traceback" not in ended.stderr


def test_command_refuses_negative_steps(tmp_path: Path, micro_inputs: dict[str, Path]) -> None:
    ended = execute("auto", micro_inputs, tmp_path, max_train_steps=-5)
    assert ended.returncode == ConfigError.exit_code
    assert "max_train_steps: found -5, expected 0 or more" in ended.stderr


@pytest.mark.parametrize(("framework", "other"), [("torch", "jax"), ("flax", "torch")])
def test_training_never_loads_the_other_framework(
    tmp_path: Path, micro_inputs: dict[str, Path], framework: str, other: str
) -> None:
    flags = training_flags(
        micro_inputs, tmp_path / "c", tmp_path / "learned", **{**trainings.SHORT, "max_train_steps": 1}
    )
    code = (
        "import sys; from components.train.__main__ import main; main(); "
        f"assert {framework if framework == 'torch' else 'jax'!r} in sys.modules; assert {other!r} not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, f"--framework={framework}", *flags],
        cwd=runs.REPOSITORY,
        env=runs.subprocess_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_average_is_learned_and_goes_on_where_it_stopped(
    tmp_path: Path, micro_inputs: dict[str, Path], framework: str, whole: dict[str, LearnedEmbedding]
) -> None:
    plain = whole[framework]
    averaged = run(framework, tmp_path / "whole", micro_inputs, ema_decay=0.9)
    run(framework, tmp_path / "parts", micro_inputs, ema_decay=0.9, max_train_steps=2)
    resumed = run(framework, tmp_path / "parts", micro_inputs, ema_decay=0.9)
    assert averaged.training_key != plain.training_key
    np.testing.assert_array_equal(averaged.losses, plain.losses)
    np.testing.assert_array_equal(averaged.rows[runs.TEXT_ENCODER], resumed.rows[runs.TEXT_ENCODER])
    pairs = [(averaged.rows, plain.rows)]
    pairs += [(ours.rows, theirs.rows) for ours, theirs in zip(averaged.snapshots, plain.snapshots, strict=True)]
    for ours, theirs in pairs:
        assert np.abs(ours[runs.TEXT_ENCODER] - theirs[runs.TEXT_ENCODER]).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"clip_skip": 2}, "clip_skip: found 2, expected less than 2"),
        ({"timestep_min": 1000}, "timestep_min: found 1000"),
    ],
)
def test_options_that_the_model_cannot_take_are_refused(
    tmp_path: Path, micro_inputs: dict[str, Path], framework: str, fields: dict[str, int], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        run(framework, tmp_path, micro_inputs, **fields)


def test_long_steps_are_warned_of_before_the_first(
    tmp_path: Path, micro_inputs: dict[str, Path], framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        run(framework, tmp_path, micro_inputs, max_train_steps=0, learning_rate=3.0)
    assert "learning_rate: found 3.0e+00 after scale_lr" in caplog.text

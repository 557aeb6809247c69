"""The training step from artifacts to artifact, and its checkpoints in the other trainer's hands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import LatentSet, LearnedEmbedding
from components.common.errors import ArtifactError, ConfigError
from components.common.training.config import TrainConfig
from components.train.flax.train import train_flax
from components.train.torch.train import train_torch
from tests import flax_runs as runs


def config(**changes: Any) -> TrainConfig:
    fields = {
        "train_batch_size": 1,
        "max_train_steps": 6,
        "learning_rate": 0.05,
        "save_steps": 2,
        "checkpointing_steps": 2,
        "log_steps": 2,
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": 3,
    }
    return TrainConfig(**{**fields, **changes})


def run(trainer: Any, folder: Path, inputs: dict[str, Path], **changes: Any) -> LearnedEmbedding:
    return trainer(
        config(**changes),
        **inputs,
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        output=folder / "learned",
    )


@pytest.fixture(scope="module")
def whole(micro_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> LearnedEmbedding:
    """What an uninterrupted Flax training learns."""
    return run(train_flax, tmp_path_factory.mktemp("whole"), micro_inputs)


def test_learned_embedding_is_written(tmp_path: Path, micro_inputs: dict[str, Path], whole: LearnedEmbedding) -> None:
    learned = run(train_flax, tmp_path, micro_inputs)
    again = LearnedEmbedding.read(tmp_path / "learned")
    assert again.steps == 6 and again.lineage["framework"] == "flax"
    assert [snapshot.step for snapshot in again.snapshots] == [2, 4]
    np.testing.assert_array_equal(again.rows[runs.TEXT_ENCODER], learned.rows[runs.TEXT_ENCODER])
    np.testing.assert_array_equal(again.rows[runs.TEXT_ENCODER], whole.rows[runs.TEXT_ENCODER])
    moved = np.abs(again.rows[runs.TEXT_ENCODER] - again.initial_rows[runs.TEXT_ENCODER])
    assert (moved > 0.05).any() and np.isfinite(moved).all()


def test_flax_and_torch_have_one_training_key(
    tmp_path: Path, micro_inputs: dict[str, Path], whole: LearnedEmbedding
) -> None:
    torch_learned = run(train_torch, tmp_path, micro_inputs)
    assert torch_learned.training_key == whole.training_key
    np.testing.assert_allclose(torch_learned.losses, whole.losses, rtol=1e-4)
    moved = torch_learned.rows[runs.TEXT_ENCODER] - torch_learned.initial_rows[runs.TEXT_ENCODER]
    difference = torch_learned.rows[runs.TEXT_ENCODER] - whole.rows[runs.TEXT_ENCODER]
    assert np.linalg.norm(difference) < 1e-3 * np.linalg.norm(moved)


def test_rows_are_bit_identical_when_resumed(
    tmp_path: Path, micro_inputs: dict[str, Path], whole: LearnedEmbedding
) -> None:
    run(train_flax, tmp_path, micro_inputs, max_train_steps=2)
    resumed = run(train_flax, tmp_path, micro_inputs)
    np.testing.assert_array_equal(resumed.rows[runs.TEXT_ENCODER], whole.rows[runs.TEXT_ENCODER])
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def test_torch_goes_on_for_flax_and_back(
    tmp_path: Path, micro_inputs: dict[str, Path], whole: LearnedEmbedding
) -> None:
    run(train_torch, tmp_path, micro_inputs, max_train_steps=2)
    run(train_flax, tmp_path, micro_inputs, max_train_steps=4)
    mixed = run(train_torch, tmp_path, micro_inputs)
    assert mixed.steps == 6
    np.testing.assert_allclose(mixed.losses, whole.losses, rtol=1e-4)
    moved = whole.rows[runs.TEXT_ENCODER] - whole.initial_rows[runs.TEXT_ENCODER]
    difference = mixed.rows[runs.TEXT_ENCODER] - whole.rows[runs.TEXT_ENCODER]
    assert np.linalg.norm(difference) < 1e-3 * np.linalg.norm(moved)


def test_inputs_of_another_model_are_refused(tmp_path: Path, micro_inputs: dict[str, Path]) -> None:
    foreign = LatentSet.read(micro_inputs["latent_set"])
    LatentSet(latents=foreign.latents, scaling_factor=1.0, base_model_digest="0" * 64, image_set_digest="").write(
        tmp_path / "foreign"
    )
    with pytest.raises(ArtifactError, match="latent set was made with the base model 000000000000"):
        run(train_flax, tmp_path, {**micro_inputs, "latent_set": tmp_path / "foreign"})
    assert not (tmp_path / "learned").exists()


def test_float16_is_refused(tmp_path: Path, micro_inputs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="mixed_precision: found 'fp16', expected one of no, bf16 with Flax"):
        run(train_flax, tmp_path, micro_inputs, mixed_precision="fp16")


def test_torch_refuses_tpu(tmp_path: Path, micro_inputs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"found 'tpu', expected one of cpu, gpu.*components\.train_flax"):
        train_torch(
            config(), **micro_inputs, checkpoint_root=str(tmp_path), accelerator="tpu", output=tmp_path / "learned"
        )


def command(folder: Path, inputs: dict[str, Path], *flags: str) -> list[str]:
    artifacts = [part for name, path in inputs.items() for part in (f"--{name.replace('_', '-')}", str(path))]
    places = ["--checkpoint-root", str(folder / "checkpoints"), "--output", str(folder / "learned")]
    fields = [f"--{name.replace('_', '-')}={value}" for name, value in vars(config()).items()]
    return [sys.executable, "-m", "components.train.flax", *artifacts, *places, *fields, *flags]


def test_command_says_what_it_found_when_there_is_no_tpu(tmp_path: Path, micro_inputs: dict[str, Path]) -> None:
    environment = runs.subprocess_environment()
    del environment["JAX_PLATFORMS"]
    ended = subprocess.run(
        command(tmp_path, micro_inputs, "--accelerator", "tpu"),
        cwd=runs.REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == ConfigError.exit_code
    last = ended.stderr.strip().splitlines()[-1]
    assert "accelerator: tpu was asked for, but jax" in last and "found cpu (cpu) alone" in last
    assert "Traceback" not in ended.stderr and not (tmp_path / "checkpoints").exists()


def test_command_goes_on_where_it_was_killed(
    tmp_path: Path, micro_inputs: dict[str, Path], whole: LearnedEmbedding
) -> None:
    arguments = command(tmp_path, micro_inputs, "--accelerator", "cpu", "--log-steps", "1")
    environment = {**runs.subprocess_environment(), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(arguments, cwd=runs.REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True) as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if " step 3/6" in line:
                os.kill(killed.pid, signal.SIGKILL)
                break
    ended = subprocess.run(
        arguments, cwd=runs.REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "resuming after step" in ended.stderr
    learned = LearnedEmbedding.read(tmp_path / "learned")
    np.testing.assert_array_equal(learned.rows[runs.TEXT_ENCODER], whole.rows[runs.TEXT_ENCODER])


@pytest.mark.parametrize("option", ["enable_xformers_memory_efficient_attention", "cuda_graphs"])
def test_options_of_pytorch_are_refused(tmp_path: Path, micro_inputs: dict[str, Path], option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}: found True, expected False with Flax"):
        run(train_flax, tmp_path, micro_inputs, **{option: True})

"""What the training step does with Flax alone."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from tests import flax_runs as runs
from tests.train import trainings


def run(folder: Path, inputs: dict[str, Path], **changes: Any) -> LearnedEmbedding:
    return trainings.run("flax", folder, inputs, TrainConfig(**{**trainings.SHORT, **changes}))


@pytest.fixture(scope="module")
def whole(micro_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> LearnedEmbedding:
    """What an uninterrupted Flax training learns."""
    return run(tmp_path_factory.mktemp("whole"), micro_inputs)


def test_float16_is_refused(tmp_path: Path, micro_inputs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="mixed_precision: found 'fp16', expected one of no, bf16 with Flax"):
        run(tmp_path, micro_inputs, mixed_precision="fp16")


def command(folder: Path, inputs: dict[str, Path], **fields: Any) -> list[str]:
    return trainings.command("flax", folder, inputs, **{**trainings.SHORT, **fields})


def test_command_says_what_it_found_when_there_is_no_tpu(tmp_path: Path, micro_inputs: dict[str, Path]) -> None:
    environment = runs.subprocess_environment()
    del environment["JAX_PLATFORMS"]
    ended = subprocess.run(
        command(tmp_path, micro_inputs, accelerator="tpu"),
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
    arguments = command(tmp_path, micro_inputs, log_steps=1)
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
        run(tmp_path, micro_inputs, **{option: True})

"""Two processes of the Flax trainer, one of which is taken away: the other keeps the last step and says why."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.errors import LostProcessError
from tests import flax_runs as runs
from tests.conftest import imported
from tests.faults.trainings import PYTHON, kept_steps, started, training_flags
from tests.servers import free_ports
from tests.train.torch.conftest import make_inputs

STEPS = 400
FIELDS = {"train_batch_size": 1, "learning_rate": 0.001, "save_steps": STEPS, "checkpointing_steps": STEPS}


@pytest.fixture(scope="module")
def micro_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of a training on a model of two levels."""
    model = runs.make_micro_model(tmp_path_factory.mktemp("models") / "micro")
    return make_inputs(tmp_path_factory.mktemp("inputs"), imported(model, tmp_path_factory), num_vectors=2)


def test_survivor_keeps_last_step_when_process_is_killed(
    tmp_path: Path, micro_inputs: dict[str, Path], count_faults: Callable[[int, str], None]
) -> None:
    (port,) = free_ports(1)
    with contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(
                started(
                    [
                        *(*PYTHON, "-m", "components.train", "--framework=flax"),
                        *training_flags(
                            micro_inputs,
                            tmp_path / "checkpoints",
                            tmp_path / "learned",
                            **{**FIELDS, "max_train_steps": STEPS, "log_steps": 5},
                        ),
                    ],
                    runs.subprocess_environment(
                        JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(rank)
                    ),
                )
            )
            for rank in range(2)
        )
        first.wait_for(" step +5/")
        os.kill(second.process.pid, signal.SIGKILL)
        code = first.exit_code()
    assert code == LostProcessError.exit_code, first.text[-3000:]
    assert "the other processes do not answer" in first.lines[-1]
    kept = int(re.findall(rf"a lost process after step (\d+) of {STEPS}; kept as", first.text)[0])
    assert kept >= 5
    assert kept_steps(tmp_path) == [kept]
    count_faults(1, "one of two Flax processes killed")

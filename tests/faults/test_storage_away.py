"""The real trainer while object storage is away: a retry, or a clear failure that loses nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InterruptedTraining, StorageError
from components.common.storage import open_store
from components.common.storage.retries import RETRY_SECONDS_VARIABLE
from tests.faults.trainings import PYTHON, TRAINER, Watched, assert_same, finished, started, training_flags
from tests.servers import GcsServer, S3Server, running_process

STEPS = 32
EVERY = 4
ADDRESS_VARIABLE = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}
SECONDS_ALLOWED = 2.0
"""What KFP leaves to a step that it terminates."""


def command(inputs: Mapping[str, Path], root: str, output: Path) -> list[str]:
    """A training with a checkpoint every few steps."""
    fields: dict[str, Any] = {
        "max_train_steps": STEPS,
        "train_batch_size": 2,
        "learning_rate": 0.01,
        "save_steps": 10,
        "checkpointing_steps": EVERY,
        "log_steps": 1,
    }
    return [*PYTHON, *TRAINER, *training_flags(inputs, root, output, **fields)]


@pytest.fixture(scope="module")
def undisturbed(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outcome of a training with checkpoints in a local folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finished(command(inputs, str(folder / "checkpoints"), folder / "learned"), warm=True)
    return folder / "learned"


@pytest.fixture(scope="module", params=["gs", "s3"])
def server(request: pytest.FixtureRequest) -> Iterator[GcsServer | S3Server]:
    """A server of this module alone: tests that share one cannot do without it."""
    with running_process({"gs": GcsServer, "s3": S3Server}[request.param]) as started_server:
        yield started_server


@pytest.fixture
def root(server: GcsServer | S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address in the server's bucket, for this test and the trainings that it starts."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    scheme = "gs" if isinstance(server, GcsServer) else "s3"
    return f"{scheme}://{server.bucket}/{tmp_path.name}"


def kept(root: str) -> list[int]:
    """The steps of the checkpoints in the server."""
    found = (re.search(r"/step-(\d+)\.safetensors", info.key) for info in open_store(root).list())
    return [int(match[1]) for match in found if match]


def take_away(server: GcsServer | S3Server, training: Watched, step: int) -> None:
    """Kills the server after a step, and returns when the trainer has tried twice in vain."""
    training.wait_for(rf" step +{step}/")
    server.stop()
    training.wait_for("attempt 2, next in")


def test_rows_are_bit_identical_when_server_restarts(
    tmp_path: Path,
    inputs: dict[str, Path],
    undisturbed: Path,
    server: GcsServer | S3Server,
    root: str,
    count_faults: Callable[[int, str], None],
) -> None:
    with started(command(inputs, root, tmp_path / "learned"), warm=True) as training:
        for step in (EVERY + 1, 4 * EVERY + 1):
            take_away(server, training, step)
            server.start()
        assert training.exit_code() == 0, training.text[-3000:]
    assert_same(tmp_path / "learned", undisturbed)
    assert kept(root) == list(range(EVERY, STEPS + 1, EVERY))
    count_faults(2, f"restarts of {type(server).__name__} in the middle of a training")


def test_training_fails_clearly_and_goes_on_later_when_server_stays_away(
    tmp_path: Path,
    inputs: dict[str, Path],
    undisturbed: Path,
    server: GcsServer | S3Server,
    root: str,
    count_faults: Callable[[int, str], None],
) -> None:
    patience = {RETRY_SECONDS_VARIABLE: "3"}
    with started(command(inputs, root, tmp_path / "learned"), patience, warm=True) as training:
        take_away(server, training, EVERY + 1)
        assert training.exit_code() == StorageError.exit_code
    server.start()
    count_faults(1, f"{type(server).__name__} away for longer than is tried")

    last = training.lines[-1]
    address = rf"{root}/\w+/step-(\d+)\.safetensors"
    failed = re.search(rf" ERROR {address}: no usable answer in 3 s and \d+ attempts", last)
    assert failed, last
    assert ADDRESS_VARIABLE[root[:2]] in last
    assert "Traceback" not in training.text
    assert not (tmp_path / "learned").exists()
    good = kept(root)[-1]
    assert good >= EVERY
    assert int(failed[1]) in (good, good + EVERY)  # the last answer may have been lost, not the checkpoint

    resumed = finished(command(inputs, root, tmp_path / "learned"), warm=True)
    assert f"resuming after step {good} from {root}" in resumed.text
    assert_same(tmp_path / "learned", undisturbed)


def test_process_ends_within_two_seconds_when_terminated_while_server_is_away(
    tmp_path: Path,
    inputs: dict[str, Path],
    server: GcsServer | S3Server,
    root: str,
    count_faults: Callable[[int, str], None],
) -> None:
    with started(command(inputs, root, tmp_path / "learned"), warm=True) as training:
        take_away(server, training, EVERY + 1)
        seconds = training.exit_seconds()
        assert training.exit_code() == InterruptedTraining.exit_code
    server.start()
    print(f"terminated without storage: gone in {seconds:.2f} s")
    assert seconds < SECONDS_ALLOWED
    assert kept(root)[0] == EVERY
    count_faults(1, f"SIGTERM while {type(server).__name__} is away")

"""Trackers: asked for before anything expensive, resumed without doubles, and never the end of a training."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.common.errors import ConfigError
from components.common.storage import open_store
from components.common.training.metrics import Metrics
from components.common.training.watch_config import WatchConfig
from components.train.trackers.tensorboard import TensorBoardTracker
from components.train.trackers.tracking import Tracked, Trackers, wanted_trackers

KEY = "a" * 64


def line(step: int) -> Metrics:
    return Metrics(step=step, loss=1 / step, lr=0.1, rows_norm=1.0, samples_per_second=9.0, memory_bytes=1000)


def tracked(root: str, logging_dir: str = "") -> Tracked:
    return Tracked(
        training_key=KEY,
        config={"learning_rate": 0.1},
        placeholder_token="<cat-toy>",
        store=open_store(root),
        logging_dir=logging_dir,
    )


def steps_in(folder: Path) -> list[int]:
    return [point.step for point in EventAccumulator(str(folder)).Reload().Scalars("loss")]


def test_curves_of_a_training_that_goes_on_have_each_step_once(tmp_path: Path) -> None:
    where = tracked(str(tmp_path))
    first = TensorBoardTracker(where)
    first.begin([])
    for step in (10, 20, 30):
        first.log(line(step))
    first.keep()  # it is killed now, after the checkpoint of step 20
    second = TensorBoardTracker(where)
    second.begin([line(10), line(20)])
    second.log(line(30))
    second.end()
    assert steps_in(tmp_path / KEY / "tensorboard") == [10, 20, 30]


@pytest.mark.parametrize("kind", ["gcs_bucket_uri", "s3_bucket_uri"])
def test_event_files_are_in_object_storage_from_checkpoint_to_checkpoint(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    uri = request.getfixturevalue(kind)
    tracker = TensorBoardTracker(tracked(str(tmp_path), f"{uri}/logs"))
    tracker.begin([])
    tracker.log(line(10))
    tracker.keep()
    open_store(uri).download_folder(f"logs/{KEY[:12]}", tmp_path / "at checkpoint")
    tracker.log(line(20))
    tracker.end()
    open_store(uri).download_folder(f"logs/{KEY[:12]}", tmp_path / "at the end")
    assert steps_in(tmp_path / "at checkpoint") == [10] and steps_in(tmp_path / "at the end") == [10, 20]


def test_tracker_that_fails_is_told_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    trackers = Trackers(["tensorboard"], tracked(str(tmp_path), str(tmp_path / "file" / "logs")))
    trackers.begin([])
    trackers.log(line(10))
    trackers.end()
    assert caplog.text.count("tensorboard is left out from here on, the training goes on") == 1


@pytest.mark.parametrize(("name", "secret"), [("wandb", "WANDB_API_KEY"), ("comet_ml", "COMET_API_KEY")])
def test_tracker_that_is_not_installed_is_refused_with_what_it_needs(name: str, secret: str) -> None:
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed here")
    with pytest.raises(
        ConfigError, match=f"report_to: found {name}, but the package {name} is not installed.*{secret}"
    ):
        wanted_trackers(WatchConfig(report_to=name))


def test_all_takes_those_that_are_installed() -> None:
    assert wanted_trackers(WatchConfig(report_to="none")) == ()
    assert wanted_trackers(WatchConfig(report_to="all"))[0] == "tensorboard"


def test_wandb_keeps_the_curves_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = (
        "import sys; from tests.train.trackers.test_tracking import *; "
        "assert wanted_trackers(WatchConfig(report_to='wandb')) == ('wandb',); "
        f"trackers = Trackers(['wandb'], tracked({str(tmp_path)!r})); trackers.begin([]); "
        "[trackers.log(line(step)) for step in (10, 20)]; trackers.end(); assert list(trackers._trackers) == ['wandb']"
    )
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))

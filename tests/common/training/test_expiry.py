"""Checkpoints that are deleted are old, are checkpoints, and are all that a training has."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.errors import ConfigError
from components.common.storage import open_store
from components.common.training.beside import TENSORBOARD, metrics_key, previews_key, snapshot_key
from components.common.training.expiry import ExpiryConfig, expire_checkpoints
from tests.common.training.bowl import bowl_checkpoints, train_bowl

REPOSITORY = Path(__file__).parents[3]
DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def keys_of(root: Path | str) -> list[str]:
    return [info.key for info in open_store(str(root)).list()]


def keys_below(root: Path, files: list[Path]) -> list[str]:
    return sorted(file.relative_to(root).as_posix() for file in files)


def made_days_ago(days: float, *files: Path) -> None:
    for file in files:
        os.utime(file, ((now() - days * DAY).timestamp(),) * 2)


@pytest.fixture(params=["file", "gs", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty folder for checkpoints, in a store of each kind."""
    if request.param == "file":
        return str(tmp_path / "checkpoints")
    return str(request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[request.param]))


def test_training_when_its_newest_checkpoint_is_old_loses_all_of_them(root: str) -> None:
    train_bowl(root)
    store = open_store(root)
    made = [store.uri_of(key) for key in keys_of(root)]
    assert len(made) == 5

    assert expire_checkpoints(ExpiryConfig(checkpoint_root=root, days=30), now=now() + 29.9 * DAY) == []
    assert len(keys_of(root)) == 5
    assert expire_checkpoints(ExpiryConfig(checkpoint_root=root, days=30, dry_run=True), now=now() + 31 * DAY) == made
    assert len(keys_of(root)) == 5
    assert expire_checkpoints(ExpiryConfig(checkpoint_root=root, days=30), now=now() + 31 * DAY) == made
    assert keys_of(root) == []
    assert expire_checkpoints(ExpiryConfig(checkpoint_root=root, days=30), now=now() + 31 * DAY) == []


def test_training_when_its_newest_checkpoint_is_young_keeps_the_old_ones(tmp_path: Path) -> None:
    train_bowl(tmp_path)
    train_bowl(tmp_path, seed=1)
    *old, newest = sorted((tmp_path / bowl_checkpoints(tmp_path).training_key).glob("step-*"))
    made_days_ago(400, *old)
    made_days_ago(29, newest)
    made_days_ago(31, *(tmp_path / bowl_checkpoints(tmp_path, seed=1).training_key).iterdir())

    deleted = expire_checkpoints(ExpiryConfig(checkpoint_root=str(tmp_path), days=30))

    assert len(deleted) == 5
    assert keys_of(tmp_path) == keys_below(tmp_path, [*old, newest])


def test_what_a_training_left_beside_its_checkpoints_goes_with_them_and_when_they_are_gone(tmp_path: Path) -> None:
    train_bowl(tmp_path)
    key = bowl_checkpoints(tmp_path).training_key
    beside = [
        tmp_path / metrics_key(key),
        tmp_path / snapshot_key(key, 500),
        tmp_path / previews_key(key, 500) / "0.png",
        tmp_path / key / TENSORBOARD / "events.out.tfevents.1700000000.pod.1.0",
    ]
    for file in beside:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"made")
    made_days_ago(31, *beside)
    assert expire_checkpoints(ExpiryConfig(checkpoint_root=str(tmp_path), days=30)) == []

    made_days_ago(31, *(tmp_path / key).glob("step-*"))
    deleted = expire_checkpoints(ExpiryConfig(checkpoint_root=str(tmp_path), days=30))
    assert len(deleted) == 5 + len(beside) and all("/step-" in uri for uri in deleted[:5])
    assert keys_of(tmp_path) == []

    for file in beside:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"made")
    made_days_ago(31, *beside)
    assert len(expire_checkpoints(ExpiryConfig(checkpoint_root=str(tmp_path), days=30))) == len(beside)


def test_what_is_no_checkpoint_stays_wherever_the_address_leads(tmp_path: Path) -> None:
    train_bowl(tmp_path / "checkpoints")
    key = bowl_checkpoints(tmp_path / "checkpoints").training_key
    others = [
        tmp_path / "registry" / "cat-toy" / "versions" / "1" / "step-00000005.safetensors",
        tmp_path / "checkpoints" / key / "notes.txt",
        tmp_path / "checkpoints" / key / "deeper" / "step-00000005.safetensors",
        tmp_path / "checkpoints" / "cat-toy" / "step-00000005.safetensors",
        tmp_path / "checkpoints" / "step-00000005.safetensors",
    ]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"kept")
    made_days_ago(1000, *(file for file in tmp_path.rglob("*") if file.is_file()))

    for wrong in (tmp_path, tmp_path / "registry", tmp_path / "checkpoints" / key):
        assert expire_checkpoints(ExpiryConfig(checkpoint_root=str(wrong), days=1)) == []
    assert len(expire_checkpoints(ExpiryConfig(checkpoint_root=str(tmp_path / "checkpoints"), days=1))) == 5
    assert keys_of(tmp_path) == keys_below(tmp_path, others)


def test_training_when_its_checkpoints_have_expired_learns_the_same_again(tmp_path: Path) -> None:
    first = train_bowl(tmp_path)
    expire_checkpoints(ExpiryConfig(checkpoint_root=str(tmp_path), days=1), now=now() + 2 * DAY)

    assert (train_bowl(tmp_path).losses == first.losses).all()


@pytest.mark.parametrize("days", [0, -1])
def test_days_when_none_are_refused(days: int) -> None:
    with pytest.raises(ConfigError, match=f"days: found {days}, expected 1 or more"):
        ExpiryConfig(checkpoint_root="anywhere", days=days)


def test_command_says_what_it_does(tmp_path: Path) -> None:
    train_bowl(tmp_path)
    made_days_ago(3, *(file for file in tmp_path.rglob("*") if file.is_file()))
    command = [sys.executable, "-m", "components.common.training.expiry", "--checkpoint-root", str(tmp_path)]

    kept, shown, deleted = (
        subprocess.run([*command, *flags], cwd=REPOSITORY, capture_output=True, text=True, check=True).stderr
        for flags in (["--days=4"], ["--days=2", "--dry-run=true"], ["--days=2", "--dry-run=false"])
    )

    assert "1 trainings, 0 checkpoints expired" in kept
    assert "would delete 5 checkpoints of " in shown and "1 trainings, 5 checkpoints expired" in shown
    assert "deleted 5 checkpoints of " in deleted
    assert keys_of(tmp_path) == []

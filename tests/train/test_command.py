"""A training as a command, with artifacts in folders and in object storage."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import ObjectNotFoundError
from components.common.storage import open_store
from components.common.training.config import TrainConfig
from components.train.command import TrainingCommand, add_training_flags, training_command

INPUTS = ("latent_set", "base_model", "initial_embedding")


class Trainer:
    """Reads its inputs and, when it is rank 0, writes what it read."""

    def __init__(self, rank: int = 0) -> None:
        self.rank, self.given = rank, dict[str, Any]()

    def __call__(self, config: TrainConfig, **given: Any) -> None:
        self.given = given
        said = [(given[name] / "deep" / "file").read_text() for name in INPUTS]
        if self.rank == 0:
            given["output"].mkdir(parents=True)
            (given["output"] / "said").write_text(" ".join(said))


def make_command(where: str) -> TrainingCommand:
    for name in INPUTS:
        open_store(f"{where}/{name}").write("deep/file", name.encode())
    places = {name: f"{where}/{name}" for name in (*INPUTS, "output")}
    return TrainingCommand(
        config=TrainConfig(), checkpoint_root=f"{where}/c", accelerator="cpu", framework="auto", **places
    )


@pytest.fixture(params=["gs", "s3", "minio", "file", "folder"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "gs":
            return request.getfixturevalue("gcs_bucket_uri")
        case "s3":
            return request.getfixturevalue("s3_bucket_uri")
        case "minio":
            return request.getfixturevalue("s3_bucket_uri").replace("s3://", "minio://")
        case "file":
            return (tmp_path / "a folder").as_uri()
        case _:
            return str(tmp_path / "a folder")


def test_artifacts_are_read_and_written_where_they_are(where: str) -> None:
    trainer = Trainer()
    make_command(where).run(trainer)
    assert open_store(where).read("output/said") == b"latent_set base_model initial_embedding"
    assert trainer.given["checkpoint_root"] == f"{where}/c" and trainer.given["accelerator"] == "cpu"


def test_artifacts_in_folders_are_not_copied(tmp_path: Path) -> None:
    for where in (str(tmp_path), tmp_path.as_uri()):
        trainer = Trainer(rank=1)
        make_command(where).run(trainer)
        assert {name: trainer.given[name] for name in (*INPUTS, "output")} == {
            name: tmp_path / name for name in (*INPUTS, "output")
        }


def test_output_is_uploaded_by_the_process_that_wrote_it(gcs_bucket_uri: str) -> None:
    command = make_command(gcs_bucket_uri)
    command.run(Trainer(rank=1))
    assert open_store(gcs_bucket_uri).list("output/") == []
    command.run(Trainer(rank=0))
    assert [info.key for info in open_store(gcs_bucket_uri).list("output/")] == ["output/said"]


def test_scratch_is_removed(gcs_bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trainer = Trainer()
    make_command(gcs_bucket_uri).run(trainer)
    assert trainer.given["latent_set"].is_relative_to(tmp_path) and list(tmp_path.iterdir()) == []


def test_missing_input_is_named(gcs_bucket_uri: str) -> None:
    command = dataclasses.replace(make_command(gcs_bucket_uri), base_model=f"{gcs_bucket_uri}/nothing")
    with pytest.raises(ObjectNotFoundError, match=f"{gcs_bucket_uri}/nothing/: there is no object"):
        command.run(Trainer())


@pytest.mark.parametrize("properties", [(), ("object", "style")])
def test_arguments_parse_back(properties: tuple[str, ...]) -> None:
    config = TrainConfig(seed=2**40, learning_rate=1e-9, adam_beta2=0.9995, allow_tf32=True, fuse_micro_batches=False)
    places = {name: f"gs://bucket/a folder/{name}=1" for name in (*INPUTS, "output")}
    command = TrainingCommand(
        config=config,
        checkpoint_root="s3://b/c",
        accelerator="tpu",
        framework="flax",
        learnable_properties=properties,
        **places,
    )
    assert any("properties" in argument for argument in command.arguments()) == bool(properties)
    parser = argparse.ArgumentParser()
    add_training_flags(parser)
    assert training_command(parser.parse_args(command.arguments())) == command

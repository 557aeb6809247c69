"""The light images: each step as a command and as the compiled pipeline starts it, in a locked-up container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.common.artifacts import ImageSet, InitialEmbedding
from components.common.base_model import read_reference
from components.common.registry.registry import list_versions
from components.common.training.config import TrainConfig
from components.import_base_model.config import ImportConfig
from components.ingest_images.config import IngestConfig
from components.init_embedding.config import InitConfig
from components.publish.config import PublishConfig
from components.train.config import TrainStepConfig
from components.train.nodes.config import LaunchConfig
from pipelines.form import as_form
from pipelines.presets import SPRITES_DEMO
from tests.images.engine import ROOT, Engine
from tests.images.pod import PIPELINE, pod_command
from tests.publish.conftest import write_inputs

SPRITES = "/sprites"
INSIDE = "/gcs/bucket"
"""Where a step finds the bucket `gs://bucket`."""

Run = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a command in the container of an image; fails when the command does."""


@pytest.fixture(scope="session")
def run(engine: Engine, images: dict[str, str], bucket: Path) -> Run:
    """Runs a command in the container of an image, beside the bucket and the tiny world."""
    folders = {INSIDE: bucket, SPRITES: ROOT / "examples/sprites", "/dev/termination-log": bucket / "termination-log"}

    def run_in_container(name: str, command: Sequence[str], *, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        folders["/dev/termination-log"].write_text("")
        folders["/dev/termination-log"].chmod(0o666)
        done = engine.run(images[name], *command, folders=folders)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done

    return run_in_container


def command(step: str, *positional: str, **flags: str) -> list[str]:
    """A step as a command."""
    named = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ["python", "-m", f"components.{step}", *positional, *named]


@pytest.fixture(scope="session")
def base_model(run: Run, bucket: Path) -> Path:
    """The reference of the tiny model, imported as in the pipeline."""
    config = ImportConfig(source=f"{SPRITES}/base_model", store_uri=f"{INSIDE}/models")
    run("dataset", pod_command("import_base_model", config, {"reference": "gs://bucket/base_model"}))
    return bucket / "base_model"


def test_preflight_gives_what_the_other_steps_need(run: Run, bucket: Path):
    options = {**_in_container(SPRITES_DEMO), "storage_uri": INSIDE}
    form = {**as_form(options, PIPELINE["root"]["inputDefinitions"]["parameters"]), "training_images": {}}
    run("tokenizer", pod_command("preflight", form, output=f"{INSIDE}/preflight/output.json"))
    given = json.loads((bucket / "preflight/output.json").read_text())["parameterValues"]
    (bucket / "parameters.json").write_text(json.dumps(options))
    printed = run("tokenizer", command("preflight", f"{INSIDE}/parameters.json")).stdout
    assert json.loads(printed) == given
    assert json.loads(given["publish"])["registry_uri"].startswith(INSIDE)


def test_import_gives_the_same_reference_as_a_command(run: Run, bucket: Path, base_model: Path):
    run(
        "dataset",
        command(
            "import_base_model",
            source=f"{SPRITES}/base_model",
            store_uri=f"{INSIDE}/models",
            output=f"{INSIDE}/imported",
        ),
    )
    assert read_reference(bucket / "imported").digest == read_reference(base_model).digest


def test_pictures_are_the_same_from_command_and_pipeline(run: Run, bucket: Path):
    pictures = f"{SPRITES}/concepts/purple-dotted-star/training"
    artifacts = {"image_set": "gs://bucket/pictures/pipeline"}
    run("dataset", pod_command("ingest_images", IngestConfig(images_uri=pictures, resolution=32), artifacts))
    run(
        "dataset",
        command("ingest_images", images_uri=pictures, resolution="32", output=f"{INSIDE}/pictures/command"),
    )
    sets = [ImageSet.read(bucket / "pictures" / way) for way in ("pipeline", "command")]
    assert sets[0].digest == sets[1].digest
    assert len(sets[0].pictures) == 5


def test_initial_rows_are_the_same_from_command_and_pipeline(run: Run, bucket: Path, base_model: Path):
    word = {"placeholder_token": "<cat-toy>", "initializer_token": "circle"}
    artifacts = {"base_model": "gs://bucket/base_model", "initial_embedding": "gs://bucket/initial/pipeline"}
    artifacts["start_word"] = "gs://bucket/not-read"
    run("tokenizer", pod_command("init_embedding", InitConfig(**word, num_vectors=2), artifacts))
    folders = {"base_model": f"{INSIDE}/base_model", "output": f"{INSIDE}/initial/command"}
    run("tokenizer", command("init_embedding", **word, num_vectors="2", **folders))
    embeddings = [InitialEmbedding.read(bucket / "initial" / way) for way in ("pipeline", "command")]
    assert embeddings[0].digest == embeddings[1].digest
    assert embeddings[0].rows["text_encoder"].shape[0] == 2


def test_published_version_is_found_by_command_and_pipeline(run: Run, bucket: Path):
    write_inputs(bucket / "inputs")
    registry = f"{INSIDE}/registry"
    artifacts = {
        **{name: f"gs://bucket/inputs/{name}" for name in ("base_model", "learned_embedding", "evaluation")},
        "registry_entry": "gs://bucket/entry/pipeline",
    }
    run("publish", pod_command("publish", PublishConfig(registry_uri=registry), artifacts, run_id="run-1"))
    folders = {name: f"{INSIDE}/inputs/{name}" for name in ("base_model", "learned_embedding", "evaluation")}
    folders["output"] = f"{INSIDE}/entry/command"
    address = run("publish", command("publish", "publish", registry_uri=registry, run_id="run-1", **folders)).stdout
    assert address.strip().endswith("/registry/cat-toy/versions/1")
    assert [entry.version for entry in list_versions(str(bucket / "registry"), "cat-toy")] == [1]
    listed = run("publish", command("publish", "list", "cat-toy", registry_uri=registry)).stdout
    assert "champion" in listed


def test_launcher_says_that_it_is_in_no_cluster(run: Run):
    assert "--num-nodes" in run("launcher", command("train.nodes", "--help")).stdout
    artifacts = {
        name: f"gs://bucket/{name}"
        for name in ("latent_set", "base_model", "initial_embedding", "learned_embedding", "training_metrics")
    }
    config = TrainStepConfig(
        checkpoint_root="gs://bucket/checkpoints", training=TrainConfig(), nodes=LaunchConfig(num_nodes=2)
    )
    launching = run("launcher", pod_command("train", config, artifacts), exit_code=6)
    said = launching.stdout + launching.stderr  # KFP's executor logs to standard output
    assert "kubeconfig" in said and "Traceback" not in said


def test_step_that_fails_says_why_in_one_line_in_the_termination_log_too(run: Run, bucket: Path):
    config = IngestConfig(images_uri="/nowhere")
    failed = run("dataset", pod_command("ingest_images", config, {"image_set": "gs://bucket/none"}), exit_code=2)
    assert "ERROR found no folder /nowhere" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    reason = (bucket / "termination-log").read_text()
    assert reason.startswith("found no folder /nowhere") and "\n" not in reason


def _in_container(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose paths to the tiny world are those in a container."""
    here = str(ROOT / "examples/sprites")
    return {
        name: value.replace(here, SPRITES) if isinstance(value, str) else value for name, value in parameters.items()
    }

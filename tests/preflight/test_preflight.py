"""The preflight step on local sources."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.common.errors import BaseModelError, ConfigError, ImageError, StorageError
from components.common.storage import open_store
from components.flax_models.model_check import CONFIG_FILES
from components.preflight.parameters import complete_parameters
from components.preflight.preflight import PROBE, preflight


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Parameters whose sources are all there."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "1.png")
    for name in ("model", "clip"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    return {
        "storage_uri": (tmp_path / "storage").as_uri(),
        "images_uri": str(tmp_path / "images"),
        "base_model": str(tmp_path / "model"),
        "scorer": str(tmp_path / "clip"),
        "placeholder_token": "<dot>",
        "initializer_token": "dot",
        "accelerator": "cpu",
        "accelerator_count": "0",
    }


def test_preflight_gives_fingerprints_and_addresses(given: dict[str, Any], tmp_path: Path):
    checked = preflight(complete_parameters(given))
    assert checked.models_uri == given["storage_uri"] + "/models"
    assert checked.images_fingerprint == checked.scoring_images_fingerprint != ""
    assert checked.base_model_fingerprint != checked.scorer_fingerprint
    assert (tmp_path / "storage" / PROBE).is_file()


def test_fingerprint_changes_with_a_picture_and_only_with_it(given: dict[str, Any], tmp_path: Path):
    before = preflight(complete_parameters(given))
    assert preflight(complete_parameters(given)) == before
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(tmp_path / "images" / "2.png")
    after = preflight(complete_parameters(given))
    assert after.images_fingerprint != before.images_fingerprint
    assert after.base_model_fingerprint == before.base_model_fingerprint


def test_preflight_looks_at_no_source_when_a_parameter_is_wrong(given: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match="learning_rate"):
        preflight(complete_parameters({**given, "learning_rate": -1.0}))
    assert not (tmp_path / "storage").exists()


def test_preflight_names_every_source_that_is_not_there(given: dict[str, Any], tmp_path: Path):
    missing = {"images_uri": str(tmp_path / "no-images"), "base_model": str(tmp_path / "no-model")}
    with pytest.raises(ImageError) as caught:
        preflight(complete_parameters({**given, **missing}))
    assert "no-images" in str(caught.value)
    assert "no-model" in str(caught.value)


def test_preflight_refuses_a_base_model_folder_without_files(given: dict[str, Any], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match="empty"):
        preflight(complete_parameters({**given, "base_model": str(tmp_path / "empty")}))


def test_preflight_refuses_storage_that_cannot_be_written(given: dict[str, Any], tmp_path: Path):
    (tmp_path / "storage").write_text("a file where the folder is to be")
    with pytest.raises(StorageError, match="storage"):
        preflight(complete_parameters(given))


@pytest.fixture
def given_for_tpus(given: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Parameters of a run on TPUs, with the JSON files of a model that the Flax modules compute."""
    sprites = Path(__file__).parents[2] / "examples" / "sprites" / "base_model"
    for name in CONFIG_FILES:
        (tmp_path / "model" / name).parent.mkdir(parents=True)
        shutil.copyfile(sprites / name, tmp_path / "model" / name)
    return {**given, "accelerator": "tpu", "accelerator_count": "4"}


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_model_for_tpus_is_looked_at_and_its_resource_given(given_for_tpus: dict[str, Any]):
    checked = preflight(complete_parameters(given_for_tpus))
    assert (checked.accelerator_resource, checked.evaluation_accelerator_count) == ("google.com/tpu", "4")
    assert (checked.encoding_accelerator, checked.encoding_accelerator_count) == ("cpu", "0")
    assert checked.encoding_accelerator_resource != "google.com/tpu"


def test_model_that_flax_does_not_compute_is_refused_for_tpus_alone(given_for_tpus: dict[str, Any], tmp_path: Path):
    change(tmp_path / "model" / "unet" / "config.json", addition_embed_type="text_time")
    change(tmp_path / "model" / "scheduler" / "scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(BaseModelError) as caught:
        preflight(complete_parameters(given_for_tpus))
    for told in (
        "accelerator tpu: ",
        f"{tmp_path / 'model'}",
        "addition_embed_type",
        "FlowMatchEulerDiscreteScheduler",
    ):
        assert told in str(caught.value)
    preflight(complete_parameters({**given_for_tpus, "accelerator": "gpu"}))


def test_evaluation_of_more_steps_than_the_model_has_is_refused_for_tpus(given_for_tpus: dict[str, Any]):
    with pytest.raises(BaseModelError, match="num_inference_steps: found 5000"):
        preflight(complete_parameters({**given_for_tpus, "evaluation_num_inference_steps": 5000}))


def test_model_in_a_bucket_is_looked_at_for_tpus(given_for_tpus: dict[str, Any], s3_bucket_uri: str):
    store = open_store(f"{s3_bucket_uri}/model")
    for name in CONFIG_FILES:
        store.write(name, (Path(given_for_tpus["base_model"]) / name).read_bytes())
    checked = preflight(complete_parameters({**given_for_tpus, "base_model": store.uri}))
    assert checked.base_model_fingerprint
    store.write("vae/config.json", json.dumps({"_class_name": "AutoencoderTiny"}).encode())
    with pytest.raises(BaseModelError, match=f"{store.uri}.* AutoencoderTiny"):
        preflight(complete_parameters({**given_for_tpus, "base_model": store.uri}))


def test_folder_without_the_files_of_a_model_is_refused_for_tpus(given_for_tpus: dict[str, Any], tmp_path: Path):
    (tmp_path / "model" / "vae" / "config.json").unlink()
    with pytest.raises(BaseModelError, match=r"lacks vae/config\.json, expected a Stable Diffusion model"):
        preflight(complete_parameters(given_for_tpus))


def command(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.preflight", str(file)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_command_prints_what_it_found_as_json(given: dict[str, Any], tmp_path: Path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(given))
    done = command(file)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["registry_uri"] == given["storage_uri"] + "/registry"


def test_command_ends_with_one_line_and_the_exit_code_of_an_input_error(given: dict[str, Any], tmp_path: Path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({**given, "resolution": 0}))
    done = command(file)
    assert done.returncode == 2
    assert "preflight failed: resolution: found 0" in done.stderr
    assert "Traceback" not in done.stderr

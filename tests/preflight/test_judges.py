"""What looks at samples and how they are drawn, as the preflight step checks it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.common.errors import BaseModelError, ConfigError
from components.import_base_model.config import ImportConfig
from components.preflight.options import check_options
from components.preflight.preflight import preflight
from tests.model_folders import write_json, write_weights

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Parameters whose sources are all there, with a DINO model that nobody asked for."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "1.png")
    shutil.copytree(SPRITES / "base_model", tmp_path / "model")
    write_json(tmp_path / "dino" / "config.json", {"model_type": "dinov2"})
    write_json(tmp_path / "dino" / "preprocessor_config.json", {})
    write_weights(tmp_path / "dino" / "model.safetensors", seed="dino")
    return {
        "storage_uri": (tmp_path / "storage").as_uri(),
        "images_uri": str(tmp_path / "images"),
        "base_model": str(tmp_path / "model"),
        "scorer": str(SPRITES / "clip"),
        "placeholder_token": "<dot>",
        "initializer_token": "circle",
        "accelerator": "cpu",
        "resolution": 32,
    }


def add_checker(model: Path) -> None:
    write_json(model / "safety_checker" / "config.json", {"model_type": "clip"})
    write_weights(model / "safety_checker" / "model.safetensors", seed="checker")
    write_json(model / "feature_extractor" / "preprocessor_config.json", {})


def imports(given: dict[str, Any], **more: Any) -> ImportConfig:
    return ImportConfig.from_json(preflight({**given, **more}).import_scorer)


def test_what_looks_at_samples_is_imported_with_the_scorer(given: dict[str, Any], tmp_path: Path) -> None:
    off = imports(given)
    assert (off.dino, off.safety_checker) == ("", "")
    add_checker(tmp_path / "model")
    on = imports(given, dino=str(tmp_path / "dino"), evaluation_safety_checker="on")
    assert on.dino == str(tmp_path / "dino") and on.dino_fingerprint
    assert on.safety_checker == given["base_model"] and on.safety_checker_fingerprint
    checked = preflight({**given, "dino": on.dino, "evaluation_safety_checker": "on"})
    assert checked.import_base_model == preflight(given).import_base_model, "what is trained stays the same"
    assert json.loads(checked.sample_and_score)["dino"] == on.dino


def test_base_model_without_a_safety_checker_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BaseModelError, match=r"^evaluation_safety_checker: .* it has no safety checker .*: leave eval"):
        preflight({**given, "evaluation_safety_checker": "on"})


def test_dino_that_is_none_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BaseModelError, match=r"^dino: .*config.json is of a clip, expected dinov2 or vit"):
        preflight({**given, "dino": given["scorer"]})


def test_evaluation_has_memory_for_all_that_looks_at_samples(given: dict[str, Any], tmp_path: Path) -> None:
    alone = preflight(given)
    weights = tmp_path / "dino" / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(2**30)
    found = preflight({**given, "dino": str(tmp_path / "dino")})
    gib = [int(checked.evaluation_memory.removesuffix("Gi")) for checked in (alone, found)]
    assert gib[1] - gib[0] == 2
    assert found.encoding_memory == alone.encoding_memory


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("evaluation_sampler", "heun", "one of auto, ddim, dpm-solver[+][+], euler"),
        ("evaluation_sampling_precision", "fp8", "one of auto, fp32, fp16, bf16"),
        ("evaluation_safety_checker", "maybe", "one of off, on"),
    ],
)
def test_choices_are_told(given: dict[str, Any], name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: found '{value}', expected {expected}"):
        check_options({**given, name: value})


def test_half_precision_of_gpus_is_refused_on_tpus(given: dict[str, Any]) -> None:
    slice_ = {"cloud.google.com/gke-tpu-topology": "2x2"}
    tpu = {"accelerator": "tpu", "accelerator_count": 4, "train_batch_size": 4, "accelerator_node_selector": slice_}
    with pytest.raises(ConfigError, match="evaluation_sampling_precision: found fp16 with accelerator tpu"):
        check_options({**given, **tpu, "evaluation_sampling_precision": "fp16"})


def test_steps_that_the_sampler_does_not_have_are_refused_on_tpus(given: dict[str, Any]) -> None:
    flax = {**given, "framework": "flax", "evaluation_num_inference_steps": 1000}
    preflight({**flax, "evaluation_sampler": "euler"})
    with pytest.raises(BaseModelError, match="num_inference_steps: found 1000, expected 1 to 999"):
        preflight({**flax, "evaluation_sampler": "dpm-solver++"})

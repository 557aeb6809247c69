"""What cannot be right is refused before a file of weights is read, by its name, with what was found and expected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import TextualInversionError
from components.preflight.preflight import preflight

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
NAN, INFINITY = float("nan"), float("inf")
LONG = "a photo of " + "very " * 90 + "nice {}"
TOPOLOGY = "cloud.google.com/gke-tpu-topology"

OPTIONS: list[tuple[str, Any]] = [
    ("storage_uri", ""),
    ("storage_uri", " gs://bucket/ti"),
    ("storage_uri", "ftp://bucket/ti"),
    ("images_uri", ""),
    ("images_uri", "gs://bucket/cats\n"),
    ("images_uri", "nowhere/at/all"),
    ("images_uri", "hf://cats"),
    ("scoring_images_uri", "nowhere/at/all"),
    ("scoring_images_uri", " "),
    ("base_model", ""),
    ("base_model", "nowhere/at/all"),
    ("base_model", "hf://only-a-name"),
    ("base_model", str(SPRITES / "clip")),
    ("base_model", str(SPRITES / "concepts")),
    ("base_model_variant", "fp16 "),
    ("base_model_variant", "a/b"),
    ("scorer", ""),
    ("scorer", str(SPRITES / "base_model")),
    ("accelerator", "npu"),
    ("accelerator", 1),
    ("accelerator_count", "one"),
    ("accelerator_count", -1),
    ("accelerator_count", 1.5),
    ("accelerator_node_selector", "pool=a"),
    ("accelerator_node_selector", ["pool"]),
    ("accelerator_tolerations", "all"),
    ("framework", "tensorflow"),
    ("cpu_per_node", "four"),
    ("memory_per_node", "16GB"),
    ("encoding_memory", "-1Gi"),
    ("evaluation_cpu", "1,5"),
    ("resolution", 0),
    ("resolution", 33),
    ("resolution", "large"),
    ("interpolation", "cubist"),
    ("center_crop", 1),
    ("center_crop", "perhaps"),
    ("small_images", "drop"),
    ("placeholder_token", "cat toy"),
    ("placeholder_token", "<x>\n"),
    ("placeholder_token", "circle"),
    ("initializer_token", ""),
    ("initializer_token", "purple stars"),
    ("initializer_embedding", "old.pt"),
    ("initializer_embedding", "nowhere/at/all.safetensors"),
    ("num_vectors", 0),
    ("num_vectors", 70),
    ("num_vectors", True),
    ("learnable_property", "person"),
    ("seed", -1),
    ("seed", 2**53),
    ("repeats", 0),
    ("flip_probability", 1.5),
    ("train_batch_size", "many"),
    ("max_train_steps", -1),
    ("max_train_steps", 3000.5),
    ("learning_rate", 0),
    ("learning_rate", NAN),
    ("learning_rate", INFINITY),
    ("learning_rate", "fast"),
    ("scale_lr", "yes please"),
    ("lr_scheduler", "sometimes"),
    ("adam_beta2", 1),
    ("norm_control", "clip"),
    ("timestep_max", 1000),
    ("clip_skip", 2),
    ("mixed_precision", "fp8"),
    ("early_stopping_window", 1),
    ("early_stopping_min_gain", 1),
    ("early_stopping_min_steps", -1),
    ("resume_from_checkpoint", "step-00000500"),
    ("resume_from_checkpoint", ""),
    ("num_nodes", 0),
    ("queue", "a queue"),
    ("evaluation_prompts", ["no place for it"]),
    ("evaluation_prompts", [1]),
    ("evaluation_prompts", [LONG]),
    ("evaluation_negative_prompt", "red " * 80),
    ("evaluation_guidance_scale", -1),
    ("evaluation_min_clip_i", 2),
    ("concept_name", "a/b"),
    ("registry_alias", "7"),
    ("promote_if", "perhaps"),
    ("lerning_rate", 1e-3),
]

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "another family": ("model_index.json", {"_class_name": "FluxPipeline"}),
    "inpainting": ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}),
    "channels": ("unet/config.json", {"in_channels": 9}),
    "text encoder": ("model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]}),
    "VAE": ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}),
    "no VAE": ("model_index.json", {"vae": [None, None]}),
    "prediction": ("scheduler/scheduler_config.json", {"prediction_type": "sample"}),
    "no length": ("text_encoder/config.json", {"max_position_embeddings": None}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model and the scorer, whose weights would be refused if they were read."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("base_model", "clip"):
        shutil.copytree(SPRITES / name, folder / name)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"")
    return folder


def refused(models: Path, tmp_path: Path, **changes: Any) -> tuple[str, ...]:
    given = {
        "storage_uri": (tmp_path / "storage").as_uri(),
        "images_uri": str(SPRITES / "concepts" / "purple-dotted-star" / "training"),
        "base_model": str(models / "base_model"),
        "scorer": str(models / "clip"),
        "placeholder_token": "<dot>",
        "initializer_token": "circle",
        "accelerator": "cpu",
        "resolution": 32,
    }
    with pytest.raises(TextualInversionError) as caught:
        preflight({**given, **changes})
    assert caught.value.exit_code == 2 or "storage_uri" in changes
    return caught.value.mistakes


@pytest.mark.parametrize(("name", "value"), OPTIONS)
def test_value_is_refused_by_the_name_of_its_option(models: Path, tmp_path: Path, name: str, value: Any):
    mistakes = refused(models, tmp_path, **{name: value})
    assert all(mistake.startswith(f"{name}: ") for mistake in mistakes), mistakes
    assert all("\n" not in mistake for mistake in mistakes)


@pytest.mark.parametrize("case", MODELS)
def test_model_is_refused_by_the_name_of_its_option(models: Path, tmp_path: Path, case: str):
    file, fields = MODELS[case]
    shutil.copytree(models / "base_model", tmp_path / "model")
    changed = tmp_path / "model" / file
    changed.write_text(json.dumps({**json.loads(changed.read_text()), **fields}))
    mistakes = refused(models, tmp_path, base_model=str(tmp_path / "model"))
    assert all(mistake.startswith("base_model: ") for mistake in mistakes), mistakes


def test_four_mistakes_are_told_at_once(models: Path, tmp_path: Path):
    wrong = {"learning_rate": NAN, "resolution": 0, "num_vectors": 0, "images_uri": ""}
    mistakes = refused(models, tmp_path, **wrong)
    assert {mistake.partition(":")[0] for mistake in mistakes} == set(wrong)


def test_sources_that_are_not_there_are_told_with_the_mistakes_of_options(models: Path, tmp_path: Path):
    wrong = {
        "learning_rate": 0,
        "images_uri": "nowhere/at/all",
        "scorer": "hf://only-a-name",
        "scoring_images_uri": " ",
    }
    mistakes = refused(models, tmp_path, **wrong)
    assert sorted(mistake.partition(":")[0] for mistake in mistakes) == sorted(wrong)

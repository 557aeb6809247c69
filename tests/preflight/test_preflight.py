"""The preflight step on local sources."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from components.common.artifact_folder import sha256_of_file
from components.common.artifacts import LEARNED_EMBEDS, learned_embeds_bytes
from components.common.errors import (
    BaseModelError,
    ConfigError,
    ImageError,
    InputError,
    StorageError,
    TokenError,
)
from components.common.images import image
from components.common.registry.aliases import advance_alias
from components.common.registry.entry import Bundle, Facts, RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.versions import publish_version
from components.common.storage import open_store
from components.evaluate.config import EvaluateConfig
from components.init_embedding.config import InitConfig
from components.preflight.preflight import Checked, preflight
from components.preflight.sources import PROBE
from components.train.config import TrainStepConfig
from tests.preflight.test_champion import publish

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Parameters whose sources are all there."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "1.png")
    shutil.copytree(SPRITES / "base_model", tmp_path / "model")
    shutil.copytree(SPRITES / "clip", tmp_path / "clip")
    return {
        "storage_uri": (tmp_path / "storage").as_uri(),
        "images_uri": str(tmp_path / "images"),
        "base_model": str(tmp_path / "model"),
        "scorer": str(tmp_path / "clip"),
        "placeholder_token": "<dot>",
        "initializer_token": "circle",
        "accelerator": "cpu",
        "resolution": 32,
    }


def told(checked: Checked, step: str) -> dict[str, Any]:
    """What a step is told."""
    content: dict[str, Any] = json.loads(getattr(checked, step))
    return content


def test_every_step_is_told_where_its_sources_and_results_are_and_their_state(given: dict[str, Any], tmp_path: Path):
    checked = preflight(given)
    model, scorer = told(checked, "import_base_model"), told(checked, "import_scorer")
    assert model["store_uri"] == scorer["store_uri"] == given["storage_uri"] + "/models"
    assert (model["kind"], scorer["kind"]) == ("diffusion", "clip")
    assert "" != model["source_fingerprint"] != scorer["source_fingerprint"] != ""
    assert told(checked, "prepare_pictures") == told(checked, "prepare_scoring_set")
    assert told(checked, "prepare_pictures")["images_fingerprint"] != ""
    assert told(checked, "train")["checkpoint_root"] == given["storage_uri"] + "/checkpoints"
    assert told(checked, "publish")["registry_uri"] == given["storage_uri"] + "/registry"
    assert not (tmp_path / "storage" / PROBE).exists(), "what was written to try the storage is deleted again"


def test_every_text_is_a_config_of_its_step_and_has_its_options_alone(given: dict[str, Any]):
    before, after = preflight(given), preflight({**given, "learning_rate": "3e-4"})
    assert TrainStepConfig.from_json(after.train).training.learning_rate == 3e-4
    assert EvaluateConfig.from_json(after.sample_and_score).accelerator == "cpu"
    assert InitConfig.from_json(after.add_the_new_word).placeholder_token == "<dot>"
    assert {name for name, text in vars(before).items() if text != getattr(after, name)} == {"train"}


def test_champion_is_in_the_config_of_the_evaluation_alone_and_changes_it(given: dict[str, Any]):
    before = preflight(given)
    assert told(before, "sample_and_score")["champion"] == {"alias": "champion", "version": 0, "uri": "", "digest": ""}
    registry = given["storage_uri"] + "/registry"
    address = publish(registry)
    after = preflight(given)
    assert told(after, "sample_and_score")["champion"] == dataclasses.asdict(address)
    assert {name for name, text in vars(before).items() if text != getattr(after, name)} == {"sample_and_score"}
    publish(registry, b"other rows")
    assert told(preflight(given), "sample_and_score")["champion"]["version"] == 2
    assert told(preflight({**given, "promote_if": "always"}), "sample_and_score")["champion"] == {}
    assert told(preflight({**given, "promote_if": "never"}), "publish")["promote_if"] == "never"


def test_step_that_finds_the_start_word_has_the_options_that_it_depends_on_alone(given: dict[str, Any]):
    before = preflight(given)
    told_all = {"initializer_token": "circle", "learnable_property": "object", "clip_skip": 0, "accelerator": "cpu"}
    assert told(before, "find_the_start_word") == told_all
    after = preflight({**given, "num_vectors": 2, "placeholder_token": "<x>", "max_train_steps": 7})
    assert after.find_the_start_word == before.find_the_start_word
    found = preflight({**given, "initializer_token": "auto", "learnable_property": "style", "clip_skip": 1})
    assert told(found, "find_the_start_word") == {
        "initializer_token": "auto",
        "learnable_property": "style",
        "clip_skip": 1,
        "accelerator": "cpu",
    }
    assert told(found, "add_the_new_word")["initializer_token"] == "auto"


def test_several_words_are_checked_one_by_one_and_auto_by_no_tokenizer(given: dict[str, Any]):
    preflight({**given, "initializer_token": "purple star"})
    preflight({**given, "initializer_token": "auto"})
    with pytest.raises(TokenError, match="initializer_token: 'automatic' is"):
        preflight({**given, "initializer_token": "automatic"})


def test_existing_embedding_is_read_and_held_against_the_model(given: dict[str, Any], tmp_path: Path):
    old = tmp_path / "old.safetensors"
    width = json.loads((tmp_path / "model" / "text_encoder" / "config.json").read_text())["hidden_size"]
    safetensors.numpy.save_file({"<old>": np.ones((1, width), np.float32)}, old)
    checked = preflight({**given, "initializer_embedding": str(old)})
    assert told(checked, "add_the_new_word")["initializer_embedding_sha256"] == sha256_of_file(old)
    safetensors.numpy.save_file({"<old>": np.ones((1, width + 1), np.float32)}, old)
    with pytest.raises(
        BaseModelError, match=rf"initializer_embedding: .* with width {width + 1} .*expected .* width {width}"
    ):
        preflight({**given, "initializer_embedding": str(old)})
    for name, why in (("old.pt", "is pickled"), ("nowhere.safetensors", "nowhere.safetensors")):
        with pytest.raises((InputError, StorageError), match=f"initializer_embedding: .*{why}"):
            preflight({**given, "initializer_embedding": str(tmp_path / name)})


def publish_rows(
    storage_uri: str, value: float, *, width: int = 96, learned_from: Mapping[str, Any] | None = None
) -> RegistryEntry:
    """A version of the concept `dot` in the registry of this storage, which becomes its champion."""
    store = concept_store(f"{storage_uri}/registry", "dot")
    data = learned_embeds_bytes("<dot>", {"text_encoder": np.full((1, width), value, np.float32)}, {})
    facts = Facts(
        placeholder_token="<dot>",
        learnable_property="object",
        tokens=("<dot>",),
        passed=True,
        reasons=(),
        scores={},
        lineage={},
        learned_from=learned_from,
    )
    entry = publish_version(store, Bundle(concept="dot", facts=facts, files={LEARNED_EMBEDS: data}), "run")
    advance_alias(store, "champion", entry.version)
    return entry


def test_alias_to_start_from_is_followed_to_a_file_that_never_changes(given: dict[str, Any]):
    start = {**given, "initializer_embedding": "registry:dot@champion"}
    with pytest.raises(StorageError, match=r"initializer_embedding: found no alias 'champion' of .*: none"):
        preflight(start)
    seen = []
    for value in (0.5, 0.25):
        entry = publish_rows(given["storage_uri"], value)
        word = told(preflight(start), "add_the_new_word")
        assert word["initializer_embedding"] == f"{entry.uri}/{LEARNED_EMBEDS}"
        assert word["initializer_embedding_sha256"] == entry.files[LEARNED_EMBEDS].sha256
        seen.append(word)
    assert seen[0] != seen[1]
    first = {**given, "initializer_embedding": "registry:dot@1"}
    assert told(preflight(first), "add_the_new_word") == seen[0]
    for which, why in (("staging", "whose aliases are: champion"), ("7", "which has versions 1 to 2")):
        with pytest.raises(StorageError, match=f"initializer_embedding: found no .*{why}"):
            preflight({**given, "initializer_embedding": f"registry:dot@{which}"})
    for address in ("registry:dot", "registry:@champion", "registry:a/b@c"):
        with pytest.raises(ConfigError, match=r"initializer_embedding: found .* expected registry:CONCEPT@"):
            preflight({**given, "initializer_embedding": address})
    open_store(entry.uri).write(LEARNED_EMBEDS, open_store(entry.uri).read(LEARNED_EMBEDS)[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match=r"initializer_embedding: .*does not match the manifest of its version"):
        preflight(start)


def test_licence_of_the_base_model_is_that_of_the_word_unless_another_is_given(given: dict[str, Any], tmp_path: Path):
    assert told(preflight(given), "publish")["license"] == ""
    (tmp_path / "model" / "README.md").write_text("---\nlicense: openrail++\n---\n")
    assert told(preflight(given), "publish")["license"] == ""
    (tmp_path / "model" / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    assert told(preflight(given), "publish")["license"] == "creativeml-openrail-m"
    assert told(preflight({**given, "license": "mit"}), "publish")["license"] == "mit"


def test_early_stopping_that_cannot_come_is_warned_of(given: dict[str, Any], caplog: pytest.LogCaptureFixture):
    looks = {"early_stopping_every": 10, "early_stopping_window": 20}
    preflight({**given, **looks, "max_train_steps": 200})
    assert "early_stopping" not in caplog.text
    preflight({**given, **looks, "max_train_steps": 199})
    assert "early_stopping_every: the training cannot stop before step 200" in caplog.text


def test_fingerprint_changes_with_a_picture_and_only_with_it(given: dict[str, Any], tmp_path: Path):
    before = preflight(given)
    assert preflight(given) == before
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(tmp_path / "images" / "2.png")
    after = preflight(given)
    assert after.prepare_pictures != before.prepare_pictures
    assert after.import_base_model == before.import_base_model


def test_nothing_is_written_when_an_option_is_wrong(given: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match="learning_rate"):
        preflight({**given, "learning_rate": -1.0})
    assert not (tmp_path / "storage").exists()


def enlarge(folder: Path, gigabytes: float) -> None:
    """Makes the weights of the UNet as large, without room on the disk, and those of a variant twice as large."""
    for suffix, size in (("safetensors", gigabytes), ("fp16.safetensors", 2 * gigabytes)):
        with (folder / "unet" / f"diffusion_pytorch_model.{suffix}").open("wb") as file:
            file.truncate(int(size * 2**30))


def test_pods_of_a_small_model_fit_a_small_node(given: dict[str, Any]):
    checked = preflight(given)
    for pod in ("encoding", "training", "evaluation"):
        assert float(getattr(checked, f"{pod}_cpu")) <= 2
        assert float(getattr(checked, f"{pod}_memory").removesuffix("Gi")) <= 4
        assert getattr(checked, f"{pod}_accelerator_count") == "0"


def test_pods_grow_with_the_model_and_the_gpus_unless_they_are_given(given: dict[str, Any], tmp_path: Path):
    enlarge(tmp_path / "model", 2.99)
    one = preflight({**given, "accelerator": "gpu"})
    assert (one.training_cpu, one.training_memory, one.encoding_memory) == ("4", "11Gi", "8Gi")
    assert (one.training_accelerator, one.training_accelerator_count) == ("nvidia.com/gpu", "1")
    assert preflight({**given, "accelerator": "gpu", "accelerator_count": 2}).training_memory == "22Gi"
    assert preflight({**given, "accelerator": "gpu", "base_model_variant": "fp16"}).training_memory == "20Gi"
    drawing = preflight({**given, "accelerator": "gpu", "accelerator_count": 2, "validation_prompt": "a {}"})
    assert drawing.training_memory == "30Gi", "one process more, whatever the number of GPUs"
    set_ = preflight({**given, "memory_per_node": "5Gi", "evaluation_cpu": "3", "encoding_memory": "7Gi"})
    assert (set_.training_memory, set_.evaluation_cpu, set_.encoding_memory) == ("5Gi", "3", "7Gi")


@pytest.mark.parametrize(
    ("gigabytes", "accelerator", "warned"), [(2, "tpu", True), (2, "gpu", False), (0.1, "cpu", False)]
)
def test_search_for_a_word_that_takes_hours_is_warned_of(
    gigabytes: float,
    accelerator: str,
    warned: bool,
    given_for_tpus: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    enlarge(tmp_path / "model", gigabytes)
    for word in ("circle", "auto"):
        assert "initializer_token: auto measures hundreds of words" not in caplog.text
        preflight({**given_for_tpus, "accelerator": accelerator, "initializer_token": word})
    assert ("initializer_token: auto measures hundreds of words" in caplog.text) is warned


def test_pods_grow_with_the_pictures_where_no_accelerator_holds_them(given: dict[str, Any]):
    def gibibytes(**changes: Any) -> list[int]:
        checked = preflight({**given, "train_batch_size": 2, **changes})
        pods = ("encoding", "training", "evaluation")
        return [int(getattr(checked, f"{pod}_memory").removesuffix("Gi")) for pod in pods]

    small = gibibytes()
    large = gibibytes(resolution=1024)
    assert [after - before for before, after in zip(small, large, strict=True)] == [7, 19, 6]
    assert gibibytes(resolution=1024, accelerator="gpu") == small
    assert gibibytes(resolution=1024, accelerator="tpu", accelerator_count=1) == [large[0], *small[1:]]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "train-torch"),
        ({"framework": "flax"}, "train-flax"),
        ({"framework": "flax", "accelerator": "gpu"}, "train-flax-gpu"),
        ({"accelerator": "tpu", "accelerator_count": 4}, "train-flax"),
        ({"num_nodes": 2, "accelerator": "gpu"}, "launcher"),
    ],
)
def test_image_of_the_training_step_is_that_of_what_trains(
    given_for_tpus: dict[str, Any], changes: dict[str, Any], name: str
):
    checked = preflight({**given_for_tpus, "accelerator": "cpu", "accelerator_count": 1, **changes})
    assert checked.training_image == image(name)
    elsewhere = {name: f"registry.example/{name}:9"}
    changed = preflight({**given_for_tpus, "accelerator": "cpu", "accelerator_count": 1, **changes}, {}, elsewhere)
    assert changed.training_image == elsewhere[name]
    if name == "launcher":
        assert (checked.training_cpu, checked.training_memory, checked.training_accelerator_count) == (
            "500m",
            "1Gi",
            "0",
        )
        assert told(checked, "train")["nodes"]["accelerator_count"] == 1


def test_preflight_names_every_source_that_is_not_there(given: dict[str, Any], tmp_path: Path):
    missing = {"images_uri": str(tmp_path / "no-images"), "base_model": str(tmp_path / "no-model")}
    with pytest.raises(ImageError) as caught:
        preflight({**given, **missing})
    assert "no-images" in str(caught.value)
    assert "no-model" in str(caught.value)


def test_preflight_refuses_a_base_model_folder_without_files(given: dict[str, Any], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match="empty"):
        preflight({**given, "base_model": str(tmp_path / "empty")})


def test_preflight_refuses_storage_that_cannot_be_written(given: dict[str, Any], tmp_path: Path):
    (tmp_path / "storage").write_text("a file where the folder is to be")
    with pytest.raises(StorageError, match="storage"):
        preflight(given)


def test_publishing_is_told_of_further_destinations_which_are_tried_as_far_as_can_be(
    given: dict[str, Any], tmp_path: Path
):
    folders = {"full_pipeline_uri": str(tmp_path / "full"), "metrics_uri": str(tmp_path / "metrics")}
    full = {**given, "save_as_full_pipeline": "true", **folders}
    assert told(preflight(full), "publish").items() >= folders.items()
    for folder in folders.values():
        shutil.rmtree(folder)
        Path(folder).write_text("a file where the folder is to be")
    with pytest.raises(StorageError, match=r"full_pipeline_uri: .*full.*metrics_uri: .*metrics"):
        preflight(full)


@pytest.fixture
def given_for_tpus(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a run on TPUs."""
    return {**given, "accelerator": "tpu", "accelerator_count": 4}


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_model_for_tpus_is_looked_at_and_its_resource_given(given_for_tpus: dict[str, Any]):
    checked = preflight(given_for_tpus)
    assert (checked.training_accelerator, checked.training_accelerator_count) == ("google.com/tpu", "4")
    assert (checked.evaluation_accelerator, checked.evaluation_accelerator_count) == ("google.com/tpu", "4")
    assert (checked.encoding_accelerator, checked.encoding_accelerator_count) == ("nvidia.com/gpu", "0")
    assert told(checked, "encode_pictures") == {"accelerator": "cpu"}


def test_model_that_flax_does_not_compute_is_refused_for_tpus_alone(given_for_tpus: dict[str, Any], tmp_path: Path):
    change(tmp_path / "model" / "unet" / "config.json", class_embed_type="timestep")
    change(tmp_path / "model" / "scheduler" / "scheduler_config.json", _class_name="UniPCMultistepScheduler")
    with pytest.raises(BaseModelError) as caught:
        preflight(given_for_tpus)
    for told in (
        "accelerator tpu: ",
        f"{tmp_path / 'model'}",
        "class_embed_type",
        "UniPCMultistepScheduler",
    ):
        assert told in str(caught.value)
    preflight({**given_for_tpus, "accelerator": "gpu"})


def test_evaluation_of_more_steps_than_the_model_has_is_refused_for_tpus(given_for_tpus: dict[str, Any]):
    with pytest.raises(BaseModelError, match="num_inference_steps: found 5000"):
        preflight({**given_for_tpus, "evaluation_num_inference_steps": 5000})


def test_model_in_a_bucket_is_looked_at_for_tpus(given_for_tpus: dict[str, Any], s3_bucket_uri: str):
    store = open_store(f"{s3_bucket_uri}/model")
    store.upload_folder(Path(given_for_tpus["base_model"]), "")
    checked = preflight({**given_for_tpus, "base_model": store.uri})
    assert told(checked, "import_base_model")["source_fingerprint"]
    store.write("vae/config.json", json.dumps({"_class_name": "AutoencoderTiny"}).encode())
    with pytest.raises(BaseModelError, match=f"{store.uri}.* AutoencoderTiny"):
        preflight({**given_for_tpus, "base_model": store.uri})


def test_folder_without_the_files_of_a_model_is_refused_for_tpus(given_for_tpus: dict[str, Any], tmp_path: Path):
    (tmp_path / "model" / "vae" / "config.json").unlink()
    with pytest.raises(BaseModelError, match=r"cannot be imported: vae/config\.json is missing"):
        preflight(given_for_tpus)


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
    publish = json.loads(json.loads(done.stdout)["publish"])
    assert publish["registry_uri"] == given["storage_uri"] + "/registry"


def test_command_ends_with_one_line_and_the_exit_code_of_an_input_error(given: dict[str, Any], tmp_path: Path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({**given, "resolution": 0}))
    done = command(file)
    assert done.returncode == 2
    assert "ERROR resolution: found 0" in done.stderr
    assert "Traceback" not in done.stderr


SOURCE = {
    "another family": ("model_index.json", {"_class_name": "FluxPipeline"}, "model_index.json is of a FluxPipeline"),
    "inpainting": ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, r"Pipeline \(inpainting\)"),
    "other channels": ("unet/config.json", {"in_channels": 9}, "the UNet takes 9 channels, the VAE's latents have 4"),
    "another text encoder": (
        "model_index.json",
        {"text_encoder": ["transformers", "T5EncoderModel"]},
        "T5EncoderModel",
    ),
    "another VAE": ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny"),
    "no VAE": ("model_index.json", {"vae": [None, None]}, "names no vae"),
    "another prediction": (
        "scheduler/scheduler_config.json",
        {"prediction_type": "sample"},
        "found prediction_type sample",
    ),
}


@pytest.mark.parametrize("case", SOURCE)
def test_model_that_no_trainer_takes_is_refused_before_its_weights_are_read(
    given: dict[str, Any], tmp_path: Path, case: str
):
    name, fields, told = SOURCE[case]
    change(tmp_path / "model" / name, **fields)
    for weights in (tmp_path / "model").rglob("*.safetensors"):
        weights.chmod(0)
        weights.write_bytes(b"")
    with pytest.raises(BaseModelError, match=told):
        preflight(given)


@pytest.mark.parametrize("resolution", [33, 35.0, "31"])
def test_resolution_that_the_vae_cannot_take_is_refused(given: dict[str, Any], resolution: Any):
    with pytest.raises(BaseModelError, match=rf"resolution: found {int(resolution)}, expected a multiple of \d"):
        preflight({**given, "resolution": resolution})


def test_scorer_that_is_no_clip_model_is_refused(given: dict[str, Any], tmp_path: Path):
    (tmp_path / "clip" / "preprocessor_config.json").unlink()
    with pytest.raises(BaseModelError, match=r"clip cannot be imported: preprocessor_config\.json is missing"):
        preflight(given)


def test_mistakes_of_all_sources_are_told_at_once(given: dict[str, Any], tmp_path: Path):
    change(tmp_path / "model" / "unet" / "config.json", in_channels=9)
    (tmp_path / "clip" / "preprocessor_config.json").unlink()
    with pytest.raises(ImageError) as refused:
        preflight({**given, "images_uri": str(tmp_path / "nowhere")})
    assert len(refused.value.mistakes) == 3


LONG = "a photo of " + "very " * 90 + "nice {}"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"initializer_token": "purple stars"}, "initializer_token: 'stars' is 3 tokens"),
        ({"placeholder_token": "circle"}, "placeholder_token: the tokenizer has 'circle' already"),
        ({"num_vectors": 70}, "num_vectors: found 70, expected at most"),
        ({"evaluation_prompts": [LONG]}, r"evaluation_prompts: found 'a photo of very .*\.\.\.' of \d+ tokens"),
        ({"evaluation_prompts": ["a {}", LONG]}, "evaluation_prompts: found"),
        ({"evaluation_reference_prompt": "red " * 80}, "evaluation_prompts: found"),
        ({"evaluation_negative_prompt": "red " * 80}, "evaluation_negative_prompt: found 'red red"),
    ],
)
def test_word_or_prompt_that_the_model_cannot_take_is_refused(
    given: dict[str, Any], changes: dict[str, Any], told: str
):
    with pytest.raises(TokenError, match=told):
        preflight({**given, **changes})


def test_mistakes_of_the_word_are_told_at_once(given: dict[str, Any]):
    with pytest.raises(TokenError) as refused:
        preflight(
            {**given, "placeholder_token": "star", "initializer_token": "purple stars", "evaluation_prompts": [LONG]}
        )
    assert [mistake.partition(":")[0] for mistake in refused.value.mistakes] == [
        "initializer_token",
        "placeholder_token",
        "evaluation_prompts",
    ]


@pytest.mark.parametrize("wanted", ["", "Latest", "checkpoint-500", "step-00000300"])
def test_checkpoint_that_is_not_there_is_refused_with_those_that_are(
    given: dict[str, Any], tmp_path: Path, wanted: str
):
    with pytest.raises(ConfigError, match=r"resume_from_checkpoint: found .*, which has none at all"):
        preflight({**given, "resume_from_checkpoint": wanted})
    open_store(given["storage_uri"] + "/checkpoints").write(f"{'a' * 64}/step-00000200.safetensors", b"")
    with pytest.raises(ConfigError, match=r"resume_from_checkpoint: found .*, which has step-00000200"):
        preflight({**given, "resume_from_checkpoint": wanted})
    for name in ("step-00000200", "step-00000200.safetensors", "latest", "none"):
        preflight({**given, "resume_from_checkpoint": name})


@pytest.fixture
def given_sdxl(given: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same with a base model that has the parts of Stable Diffusion XL."""
    model = tmp_path / "model"
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(model / part, model / f"{part}_2")
    second = {
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    }
    change(model / "model_index.json", _class_name="StableDiffusionXLPipeline", **second)
    change(model / "text_encoder_2" / "config.json", hidden_size=128, projection_dim=32)
    widths = {"cross_attention_dim": 96 + 128, "projection_class_embeddings_input_dim": 32 + 6 * 8}
    conditioning = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, **widths}
    change(model / "unet" / "config.json", use_linear_projection=True, **conditioning)
    return given


def test_model_of_no_family_is_refused_by_what_it_has(given_sdxl: dict[str, Any], tmp_path: Path):
    change(tmp_path / "model" / "unet" / "config.json", addition_embed_type=None)
    told = "base_model: the base model has text_encoder, text_encoder_2 and a UNet with addition_embed_type None"
    with pytest.raises(BaseModelError, match=told):
        preflight(given_sdxl)


@pytest.mark.parametrize(
    ("part", "field", "found", "expected"),
    [
        ("unet", "cross_attention_dim", 96, 224),
        ("unet", "projection_class_embeddings_input_dim", 96, 80),
        ("text_encoder_2", "hidden_size", 224, 320),
        ("text_encoder_2", "projection_dim", 80, 128),
    ],
)
def test_parts_of_models_that_do_not_fit_each_other_are_refused(
    given_sdxl: dict[str, Any], tmp_path: Path, part: str, field: str, found: int, expected: int
):
    change(tmp_path / "model" / part / "config.json", **{field: found})
    with pytest.raises(BaseModelError, match=f"unet/config.json: found .* {found}, expected {expected}, which is what"):
        preflight(given_sdxl)


def test_every_text_encoder_is_looked_at(given_sdxl: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = tmp_path / "model"
    caplog.set_level("INFO")
    preflight(given_sdxl)
    assert "base_model: Stable Diffusion XL" in caplog.text
    change(model / "text_encoder_2" / "config.json", max_position_embeddings=16, num_hidden_layers=3)
    change(model / "text_encoder" / "config.json", num_hidden_layers=4)
    with pytest.raises(BaseModelError, match="clip_skip: found 2, expected less than 2"):
        preflight({**given_sdxl, "clip_skip": 2})
    long = "a photo of a {}" + " on the snow" * 5
    with pytest.raises(TokenError, match=r"evaluation_prompts: found .* expected at most 16") as caught:
        preflight({**given_sdxl, "evaluation_prompts": [long]})
    assert str(caught.value).count("evaluation_prompts") == 1


def test_tokenizers_that_number_words_differently_are_refused(given_sdxl: dict[str, Any], tmp_path: Path):
    file = tmp_path / "model" / "tokenizer_2" / "tokenizer.json"
    learned = json.loads(file.read_text())["model"]
    learned["vocab"]["one-more</w>"] = size = len(learned["vocab"])
    change(file, model=learned)
    change(tmp_path / "model" / "text_encoder_2" / "config.json", vocab_size=size + 1)
    with pytest.raises(BaseModelError, match=r"base_model: the tokenizers of .* number the tokens differently"):
        preflight(given_sdxl)


def test_word_of_another_family_is_refused_with_both_names(given_sdxl: dict[str, Any], tmp_path: Path):
    of_one, of_two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    row = np.ones((1, 96), np.float32)
    safetensors.numpy.save_file({"<old>": row}, of_one)
    safetensors.numpy.save_file({"clip_l": row, "clip_g": np.ones((1, 128), np.float32)}, of_two)
    preflight({**given_sdxl, "initializer_embedding": str(of_two)})
    told = r"initializer_embedding: .*one\.safetensors is a word for .* 1\.x or .*, expected one for .* XL"
    with pytest.raises(BaseModelError, match=told):
        preflight({**given_sdxl, "initializer_embedding": str(of_one)})


@pytest.mark.parametrize(
    ("resolution", "warned"), [(16, "from smaller ones"), (24, ""), (40, ""), (48, "larger ones make")]
)
def test_pictures_of_another_size_than_the_models_own_are_warned_of(
    resolution: int, warned: str, given: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    preflight({**given, "resolution": resolution})
    assert ("resolution: found" in caplog.text) is bool(warned)
    assert warned in caplog.text and "distilled" not in caplog.text


def test_model_that_was_distilled_to_a_few_steps_is_warned_of(
    given: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "model").rename(tmp_path / "sdxl-Turbo")
    preflight({**given, "base_model": str(tmp_path / "sdxl-Turbo")})
    assert "sdxl-Turbo is by its name distilled to a few steps" in caplog.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clip_skip": 2}, "clip_skip: found 2, expected less than 2, the layers"),
        ({"timestep_max": 1000}, "timestep_max: found 1000, expected at most 999"),
    ],
)
def test_training_that_the_model_cannot_take_is_refused(given: dict[str, Any], changes: dict[str, Any], told: str):
    with pytest.raises(BaseModelError) as refused:
        preflight({**given, **changes})
    assert refused.value.mistakes[0].startswith(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rate": 5e-4}, ""),
        ({"learning_rate": 0.3}, "learning_rate: found 3.0e-01 after scale_lr, whose steps are 15.0 times"),
        ({"learning_rate": 5e-3, "scale_lr": True, "train_batch_size": 4}, "found 2.0e-02 after scale_lr"),
        (
            {"learning_rate": 2e-3, "scale_lr": True, "train_batch_size": 4, "accelerator": "gpu", "num_nodes": 4},
            "found 3.2e-02 after scale_lr",
        ),
    ],
)
def test_learning_rate_whose_steps_are_long_is_warned_of(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture, changes: dict[str, Any], told: str
):
    with caplog.at_level("WARNING"):
        preflight({**given, **changes})
    warned = [record.message for record in caplog.records if record.message.startswith("learning_rate")]
    assert len(warned) == bool(told) and told in "".join(warned)

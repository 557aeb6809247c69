"""The steps up to the trained word work with a base model of two text encoders: SDXL's parts with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from components.common.artifacts import LEARNED_EMBEDS, LatentSet, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.errors import ConfigError
from components.common.time_ids import time_ids
from components.common.training.config import TrainConfig
from components.common.training.row_norms import LONG_STEP
from components.find_start_word.config import FindStartWordConfig
from components.find_start_word.find import find_start_word
from components.train.preview import PreviewConfig
from components.train.torch.preview import draw
from tests.conftest import imported
from tests.train import trainings
from tests.train.torch.conftest import make_inputs

SIDE = 16
CONFIG = {**trainings.SHORT, "max_train_steps": 4}


@pytest.fixture(scope="module")
def inputs(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of a training of two vectors."""
    folder = tmp_path_factory.mktemp("inputs")
    return make_inputs(folder, imported(tiny_sdxl, tmp_path_factory), num_vectors=2, side=SIDE)


@pytest.fixture(scope="module")
def trained(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LearnedEmbedding]:
    """The folder of a training, and what was learned."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, trainings.run("torch", folder, inputs, TrainConfig(**CONFIG))


def test_latents_are_scaled_and_told_as_the_model_wants(inputs: dict[str, Path]) -> None:
    latent_set = LatentSet.read(inputs["latent_set"])
    assert latent_set.latents[0].mean.shape == (4, SIDE // 2, SIDE // 2)
    assert time_ids(latent_set.latents[0].picture, mirrored=True) == (SIDE, SIDE, 0, 0, SIDE, SIDE)


def test_rows_of_both_text_encoders_are_learned_kept_and_loaded(
    trained: tuple[Path, LearnedEmbedding], tiny_sdxl: Path
) -> None:
    folder, learned = trained
    assert {name: rows.shape for name, rows in learned.rows.items()} == {
        "text_encoder": (2, 32),
        "text_encoder_2": (2, 48),
    }
    for name, rows in learned.rows.items():
        assert np.abs(rows - learned.initial_rows[name]).max() > 0.05
    (checkpoint,) = (folder / "checkpoints").glob("*/step-00000004.safetensors")
    kept = load_file(checkpoint)
    for kind in ("rows", "first_moment", "second_moment"):
        assert {key for key in kept if key.startswith(kind)} == {f"{kind}.{name}" for name in learned.rows}
    word = load_file(folder / "learned" / LEARNED_EMBEDS)
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    for key, name, tokenizer in (
        ("clip_l", "text_encoder", pipeline.tokenizer),
        ("clip_g", "text_encoder_2", pipeline.tokenizer_2),
    ):
        text_encoder = getattr(pipeline, name)
        pipeline.load_textual_inversion(word[key], token="<cat-toy>", text_encoder=text_encoder, tokenizer=tokenizer)
        ids = tokenizer.convert_tokens_to_ids(list(learned.tokens))
        found = text_encoder.get_input_embeddings().weight[ids].detach().numpy()
        np.testing.assert_array_equal(found, learned.rows[name])


def test_training_when_resumed_learns_the_same(
    trained: tuple[Path, LearnedEmbedding], inputs: dict[str, Path], tmp_path: Path
) -> None:
    options = {**CONFIG, "max_train_steps": 2}
    trainings.run("torch", tmp_path, inputs, TrainConfig(**options))
    resumed = trainings.run("torch", tmp_path, inputs, TrainConfig(**CONFIG))
    for name, rows in trained[1].rows.items():
        np.testing.assert_array_equal(resumed.rows[name], rows)


@pytest.mark.parametrize("changes", [{"ema_decay": 0.5, "max_embedding_norm": 0.5}, {"clip_skip": 1}])
def test_options_change_the_rows_of_both_text_encoders(
    trained: tuple[Path, LearnedEmbedding], inputs: dict[str, Path], tmp_path: Path, changes: dict[str, float]
) -> None:
    learned = trainings.run("torch", tmp_path, inputs, TrainConfig(**{**CONFIG, **changes}))
    for name, rows in trained[1].rows.items():
        assert np.abs(learned.rows[name] - rows).max() > 1e-3


def test_long_steps_are_told_once_by_the_shortest_rows(
    tiny_sdxl: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    model = Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))
    file = model / "text_encoder_2" / "model.safetensors"
    weights = load_file(file)
    (name,) = (name for name in weights if name.endswith("token_embedding.weight"))
    weights[name] /= 4
    save_file(weights, file, {"format": "pt"})
    inputs = make_inputs(tmp_path / "inputs", imported(model, tmp_path_factory), side=SIDE)
    trainings.run("torch", tmp_path, inputs, TrainConfig(**{**CONFIG, "max_train_steps": 1, "learning_rate": 0.9}))
    (told,) = (message for message in caplog.messages if message.startswith("learning_rate: found"))
    limit = LONG_STEP * float(weights[name].norm(dim=1).mean()) / weights[name].shape[1] ** 0.5
    assert f"expected at most {limit:.1e}, " in told


def test_more_layers_than_there_are_cannot_be_left_out(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clip_skip: found 2, expected less than 2"):
        trainings.run("torch", tmp_path, inputs, TrainConfig(**CONFIG, clip_skip=2))


def test_start_word_is_measured(inputs: dict[str, Path], tmp_path: Path) -> None:
    found = [
        find_start_word(
            FindStartWordConfig(initializer_token=word, accelerator="cpu"),
            image_set=inputs["latent_set"].parent / "image_set",
            latent_set=inputs["latent_set"],
            base_model=inputs["base_model"],
            scorer=tmp_path / "never read",
            output=tmp_path / word,
        )
        for word in ("toy", "cat")
    ]
    assert 0 < found[0].loss < 10 and found[0].loss != found[1].loss
    assert found[0].no_word_loss == found[1].no_word_loss


def test_preview_is_drawn(trained: tuple[Path, LearnedEmbedding], inputs: dict[str, Path], tmp_path: Path) -> None:
    config = PreviewConfig(
        model=str(materialize(read_reference(inputs["base_model"]))),
        concept=str(trained[0] / "learned" / LEARNED_EMBEDS),
        accelerator="cpu",
        prompt="a photo of a <cat-toy>",
        num_images=1,
        seed=1,
        folder=str(tmp_path / "pictures"),
        uri=str(tmp_path / "kept"),
    )
    torch.manual_seed(0)
    (picture,) = draw(config)
    assert picture.shape == (SIDE, SIDE, 3) and picture.std() > 1

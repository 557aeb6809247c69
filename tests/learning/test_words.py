"""Several words in one training: each is what its own training alone would have learned, by both frameworks."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ArtifactError, ConfigError
from components.common.training.config import TrainConfig
from components.common.training.watch_config import WatchConfig
from components.common.words import word_folders, write_words
from components.encode_latents.latents import encode_latents
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding
from components.train.command import TrainingCommand
from components.train.torch.local_processes import train_on_every_gpu
from components.train.train import train_words
from tests.conftest import imported
from tests.learning.test_options import nano_model
from tests.train import trainings
from tests.train.torch.conftest import SIDE, make_inputs, write_pictures

ENCODER = "text_encoder"
PROPERTIES = ("object", "style")
RICH: dict[str, Any] = {
    **trainings.SHORT,
    "gradient_accumulation_steps": 2,
    "max_train_steps": 4,
    "max_grad_norm": 0.01,
    "max_embedding_norm": 1.5,
    "ema_decay": 0.5,
}
"""Everything that is done to a word's gradient and rows, which would show if words were taken together there."""


@pytest.fixture(scope="module", params=["torch", "flax"])
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], ...]:
    """The inputs of two words on a model of one text encoder."""
    return two_words(nano_model(tmp_path_factory.mktemp("models") / "nano"), tmp_path_factory)


def two_words(
    model_folder: Path, tmp_path_factory: pytest.TempPathFactory, side: int = SIDE
) -> tuple[dict[str, Path], ...]:
    """The inputs of two words, of other numbers of pictures and vectors."""
    model = imported(model_folder, tmp_path_factory)
    first = make_inputs(tmp_path_factory.mktemp("first"), model, num_vectors=2, side=side)
    folder = tmp_path_factory.mktemp("second")
    pictures = write_pictures(folder / "image_set", count=4, side=side)
    encode_latents(image_set=pictures, base_model=model, accelerator="cpu", output=folder / "latent_set")
    word = InitConfig(placeholder_token="<art>", initializer_token="cat", num_vectors=1)
    init_embedding(word, model, folder / "initial_embedding")
    return first, {"base_model": model, **{name: folder / name for name in ("latent_set", "initial_embedding")}}


@pytest.fixture(scope="module")
def joint(inputs: tuple[dict[str, Path], ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of both words together."""
    return joined(inputs, tmp_path_factory.mktemp("joint"))


def joined(inputs: tuple[dict[str, Path], ...], folder: Path) -> dict[str, Path]:
    """The inputs of several words as those of one training."""
    for name in ("latent_set", "initial_embedding"):
        write_words(folder / name, [functools.partial(shutil.copytree, each[name]) for each in inputs])
    return {**inputs[0], **{name: folder / name for name in ("latent_set", "initial_embedding")}}


def together(framework: str, folder: Path, joint: dict[str, Path], **fields: Any) -> tuple[LearnedEmbedding, ...]:
    return train_words(
        TrainConfig(**fields),
        framework=framework,
        **joint,
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        output=folder / "learned",
        learnable_properties=PROPERTIES,
    )


def alone(framework: str, folder: Path, inputs: Sequence[dict[str, Path]], **fields: Any) -> list[LearnedEmbedding]:
    return [
        trainings.run(framework, folder / each, own, TrainConfig(**fields, learnable_property=each))
        for own, each in zip(inputs, PROPERTIES, strict=True)
    ]


def assert_alike(found: Sequence[LearnedEmbedding], expected: Sequence[LearnedEmbedding]) -> None:
    assert [each.placeholder_token for each in found] == ["<cat-toy>", "<art>"]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.training_key == theirs.training_key
        np.testing.assert_allclose(ours.losses, theirs.losses, rtol=2e-5)
        for name, rows in theirs.rows.items():
            moved = np.linalg.norm(rows - theirs.initial_rows[name])
            assert moved > 0.05
            assert np.linalg.norm(ours.rows[name] - rows) < 1e-4 * moved


@pytest.fixture(scope="module")
def apart(
    framework: str, inputs: tuple[dict[str, Path], ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[LearnedEmbedding]]:
    """What each word learns alone, and the folder of both trainings."""
    folder = tmp_path_factory.mktemp(f"{framework}-apart")
    return folder, alone(framework, folder, inputs, **RICH)


def test_each_word_is_what_it_learns_alone(
    framework: str, apart: tuple[Path, list[LearnedEmbedding]], joint: dict[str, Path], tmp_path: Path
) -> None:
    together(framework, tmp_path, joint, **RICH)
    assert_alike([LearnedEmbedding.read(each) for each in word_folders(tmp_path / "learned")], apart[1])


def test_word_that_was_begun_alone_goes_on_with_the_others_and_ends_before_them(
    framework: str, apart: tuple[Path, list[LearnedEmbedding]], joint: dict[str, Path], tmp_path: Path
) -> None:
    kept = tmp_path / "checkpoints" / apart[1][0].training_key
    kept.mkdir(parents=True)
    shutil.copy(apart[0] / PROPERTIES[0] / "checkpoints" / kept.name / "step-00000002.safetensors", kept)
    assert_alike(together(framework, tmp_path, joint, **RICH), apart[1])


def test_resumed_words_are_bit_identical(joint: dict[str, Path], tmp_path: Path) -> None:
    whole = together("torch", tmp_path / "whole", joint, **RICH)
    together("torch", tmp_path / "parts", joint, **{**RICH, "max_train_steps": 2})
    for resumed, expected in zip(together("torch", tmp_path / "parts", joint, **RICH), whole, strict=True):
        np.testing.assert_array_equal(resumed.rows[ENCODER], expected.rows[ENCODER])
        np.testing.assert_array_equal(resumed.losses, expected.losses)


def test_each_word_stops_where_it_stops_alone(
    joint: dict[str, Path], inputs: tuple[dict[str, Path], ...], tmp_path: Path
) -> None:
    stopping = {
        **trainings.SHORT,
        "early_stopping_every": 1,
        "early_stopping_window": 2,
        "early_stopping_ratio": 1e6,
        "early_stopping_min_gain": 0.001,
        "max_train_steps": 8,
    }
    found = together("torch", tmp_path, joint, **stopping)
    assert_alike(found, alone("torch", tmp_path, inputs, **stopping))
    assert found[0].steps != found[1].steps


def test_each_word_is_what_it_learns_alone_when_two_processes_share_its_batch(
    joint: dict[str, Path], inputs: tuple[dict[str, Path], ...], tmp_path: Path
) -> None:
    found = by_two_processes(tmp_path, joint)
    assert_alike(found, alone("torch", tmp_path, inputs, **{**RICH, "train_batch_size": 2}))


def test_each_word_of_two_text_encoders_is_what_it_learns_alone(
    tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    inputs = two_words(tiny_sdxl, tmp_path_factory, side=16)
    joint = joined(inputs, tmp_path / "joint")
    apart = alone("torch", tmp_path, inputs, **{**RICH, "train_batch_size": 2})
    assert len(apart[0].rows) == 2
    assert_alike(by_two_processes(tmp_path, joint), apart)
    steps = {**RICH, "max_train_steps": 2, "train_batch_size": 2}
    found = together("flax", tmp_path / "flax", joint, **steps)
    for ours, theirs in zip(found, together("torch", tmp_path / "torch", joint, **steps), strict=True):
        np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-4)


def by_two_processes(folder: Path, joint: dict[str, Path]) -> tuple[LearnedEmbedding, ...]:
    command = TrainingCommand(
        config=TrainConfig(**RICH),
        **{name: str(path) for name, path in joint.items()},
        checkpoint_root=str(folder / "checkpoints"),
        accelerator="cpu",
        framework="torch",
        output=str(folder / "learned"),
        learnable_properties=PROPERTIES,
    )
    return train_on_every_gpu(command, 2)


def test_what_cannot_be_done_with_several_words_is_refused(tmp_path: Path, joint: dict[str, Path]) -> None:
    watching = WatchConfig(validation_prompt="a {}")
    with pytest.raises(ConfigError, match=r"validation_prompt: found .* with more_words, expected nothing"):
        train_words(
            TrainConfig(),
            framework="torch",
            **joint,
            checkpoint_root=str(tmp_path),
            accelerator="cpu",
            output=tmp_path / "learned",
            watching=watching,
        )


def test_other_numbers_of_words_are_refused(
    tmp_path: Path, joint: dict[str, Path], inputs: tuple[dict[str, Path], ...]
) -> None:
    with pytest.raises(ArtifactError, match="latent sets of 1 words and initial embeddings of 2, expected the same"):
        together("torch", tmp_path, {**joint, "latent_set": inputs[0]["latent_set"]}, **RICH)

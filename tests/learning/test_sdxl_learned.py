"""The tiny Stable Diffusion XL learns a concept with the rows of both text encoders, by either trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from components.common.artifacts import LearnedEmbedding
from components.common.training.config import TrainConfig
from examples.sprites.concepts import CONCEPTS
from examples.sprites.learning import import_models, learn
from pipelines.presets import SPRITES_XL_DEMO

TRAINING = TrainConfig(**{field.name: SPRITES_XL_DEMO[field.name] for field in dataclasses.fields(TrainConfig)})
CONCEPT = dataclasses.replace(CONCEPTS["purple-dotted-star"], initializer_token=SPRITES_XL_DEMO["initializer_token"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """References to the tiny Stable Diffusion XL and the tiny world's CLIP."""
    return import_models(tmp_path_factory.mktemp("sprites-xl"), Path(SPRITES_XL_DEMO["base_model"]).name)


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_concept_is_learned_by_the_rows_of_both_text_encoders(
    models: tuple[Path, Path], tmp_path: Path, framework: str
) -> None:
    learned = learn(CONCEPT, models, tmp_path, config=TRAINING, framework=framework, samples=16)
    assert learned.passed, learned.reasons
    assert learned.clip_i["after"] > learned.clip_i["true_caption"] - 0.05
    embedding = LearnedEmbedding.read(tmp_path / "learned")
    assert sorted(embedding.rows) == ["text_encoder", "text_encoder_2"]
    for encoder, rows in embedding.rows.items():
        assert np.linalg.norm(rows - embedding.initial_rows[encoder]) > 0.1 * np.linalg.norm(rows)

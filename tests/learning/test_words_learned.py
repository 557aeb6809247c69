"""Two words are learned in one training on the tiny world, as well as each is alone."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch

from components.common.artifacts import LEARNED_EMBEDS
from components.common.base_model import materialize, read_reference
from components.common.words import word_folders
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from components.torch_models.denoising_loss import held_out_loss
from components.torch_models.sampling import load_concept, load_pipeline
from examples.sprites.concepts import CONCEPTS
from examples.sprites.learning import CONCEPT_FOLDER, TRAINING, import_models
from examples.sprites.words import NAMES, learn_together
from examples.sprites.world import SIZE


def test_both_words_are_learned(tmp_path: Path) -> None:
    concepts = [CONCEPTS[name] for name in NAMES[:2]]
    base_model, _ = import_models(tmp_path)
    config = dataclasses.replace(TRAINING, train_batch_size=4)
    learned = learn_together(concepts, base_model, tmp_path / "words", config=config)
    assert [each.steps for each in learned] == [TRAINING.max_train_steps] * 2
    model = materialize(read_reference(base_model))
    for concept, folder in zip(concepts, word_folders(tmp_path / "words" / "learned"), strict=True):
        pictures = IngestConfig(images_uri=str(CONCEPT_FOLDER / concept.name / "scoring"), resolution=SIZE)
        scoring = ingest_images(pictures, tmp_path / concept.name)
        pipeline = load_pipeline(model, device=torch.device("cpu"), dtype=torch.float32)
        load_concept(pipeline, folder / LEARNED_EMBEDS)
        loss = functools.partial(held_out_loss, pipeline, scoring.pixels)
        before, after, true_caption = (
            loss(f"a photo of a {word}")
            for word in (concept.initializer_token, concept.placeholder_token, concept.true_caption)
        )
        assert after < 0.6 * before and after < 1.1 * true_caption

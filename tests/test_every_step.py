"""Every step in turn, on the configurations of SD 1.5 and SD 2.1 with random weights of an eighth of the width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.common.artifacts import LearnedEmbedding
from components.common.registry.registry import resolve
from components.common.training.config import TrainConfig
from components.encode_latents.latents import encode_latents
from components.evaluate.config import EvaluateConfig
from components.evaluate.evaluation import evaluate
from components.import_base_model.importing import import_base_model
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding
from components.publish.config import PublishConfig
from components.publish.publish import publish
from components.train.train import train


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 72, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


def test_every_step_runs_on_real_configurations(
    tmp_path: Path, pictures: Path, tiny_reference: Path, tiny_clip: Path
) -> None:
    folders = {name: tmp_path / name for name in ("images", "latents", "initial", "learned", "evaluation", "entry")}
    import_base_model(str(tiny_clip), str(tmp_path / "store"), tmp_path / "scorer", kind="clip")
    ingest_images(IngestConfig(images_uri=str(pictures), resolution=64, center_crop=True), folders["images"])
    encode_latents(image_set=folders["images"], base_model=tiny_reference, accelerator="cpu", output=folders["latents"])
    placeholder = InitConfig(placeholder_token="<cat-toy>", initializer_token="toy", num_vectors=2)
    init_embedding(placeholder, tiny_reference, folders["initial"])
    train(
        TrainConfig(train_batch_size=1, gradient_accumulation_steps=2, max_train_steps=2, learning_rate=0.5),
        framework="torch",
        latent_set=folders["latents"],
        base_model=tiny_reference,
        initial_embedding=folders["initial"],
        checkpoint_root=str(tmp_path / "checkpoints"),
        accelerator="cpu",
        output=folders["learned"],
    )
    settings = EvaluateConfig(
        prompts=("a photo of a {}",), images_per_prompt=1, num_inference_steps=1, min_clip_i_gain=-1.0
    )
    evaluation = evaluate(
        settings,
        base_model=tiny_reference,
        scorer=tmp_path / "scorer",
        initial_embedding=folders["initial"],
        learned_embedding=folders["learned"],
        scoring_set=folders["images"],
        accelerator="cpu",
        output=folders["evaluation"],
    )
    assert evaluation.passed, evaluation.reasons
    assert evaluation.samples[0].pixels.shape == (512, 512, 3)
    publish(
        PublishConfig(registry_uri=str(tmp_path / "registry")),
        base_model=tiny_reference,
        learned_embedding=folders["learned"],
        evaluation=folders["evaluation"],
        output=folders["entry"],
    )
    entry = resolve(str(tmp_path / "registry"), "cat-toy", "champion")
    learned = LearnedEmbedding.read(folders["learned"])
    assert entry.facts.tokens == ("<cat-toy>", "<cat-toy>_1") == learned.tokens
    assert entry.facts.lineage["training_key"] == learned.training_key

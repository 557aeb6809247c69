"""A concept of the tiny world as the step takes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from components.common.base_model import CACHE_VARIABLE
from components.encode_latents.latents import encode_latents
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
from examples.sprites.concepts import FOLDER
from examples.sprites.learning import import_models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Folders of what the step takes."""

    image_set: Path
    latent_set: Path
    base_model: Path
    scorer: Path


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """The training pictures of the purple dotted star, encoded."""
    folder = tmp_path_factory.mktemp("star")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        base_model, scorer = import_models(folder)
        pictures = FOLDER / "purple-dotted-star" / "training"
        ingest_images(IngestConfig(images_uri=str(pictures), resolution=32), folder / "image_set")
        encode_latents(
            image_set=folder / "image_set", base_model=base_model, accelerator="cpu", output=folder / "latent_set"
        )
    return Inputs(
        image_set=folder / "image_set", latent_set=folder / "latent_set", base_model=base_model, scorer=scorer
    )

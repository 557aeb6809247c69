"""A tiny training's inputs, made by the steps before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.common.artifacts import ImageSet, Picture
from components.encode_latents.latents import encode_latents
from components.init_embedding.config import InitConfig
from components.init_embedding.initialize import init_embedding

SIDE = 64


def write_pictures(path: Path, count: int = 3, side: int = SIDE) -> Path:
    """An ImageSet of random pictures."""
    generator = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(count)]
    ImageSet(
        pictures=tuple(
            Picture(source=name, caption=None, original_size=(side, side), crop_top_left=(0, 0), size=(side, side))
            for name in names
        ),
        pixels=tuple(generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in names),
        masks=(None,) * count,
    ).write(path)
    return path


def make_inputs(folder: Path, reference: Path, num_vectors: int = 1, side: int = SIDE) -> dict[str, Path]:
    """The artifacts that training takes, as keyword arguments of `train`."""
    encode_latents(
        image_set=write_pictures(folder / "image_set", side=side),
        base_model=reference,
        accelerator="cpu",
        output=folder / "latent_set",
    )
    config = InitConfig(placeholder_token="<cat-toy>", initializer_token="toy", num_vectors=num_vectors)
    init_embedding(config, reference, folder / "initial_embedding")
    return {
        "latent_set": folder / "latent_set",
        "initial_embedding": folder / "initial_embedding",
        "base_model": reference,
    }


@pytest.fixture(scope="session")
def sd15_inputs(sd15_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of a training on the SD 1.5 configuration."""
    return make_inputs(tmp_path_factory.mktemp("inputs"), sd15_reference)

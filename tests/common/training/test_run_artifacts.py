"""What a training key depends on: not on captions and masks, which no trainer reads yet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.common.artifacts import ImageSet, InitialEmbedding, Latents, LatentSet, Picture
from components.common.base_model import ModelFile, ModelReference
from components.common.training.config import TrainConfig
from components.common.training.run_artifacts import run_fields

PLAIN = "0b655102d1a64727e73a488b868d72daeaf8363a9132f2a7c22142af89813057"
"""The digest of `latent_set()` since the first release: checkpoints of such sets are found by it."""
MASK = np.full((16, 16), 255, np.uint8)


def picture(caption: str | None = None) -> Picture:
    return Picture(source="1.png", caption=caption, original_size=(16, 16), crop_top_left=(0, 0), size=(16, 16))


def latent_set(image_set_digest: str = "i" * 64) -> LatentSet:
    zeros = np.zeros((4, 2, 2), np.float32)
    latents = Latents(picture=picture(), mean=zeros, std=zeros + 1, flipped_mean=zeros + 2, flipped_std=zeros + 3)
    return LatentSet(
        latents=(latents,), scaling_factor=0.18215, base_model_digest="b" * 64, image_set_digest=image_set_digest
    )


def encoded(folder: Path, *, caption: str | None = None, mask: np.ndarray | None = None, value: int = 7) -> LatentSet:
    """The latent set of one picture, through the artifacts that the steps write and read."""
    pixels = np.full((16, 16, 3), value, np.uint8)
    ImageSet(pictures=(picture(caption),), pixels=(pixels,), masks=(mask,)).write(folder / "images")
    images = ImageSet.read(folder / "images")
    plain = latent_set(images.digest)
    weights = None if mask is None else np.ones((2, 2), np.float32)
    latents = dataclasses.replace(plain.latents[0], picture=images.pictures[0], mask=weights)
    dataclasses.replace(plain, latents=(latents,), plain_image_set_digest=images.plain_digest).write(folder / "latents")
    return LatentSet.read(folder / "latents")


def fields_of(latents: LatentSet) -> dict[str, Any]:
    reference = ModelReference(
        source="/model",
        repository="/model",
        revision="1",
        kind="diffusion",
        variant="",
        store="/store",
        files={"model_index.json": ModelFile(sha256="ab" * 32, size=1)},
    )
    embedding = InitialEmbedding(
        placeholder_token="<x>",
        tokens=("<x>",),
        token_ids=(5,),
        initializer_token="toy",
        initializer_token_id=1,
        rows={"text_encoder": np.zeros((1, 8), np.float32)},
        base_model_digest=reference.digest,
        digest="e" * 64,
    )
    return run_fields(TrainConfig(), reference=reference, latents=latents, embedding=embedding, num_processes=1)


def test_key_when_there_are_neither_captions_nor_masks_is_the_one_it_always_was(tmp_path: Path) -> None:
    assert latent_set().write(tmp_path / "latents").digest == PLAIN
    assert fields_of(LatentSet.read(tmp_path / "latents"))["latent_set"] == PLAIN
    latents = encoded(tmp_path / "through_the_steps")
    assert fields_of(latents)["latent_set"] == latents.digest


@pytest.mark.parametrize(
    ("caption", "mask"), [("a toy", None), ("", None), (None, MASK), (None, MASK // 2), ("a toy", MASK)]
)
def test_key_when_captions_or_masks_are_added_stays(
    caption: str | None, mask: np.ndarray | None, tmp_path: Path
) -> None:
    plain = encoded(tmp_path / "plain")
    told = encoded(tmp_path / "told", caption=caption, mask=mask)
    assert told.digest != plain.digest
    assert told.image_set_digest != plain.image_set_digest
    assert fields_of(told) == fields_of(plain)


def test_key_when_the_pictures_differ_differs(tmp_path: Path) -> None:
    one, other = (encoded(tmp_path / str(value), caption="a toy", mask=MASK, value=value) for value in (7, 8))
    assert fields_of(one) != fields_of(other)

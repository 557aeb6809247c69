"""Latents are the VAE's posterior of each picture and of its mirror image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from components.common.artifacts import ImageSet, LatentSet, Picture
from components.common.errors import ArtifactError, ImageError
from components.encode_latents.latents import encode_latents, latent_mask


def write_image_set(path: Path, side: int, mask: np.ndarray | None = None) -> ImageSet:
    generator = np.random.default_rng(1)
    pixels = tuple(generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2))
    picture = {"caption": None, "original_size": (side, side), "crop_top_left": (0, 0), "size": (side, side)}
    images = ImageSet(
        pictures=tuple(Picture(source=f"{index}.png", **picture) for index in range(2)),  # type: ignore[arg-type]
        pixels=pixels,
        masks=(mask, None),
    )
    images.write(path)
    return images


def encode(tmp_path: Path, reference: Path) -> LatentSet:
    return encode_latents(
        image_set=tmp_path / "images", base_model=reference, accelerator="cpu", output=tmp_path / "latents"
    )


def test_latents_equal_vae_posterior(tmp_path: Path, tiny_model: Path, tiny_reference: Path) -> None:
    images = write_image_set(tmp_path / "images", 64)
    encode(tmp_path, tiny_reference)
    written = LatentSet.read(tmp_path / "latents")
    vae = AutoencoderKL.from_pretrained(tiny_model / "vae")

    assert written.scaling_factor == pytest.approx(0.18215)
    for pixels, latents in zip(images.pixels, written.latents, strict=True):
        for picture, mean, std in (
            (pixels, latents.mean, latents.std),
            (pixels[:, ::-1], latents.flipped_mean, latents.flipped_std),
        ):
            values = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            with torch.no_grad():
                expected = vae.encode(values).latent_dist
            np.testing.assert_allclose(mean, expected.mean[0], atol=1e-5)
            np.testing.assert_allclose(std, expected.std[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("side", "fitting"), [(60, "56 or 64"), (4, "8 or 8")])
def test_size_is_refused_when_vae_cannot_take_it(tmp_path: Path, sd15_reference: Path, side: int, fitting: str) -> None:
    write_image_set(tmp_path / "images", side)
    with pytest.raises(ImageError, match=rf"{side} x {side} pixels.*multiples of 8.*{fitting}"):
        encode(tmp_path, sd15_reference)
    assert not (tmp_path / "latents").exists()


def test_mask_is_averaged_to_latent_cells(tmp_path: Path, sd15_reference: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :36] = 255
    write_image_set(tmp_path / "images", 64, mask)
    encode(tmp_path, sd15_reference)
    first, second = LatentSet.read(tmp_path / "latents").latents
    assert second.mask is None and first.mask is not None
    np.testing.assert_allclose(first.mask, np.tile([1, 1, 1, 1, 0.5, 0, 0, 0], (8, 1)))
    assert latent_mask(np.full((32, 32), 255, np.uint8), (16, 16)).tolist() == np.ones((16, 16)).tolist()


def test_artifact_of_another_kind_is_refused(tmp_path: Path, sd15_reference: Path) -> None:
    with pytest.raises(ArtifactError, match=r"base-model-reference.*expected 'textual-inversion/image-set'"):
        encode_latents(
            image_set=sd15_reference,
            base_model=sd15_reference,
            accelerator="cpu",
            output=tmp_path / "latents",
        )


def test_latents_when_pictures_have_masks_train_like_those_without(tmp_path: Path, sd15_reference: Path) -> None:
    write_image_set(tmp_path / "images", 64)
    encode(tmp_path, sd15_reference)
    plain = LatentSet.read(tmp_path / "latents")
    write_image_set(tmp_path / "images", 64, np.zeros((64, 64), np.uint8))
    encode(tmp_path, sd15_reference)
    masked = LatentSet.read(tmp_path / "latents")
    assert plain.training_digest == plain.digest != masked.digest
    assert masked.training_digest == plain.digest

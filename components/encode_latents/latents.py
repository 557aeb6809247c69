"""Pictures to the mean and standard deviation of the VAE's posterior, as they are and mirrored."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from components.common.artifacts import ImageSet, Latents, LatentSet
from components.common.base_model import materialize, read_reference
from components.common.errors import BaseModelError, ImageError
from components.common.logs import versions
from components.torch_models.loading import device_for, load_vae

logger = logging.getLogger(__name__)


def encode_latents(*, image_set: Path, base_model: Path, accelerator: str, output: Path) -> LatentSet:
    """The latents of every picture in `image_set`, written to `output`.

    Args:
        image_set: folder of the ImageSet.
        base_model: folder of the base model's reference; only its `vae` is fetched.
        accelerator: `cpu` or `gpu`.
        output: folder for the LatentSet.

    Raises:
        ImageError: when the VAE cannot take the pictures' size.
        BaseModelError: when the VAE's latents of a picture, which is named, are not finite.
        ConfigError: when `accelerator` is unknown or absent.
        ArtifactError, StorageError: when an input cannot be used.
    """
    device = device_for(accelerator)
    logger.info("%s on %s", versions(["torch", "diffusers"]), device)
    images, reference = ImageSet.read(image_set), read_reference(base_model)
    vae = load_vae(materialize(reference, ["vae"]), device=device)
    check_sizes(images, vae)
    latents = []
    for index, (picture, pixels, mask) in enumerate(zip(images.pictures, images.pixels, images.masks, strict=True)):
        mean, std = posterior(vae, np.stack([pixels, pixels[:, ::-1]]))
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise BaseModelError(
                f"the VAE of {reference.source} gives latents of {picture.source} that are not finite: choose another "
                "base model, or take out that picture"
            )
        weights = None if mask is None else latent_mask(mask, mean.shape[2:])
        latents.append(
            Latents(
                picture=picture,
                mean=mean[0],
                std=std[0],
                flipped_mean=mean[1],
                flipped_std=std[1],
                mask=weights,
            )
        )
        logger.info("encoded %d/%d %s as %s", index + 1, len(images.pictures), picture.source, mean.shape[1:])
    latent_set = LatentSet(
        latents=tuple(latents),
        scaling_factor=float(vae.config.scaling_factor),
        base_model_digest=reference.digest,
        image_set_digest=images.digest,
        plain_image_set_digest=images.plain_digest,
    )
    latent_set.write(output)
    return latent_set


def check_sizes(images: ImageSet, vae: AutoencoderKL) -> None:
    """Raises `ImageError` unless every side is a multiple of what the VAE divides by."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    for picture in images.pictures:
        height, width = picture.size
        if height % factor or width % factor:
            below, above = (rounding(height / factor) * factor for rounding in (math.floor, math.ceil))
            raise ImageError(
                f"{picture.source} is {height} x {width} pixels, the VAE takes multiples of {factor}: "
                f"choose a resolution such as {max(below, factor)} or {above}"
            )


def posterior(vae: AutoencoderKL, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the VAE's posterior, unscaled, float32 [b, C, h, w] each.

    `pixels` are uint8 [b, H, W, 3]; they are mapped to -1..1 as the reference does (`TextualInversionDataset`).
    """
    values = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(vae.device)
    with torch.inference_mode():
        distribution = vae.encode(values.float() / 127.5 - 1.0).latent_dist
        return distribution.mean.cpu().numpy(), distribution.std.cpu().numpy()


def latent_mask(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The mask (uint8 [H, W]) as mean weights in 0..1 of each latent cell, float32 [h, w]."""
    (height, width), factor = mask.shape, (mask.shape[0] // size[0], mask.shape[1] // size[1])
    cells = mask.reshape(height // factor[0], factor[0], width // factor[1], factor[1])
    return (cells.mean(axis=(1, 3)) / 255).astype(np.float32)

"""From artifacts to a run and back: what the two trainers have in common before the first step and after the last."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.common.artifacts import InitialEmbedding, LatentSet, LearnedEmbedding
from components.common.base_model import ModelReference
from components.common.errors import ArtifactError, ConfigError
from components.common.families import text_encoders_of
from components.common.prompts import templates_for
from components.common.training.checkpoints import Checkpoint
from components.common.training.config import TrainConfig
from components.common.training.key_fields import key_fields
from components.common.training.sampling_plan import PLAN_VERSION, SamplingPlan


def check_that_they_belong_together(latents: LatentSet, embedding: InitialEmbedding, base_model_digest: str) -> None:
    """Raises `ArtifactError` or `BaseModelError` when these inputs are not of one base model, size and kind."""
    for name, digest in (
        ("latent set", latents.base_model_digest),
        ("initial embedding", embedding.base_model_digest),
    ):
        if digest != base_model_digest:
            raise ArtifactError(
                f"the {name} was made with the base model {digest[:12]}, training with {base_model_digest[:12]}: "
                "make it again with this base model"
            )
    shapes = {latent.mean.shape for latent in latents.latents}
    if len(shapes) != 1:
        raise ArtifactError(
            f"the latent set has the shapes {sorted(shapes)}, expected one: prepare it at one resolution"
        )
    text_encoders_of(embedding.rows)


def check_channels(unet_channels: int, latents: LatentSet) -> None:
    """Raises `ConfigError` when the UNet takes other channels than the latents have."""
    channels = latents.latents[0].mean.shape[0]
    if unet_channels != channels:
        raise ConfigError(
            f"the UNet takes {unet_channels} channels, the latents have {channels}: choose a base model "
            "for text-to-image, not for inpainting"
        )


def sampling_plan(
    config: TrainConfig, latents: LatentSet, *, num_processes: int, num_train_timesteps: int
) -> SamplingPlan:
    """The plan of a run of `num_processes`.

    Raises:
        ConfigError: when timesteps are asked for that the noise schedule does not have.
    """
    return SamplingPlan(
        seed=config.seed,
        num_pictures=len(latents.latents),
        repeats=config.repeats,
        global_batch=config.global_batch(num_processes),
        num_templates=len(templates_for(config.learnable_property)),
        flip_probability=config.flip_probability,
        num_train_timesteps=num_train_timesteps,
        latents_shape=latents.latents[0].mean.shape,
        timesteps=config.timesteps(num_train_timesteps),
        stratified_timesteps=config.stratified_timesteps,
        noise_offset=config.noise_offset,
    )


def run_fields(
    config: TrainConfig,
    *,
    reference: ModelReference,
    latents: LatentSet,
    embedding: InitialEmbedding,
    num_processes: int,
) -> dict[str, Any]:
    """All that determines the rows, for the training key; not the framework, so that either goes on for the other."""
    return {
        **key_fields(config, num_processes),
        "plan_version": PLAN_VERSION,
        "base_model": reference.digest,
        "latent_set": latents.training_digest,
        "initial_embedding": embedding.digest,
    }


def learned_embedding(
    config: TrainConfig,
    finished: Checkpoint,
    *,
    reference: ModelReference,
    latents: LatentSet,
    embedding: InitialEmbedding,
    training_key: str,
    framework: str,
    devices: str,
) -> LearnedEmbedding:
    """The finished training as an artifact; `framework` and `devices` say what took its last steps."""
    return LearnedEmbedding(
        placeholder_token=embedding.placeholder_token,
        tokens=embedding.tokens,
        initializer_token=embedding.initializer_token,
        learnable_property=config.learnable_property,
        rows=finished.state.learned,
        initial_rows=embedding.rows,
        snapshots=finished.snapshots,
        losses=np.asarray(finished.losses),
        fixed_batch_losses=np.asarray(finished.fixed_batch_losses),
        training_key=training_key,
        config=config.as_json(),
        lineage={
            "framework": framework,
            "devices": devices,
            "base_model": reference.source,
            "base_model_digest": reference.digest,
            "image_set_digest": latents.image_set_digest,
            "latent_set_digest": latents.digest,
            "plan_version": PLAN_VERSION,
            **({"initializer_embedding": embedding.initializer_embedding} if embedding.initializer_embedding else {}),
        },
    )

"""The training step from artifacts to artifact: checks, builds, runs the loop, writes the learned embedding."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from components.common.artifacts import InitialEmbedding, LatentSet, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.errors import ArtifactError, BaseModelError, ConfigError
from components.common.logs import configure_logging, versions
from components.common.prompts import templates_for
from components.common.storage import open_store
from components.common.training.checkpoints import Checkpoint, CheckpointFolder
from components.common.training.config import TrainConfig, key_fields
from components.common.training.loop import Placement, train
from components.common.training.prompt_ids import load_tokenizer, training_prompt_ids
from components.common.training.sampling_plan import PLAN_VERSION, SamplingPlan
from components.torch_models.loading import (
    WEIGHT_DTYPES,
    device_for,
    load_noise_scheduler,
    load_text_encoder,
    load_unet,
)
from components.train_torch.trainer import TorchTrainer

logger = logging.getLogger(__name__)

FRAMEWORK = "torch"
PARTS = ("tokenizer", "text_encoder", "unet", "scheduler")
"""The subfolders of the base model that training needs."""


def train_torch(
    config: TrainConfig,
    *,
    latent_set: Path,
    base_model: Path,
    initial_embedding: Path,
    checkpoint_root: str,
    accelerator: str,
    output: Path,
) -> LearnedEmbedding:
    """The learned embedding, written to `output`.

    Args:
        config: how to train.
        latent_set: folder of the LatentSet.
        base_model: folder of the base model's reference.
        initial_embedding: folder of the InitialEmbedding.
        checkpoint_root: where checkpoints live, a folder or an address in object storage.
        accelerator: `cpu` or `gpu`.
        output: folder for the LearnedEmbedding.

    Raises:
        InputError, ArtifactError: before anything expensive, when an input cannot be used.
        TrainingError: when training cannot go on.
        StorageError: when checkpoints cannot be kept.
    """
    process = Accelerator(cpu=device_for(accelerator).type == "cpu")
    configure_logging(rank=process.process_index)
    logger.info("%s on %s", versions(["torch", "diffusers", "transformers", "accelerate"]), process.device)
    logger.info("config %s", config.as_json())
    latents, embedding, reference = (
        LatentSet.read(latent_set),
        InitialEmbedding.read(initial_embedding),
        read_reference(base_model),
    )
    _check_that_they_belong_together(latents, embedding, reference.digest)
    torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    set_seed(config.seed)
    model = materialize(reference, PARTS)
    trainer, plan = _build(config, model, latents, embedding, process)
    fields = {
        **key_fields(config, process.num_processes),
        "plan_version": PLAN_VERSION,
        "base_model": reference.digest,
        "latent_set": latents.digest,
        "initial_embedding": embedding.digest,
    }
    checkpoints = CheckpointFolder(open_store(checkpoint_root), fields, total_limit=config.checkpoints_total_limit)
    logger.info(
        "global batch %d = %d x %d accumulated x %d processes; learning rate %.2e",
        plan.global_batch,
        config.train_batch_size,
        config.gradient_accumulation_steps,
        process.num_processes,
        config.peak_learning_rate(process.num_processes),
    )
    placement = Placement(rank=process.process_index, num_processes=process.num_processes)
    finished = train(trainer, config=config, plan=plan, checkpoints=checkpoints, placement=placement)
    lineage = {
        "framework": FRAMEWORK,
        "base_model": reference.source,
        "base_model_digest": reference.digest,
        "image_set_digest": latents.image_set_digest,
        "latent_set_digest": latents.digest,
        "plan_version": PLAN_VERSION,
    }
    learned = _learned(config, embedding, finished, checkpoints.training_key, lineage)
    if process.is_main_process:
        learned.write(output)
        logger.info("learned %s in %d steps: %s", embedding.placeholder_token, learned.steps, output)
    process.end_training()
    return learned


def _check_that_they_belong_together(latents: LatentSet, embedding: InitialEmbedding, base_model_digest: str) -> None:
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
    if set(embedding.rows) != {"text_encoder"}:
        raise BaseModelError(
            f"the base model has the text encoders {sorted(embedding.rows)}, expected text_encoder alone: "
            "this trainer trains Stable Diffusion 1.x and 2.x"
        )


def _build(
    config: TrainConfig, model: Path, latents: LatentSet, embedding: InitialEmbedding, process: Accelerator
) -> tuple[TorchTrainer, SamplingPlan]:
    dtype = WEIGHT_DTYPES[config.mixed_precision]
    noise_scheduler = load_noise_scheduler(model)
    tokenizer = load_tokenizer(model, embedding)
    unet = load_unet(model, dtype=dtype, device=process.device)
    channels = latents.latents[0].mean.shape[0]
    if unet.config.in_channels != channels:
        raise ConfigError(
            f"the UNet takes {unet.config.in_channels} channels, the latents have {channels}: choose a base model "
            "for text-to-image, not for inpainting"
        )
    trainer = TorchTrainer(
        config=config,
        latent_set=latents,
        embedding=embedding,
        prompt_ids=training_prompt_ids(tokenizer, embedding, config.learnable_property),
        text_encoder=load_text_encoder(model, dtype=dtype, device=process.device),
        unet=unet,
        noise_scheduler=noise_scheduler,
        accelerator=process,
    )
    plan = SamplingPlan(
        seed=config.seed,
        num_pictures=len(latents.latents),
        repeats=config.repeats,
        global_batch=config.global_batch(process.num_processes),
        num_templates=len(templates_for(config.learnable_property)),
        flip_probability=config.flip_probability,
        num_train_timesteps=noise_scheduler.config.num_train_timesteps,
        latents_shape=latents.latents[0].mean.shape,
    )
    return trainer, plan


def _learned(
    config: TrainConfig, embedding: InitialEmbedding, finished: Checkpoint, key: str, lineage: dict[str, Any]
) -> LearnedEmbedding:
    return LearnedEmbedding(
        placeholder_token=embedding.placeholder_token,
        tokens=embedding.tokens,
        initializer_token=embedding.initializer_token,
        learnable_property=config.learnable_property,
        rows=finished.state.rows,
        initial_rows=embedding.rows,
        snapshots=finished.snapshots,
        losses=np.asarray(finished.losses),
        training_key=key,
        config=config.as_json(),
        lineage=lineage,
    )

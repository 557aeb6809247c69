"""The training step from artifacts to artifact: checks, builds, runs the loop, writes the learned embedding."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from accelerate import Accelerator

from components.common.artifacts import InitialEmbedding, LatentSet, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.logs import configure_logging, versions
from components.common.storage import open_store
from components.common.training.checkpoints import CheckpointFolder
from components.common.training.config import TrainConfig
from components.common.training.loop import Placement, train
from components.common.training.prompt_ids import load_tokenizer, training_prompt_ids
from components.common.training.run_artifacts import (
    PARTS,
    check_channels,
    check_that_they_belong_together,
    learned_embedding,
    run_fields,
    sampling_plan,
)
from components.common.training.sampling_plan import SamplingPlan
from components.torch_models.loading import (
    WEIGHT_DTYPES,
    describe_device,
    device_for,
    load_noise_scheduler,
    load_text_encoder,
    load_unet,
)
from components.train.torch.launcher import check_launcher, check_processes
from components.train.torch.trainer import TorchTrainer

logger = logging.getLogger(__name__)

FRAMEWORK = "torch"


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
    check_launcher(accelerator)
    # Weights are loaded in their precision: accelerate has nothing to cast, and no gradient to scale.
    process = Accelerator(cpu=device_for(accelerator).type == "cpu", mixed_precision="no")
    check_processes(process.num_processes)
    configure_logging(rank=process.process_index)
    logger.info("%s on %s", versions(["torch", "diffusers", "transformers", "accelerate"]), process.device)
    logger.info("config %s", config.as_json())
    latents, embedding, reference = (
        LatentSet.read(latent_set),
        InitialEmbedding.read(initial_embedding),
        read_reference(base_model),
    )
    check_that_they_belong_together(latents, embedding, reference.digest)
    allow_tf32(config.allow_tf32)
    trainer, plan = _build(config, materialize(reference, PARTS), latents, embedding, process)
    fields = run_fields(
        config, reference=reference, latents=latents, embedding=embedding, num_processes=process.num_processes
    )
    checkpoints = CheckpointFolder(open_store(checkpoint_root), fields, total_limit=config.checkpoints_total_limit)
    logger.info(
        "global batch %d = %d x %d accumulated x %d processes; learning rate %.2e",
        plan.global_batch,
        config.train_batch_size,
        config.gradient_accumulation_steps,
        process.num_processes,
        config.peak_learning_rate(process.num_processes),
    )
    placement = Placement(
        rank=process.process_index,
        num_processes=process.num_processes,
        from_all=lambda own: process.gather(torch.tensor([own], device=process.device)).tolist(),
    )
    finished = train(trainer, config=config, plan=plan, checkpoints=checkpoints, placement=placement)
    learned = learned_embedding(
        config,
        finished,
        reference=reference,
        latents=latents,
        embedding=embedding,
        training_key=checkpoints.training_key,
        framework=FRAMEWORK,
        devices=describe_device(process.device, process.num_processes),
    )
    if process.is_main_process:
        learned.write(output)
        logger.info("learned %s in %d steps: %s", embedding.placeholder_token, learned.steps, output)
    process.end_training()
    return learned


def allow_tf32(allowed: bool) -> None:
    """Lets NVIDIA GPUs round fp32 operands to TF32 in matrix products and convolutions, or forbids it in both.

    PyTorch's own defaults differ: it allows TF32 in convolutions alone.
    """
    precision = "tf32" if allowed else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def _build(
    config: TrainConfig, model: Path, latents: LatentSet, embedding: InitialEmbedding, process: Accelerator
) -> tuple[TorchTrainer, SamplingPlan]:
    dtype = WEIGHT_DTYPES[config.mixed_precision]
    noise_scheduler = load_noise_scheduler(model)
    tokenizer = load_tokenizer(model, embedding)
    unet = load_unet(model, dtype=dtype, device=process.device)
    check_channels(unet.config.in_channels, latents)
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
    plan = sampling_plan(
        config,
        latents,
        num_processes=process.num_processes,
        num_train_timesteps=noise_scheduler.config.num_train_timesteps,
    )
    return trainer, plan

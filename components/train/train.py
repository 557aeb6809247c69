"""The training step from artifacts to artifact: checks, builds, runs the loop, writes the learned embedding."""

from __future__ import annotations

import logging
from pathlib import Path

from components.common.artifacts import InitialEmbedding, LatentSet, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.logs import configure_logging, log_config, versions
from components.common.storage import open_store
from components.common.training import loop
from components.common.training.checkpoints import CheckpointFolder
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizer, training_prompt_ids
from components.common.training.row_norms import long_step_warning
from components.common.training.run_artifacts import (
    PARTS,
    check_that_they_belong_together,
    learned_embedding,
    run_fields,
    sampling_plan,
)
from components.train.frameworks import framework_for
from components.train.process import TrainerInputs, join_processes

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    framework: str,
    latent_set: Path,
    base_model: Path,
    initial_embedding: Path,
    checkpoint_root: str,
    accelerator: str,
    output: Path,
) -> LearnedEmbedding:
    """The learned embedding, written to `output`.

    Args:
        config: how to train; `train_batch_size` is what a process takes, however many devices it has.
        framework: `torch`, `flax`, or `auto` for the one that trains on `accelerator`.
        latent_set: folder of the LatentSet.
        base_model: folder of the base model's reference.
        initial_embedding: folder of the InitialEmbedding.
        checkpoint_root: where checkpoints live, a folder or an address in object storage.
        accelerator: `cpu`, `gpu` or `tpu`; with Flax all devices of that kind of all processes are used.
        output: folder for the LearnedEmbedding.

    Raises:
        InputError, ArtifactError: before anything expensive, when an input cannot be used.
        TrainingError: when training cannot go on.
        StorageError: when checkpoints cannot be kept.
    """
    framework = framework_for(framework, accelerator)
    process = join_processes(framework, config, accelerator)
    rank, num_processes = process.placement.rank, process.placement.num_processes
    configure_logging(rank=rank)
    logger.info("%s on %s", versions(process.packages), process.devices)
    log_config(logger, config.as_json())
    latents, embedding, reference = (
        LatentSet.read(latent_set),
        InitialEmbedding.read(initial_embedding),
        read_reference(base_model),
    )
    check_that_they_belong_together(latents, embedding, reference.digest)
    model, store = materialize(reference, PARTS), open_store(checkpoint_root)
    built = process.build(
        TrainerInputs(
            config=config,
            model=model,
            latents=latents,
            embedding=embedding,
            prompt_ids=training_prompt_ids(load_tokenizer(model, embedding), embedding, config.learnable_property),
            store=store,
        )
    )
    timesteps = built.num_train_timesteps
    plan = sampling_plan(config, latents, num_processes=num_processes, num_train_timesteps=timesteps)
    fields = run_fields(config, reference=reference, latents=latents, embedding=embedding, num_processes=num_processes)
    checkpoints = CheckpointFolder(store, fields, total_limit=config.checkpoints_total_limit)
    logger.info(
        "global batch %d = %d x %d accumulated x %d processes; learning rate %.2e",
        plan.global_batch,
        config.train_batch_size,
        config.gradient_accumulation_steps,
        num_processes,
        config.peak_learning_rate(num_processes),
    )
    if warning := long_step_warning(
        config,
        peak_learning_rate=config.peak_learning_rate(num_processes),
        typical_element=built.vocabulary_norm / embedding.rows["text_encoder"].shape[1] ** 0.5,
    ):
        logger.warning("%s", warning)
    finished = loop.train(built.trainer, config=config, plan=plan, checkpoints=checkpoints, placement=process.placement)
    learned = learned_embedding(
        config,
        finished,
        reference=reference,
        latents=latents,
        embedding=embedding,
        training_key=checkpoints.training_key,
        framework=framework,
        devices=process.devices,
    )
    if rank == 0:
        learned.write(output)
        logger.info("learned %s in %d steps: %s", embedding.placeholder_token, learned.steps, output)
    process.end()
    return learned

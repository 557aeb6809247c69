"""The training step from artifacts to artifact: checks, builds, runs the loop, writes the learned embedding."""

from __future__ import annotations

import logging
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from components.common.artifacts import InitialEmbedding, LatentSet, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.errors import ConfigError
from components.common.logs import configure_logging, versions
from components.common.storage import ObjectStore, open_store
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
from components.flax_models.devices import describe_devices, join_processes, mesh_for
from components.flax_models.loading import load_text_encoder, load_unet, weight_dtype
from components.flax_models.noise_schedule import load_noise_schedule
from components.train.flax.compiled_steps import compiler_for
from components.train.flax.micro_batches import sizes_that_fit
from components.train.flax.trainer import FlaxTrainer

logger = logging.getLogger(__name__)

FRAMEWORK = "flax"


def train_flax(
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
        config: how to train; `train_batch_size` is what a process takes, however many devices it has.
        latent_set: folder of the LatentSet.
        base_model: folder of the base model's reference.
        initial_embedding: folder of the InitialEmbedding.
        checkpoint_root: where checkpoints live, a folder or an address in object storage.
        accelerator: `cpu`, `gpu` or `tpu`: all devices of that kind of all processes are used.
        output: folder for the LearnedEmbedding.

    Raises:
        InputError, ArtifactError: before anything expensive, when an input cannot be used.
        TrainingError: when training cannot go on.
        StorageError: when checkpoints cannot be kept.
    """
    dtype = weight_dtype(config.mixed_precision)
    if config.enable_xformers_memory_efficient_attention:
        raise ConfigError(
            "enable_xformers_memory_efficient_attention: found True, expected False with Flax: xFormers is for "
            "PyTorch, and attention here is as lean without it"
        )
    if config.cuda_graphs:
        raise ConfigError(
            "cuda_graphs: found True, expected False with Flax: it is for PyTorch; XLA captures command buffers on "
            "GPUs by itself"
        )
    join_processes()
    mesh = mesh_for(accelerator)
    sizes_that_fit(config, len(mesh.local_devices))
    rank, num_processes = jax.process_index(), jax.process_count()
    configure_logging(rank=rank)
    devices = describe_devices(mesh, accelerator)
    logger.info("%s on %s", versions(["jax", "flax", "optax"]), devices)
    logger.info("config %s", config.as_json())
    latents, embedding, reference = (
        LatentSet.read(latent_set),
        InitialEmbedding.read(initial_embedding),
        read_reference(base_model),
    )
    check_that_they_belong_together(latents, embedding, reference.digest)
    store = open_store(checkpoint_root)
    trainer, plan = _build(config, materialize(reference, PARTS), latents, embedding, mesh, dtype, store)
    fields = run_fields(config, reference=reference, latents=latents, embedding=embedding, num_processes=num_processes)
    checkpoints = CheckpointFolder(store, fields, total_limit=config.checkpoints_total_limit)
    logger.info(
        "global batch %d = %d x %d accumulated x %d processes, on %d devices; learning rate %.2e",
        plan.global_batch,
        config.train_batch_size,
        config.gradient_accumulation_steps,
        num_processes,
        mesh.size,
        config.peak_learning_rate(num_processes),
    )
    placement = Placement(
        rank=rank,
        num_processes=num_processes,
        from_all=lambda own: multihost_utils.process_allgather(np.array([own])).flatten().tolist(),
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
        devices=devices,
    )
    if rank == 0:
        learned.write(output)
        logger.info("learned %s in %d steps: %s", embedding.placeholder_token, learned.steps, output)
    return learned


def _build(
    config: TrainConfig,
    model: Path,
    latents: LatentSet,
    embedding: InitialEmbedding,
    mesh: Mesh,
    dtype: jax.typing.DTypeLike,
    store: ObjectStore,
) -> tuple[FlaxTrainer, SamplingPlan]:
    noise_schedule = load_noise_schedule(model)
    tokenizer = load_tokenizer(model, embedding)
    unet = load_unet(model, dtype=dtype, remat=config.gradient_checkpointing)
    check_channels(unet.config.in_channels, latents)
    trainer = FlaxTrainer(
        config=config,
        latent_set=latents,
        embedding=embedding,
        prompt_ids=training_prompt_ids(tokenizer, embedding, config.learnable_property),
        text_encoder=load_text_encoder(model, dtype=dtype, remat=config.gradient_checkpointing),
        unet=unet,
        noise_schedule=noise_schedule,
        mesh=mesh,
        compile_lowered=compiler_for(mesh.devices.flat[0].platform, store),
    )
    plan = sampling_plan(
        config,
        latents,
        num_processes=jax.process_count(),
        num_train_timesteps=noise_schedule.num_train_timesteps,
    )
    return trainer, plan

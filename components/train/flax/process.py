"""A process of a training in JAX and Flax: joined by JAX, with all devices of its host."""

from __future__ import annotations

import functools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from components.common.training.loop import Placement
from components.common.training.run_artifacts import check_channels
from components.flax_models.devices import describe_devices, join_processes, mesh_for
from components.flax_models.loading import load_text_encoders, load_unet, weight_dtype
from components.flax_models.noise_schedule import load_noise_schedule
from components.train.flax.compiled_steps import compiler_for
from components.train.flax.micro_batches import sizes_that_fit
from components.train.flax.models import FrozenModels
from components.train.flax.trainer import FlaxTrainer
from components.train.frameworks import mistakes_with_flax
from components.train.process import Built, Process, TrainerInputs


def join_flax(config: TrainConfig, accelerator: str) -> Process:
    """This process, joined with the others that the environment names.

    Args:
        config: how to train.
        accelerator: `cpu`, `gpu` or `tpu`: all devices of that kind of all processes are used.

    Raises:
        ConfigError: for what Flax cannot do, or when the devices are missing or cannot share a batch equally.
    """
    _check(config)
    join_processes()
    mesh = mesh_for(accelerator)
    sizes_that_fit(config, len(mesh.local_devices))
    return Process(
        packages=("jax", "flax", "optax"),
        placement=Placement(
            rank=jax.process_index(),
            num_processes=jax.process_count(),
            from_all=lambda own: multihost_utils.process_allgather(np.array([own])).flatten().tolist(),
        ),
        devices=describe_devices(mesh, accelerator),
        build=functools.partial(_build, mesh),
    )


def _check(config: TrainConfig) -> None:
    weight_dtype(config.mixed_precision)
    if mistakes := list(mistakes_with_flax(config)):
        raise ConfigError(*mistakes)


def _build(mesh: Mesh, inputs: TrainerInputs) -> Built:
    dtype, remat = weight_dtype(inputs.config.mixed_precision), inputs.config.gradient_checkpointing
    noise_schedule = load_noise_schedule(inputs.model)
    unet = load_unet(inputs.model, dtype=dtype, remat=remat)
    for word in inputs.words:
        check_channels(unet.config.in_channels, word.latents)
    text_encoders = load_text_encoders(inputs.model, inputs.family, dtype=dtype, remat=remat)
    models = FrozenModels(
        inputs.config,
        family=inputs.family,
        text_encoders=text_encoders,
        unet=unet,
        noise_schedule=noise_schedule,
        mesh=mesh,
        first_id=inputs.words[0].embedding.token_ids[0],
        scaling_factor=inputs.words[0].latents.scaling_factor,
        compile_lowered=compiler_for(mesh.devices.flat[0].platform, inputs.store),
    )
    return Built(
        trainers=[
            FlaxTrainer(
                config=word.config,
                latent_set=word.latents,
                embedding=word.embedding,
                prompt_ids=word.prompt_ids,
                models=models,
            )
            for word in inputs.words
        ],
        take_steps=models.take_steps,
        num_train_timesteps=noise_schedule.num_train_timesteps,
    )

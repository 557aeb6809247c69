"""The held-out denoising loss in JAX, number for number that of `components.torch_models.denoising_loss`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from components.common.held_out_draws import SAMPLES_AT_ONCE, STRATA, held_out_draws
from components.flax_models.devices import DATA
from components.flax_models.noise_schedule import add_noise, velocity
from components.flax_models.pipeline import FlaxPipeline, Weights


class FlaxHeldOutLoss:
    """How well prompts explain pictures; compiled at the first measurement."""

    def __init__(self, pipeline: FlaxPipeline) -> None:
        """Takes the base model, with the concept loaded if prompts name it."""
        self._pipeline = pipeline
        self._encode = jax.jit(self._latents)

    def measure(self, pictures: Sequence[np.ndarray], prompt: str) -> float:
        """The mean squared error of the UNet over pictures and timesteps, given `prompt`.

        Args:
            pictures: uint8 [H, W, 3] each, of one size.
            prompt: with the placeholder alone for a concept of several vectors.
        """
        pipeline, count = self._pipeline, len(pictures)
        alphas = pipeline.sampler.schedule.alphas_cumprod
        ids, first_id = pipeline.prompt_ids([prompt]), np.int32(pipeline.first_id)
        with jax.default_matmul_precision(pipeline.matmul_precision):
            latents = np.concatenate([self._encode(pipeline.weights, picture[None]) for picture in pictures])
            draws = held_out_draws((count, *np.moveaxis(latents, -1, 1).shape[1:]), len(alphas))
            noise = np.moveaxis(draws.noise, 2, -1).reshape(-1, *latents.shape[1:])
            stratum, picture = np.divmod(np.arange(STRATA * count), count)
            size, errors = -(-SAMPLES_AT_ONCE // pipeline.mesh.size) * pipeline.mesh.size, []
            for start in range(0, len(noise), size):
                # The last batch is filled up with its last sample: another size would be compiled anew.
                chosen = np.minimum(np.arange(start, start + size), len(noise) - 1)
                timesteps = draws.timesteps[stratum[chosen]].astype(np.int32)
                samples = (latents[picture[chosen]], noise[chosen], timesteps, alphas[timesteps])
                cut = map(pipeline.cut, samples)
                measured = self._errors(pipeline.clip_skip)(pipeline.weights, pipeline.rows, ids, first_id, *cut)
                errors.append(measured)
        return float(np.concatenate(errors)[: len(noise)].mean())

    @functools.cache  # noqa: B019 - a measure lives as long as its process
    def _errors(self, clip_skip: int) -> Any:
        """The compiled function; [b, ...] is cut over the devices, which have nothing to tell each other."""
        local = functools.partial(self._squared_errors, clip_skip=clip_skip)
        specs = (*[P()] * 4, *[P(DATA)] * 4)
        return jax.jit(
            jax.shard_map(local, mesh=self._pipeline.mesh, in_specs=specs, out_specs=P(DATA), check_vma=False)
        )

    def _latents(self, weights: Weights, pictures: jax.Array) -> jax.Array:
        vae = self._pipeline.vae
        mean, _ = vae.module(weights.vae).encode(pictures.astype(jnp.float32) / 127.5 - 1.0)
        return mean * vae.config.scaling_factor

    def _squared_errors(
        self,
        weights: Weights,
        rows: Mapping[str, jax.Array],
        ids: Mapping[str, jax.Array],
        first_id: jax.Array,
        latents: jax.Array,
        noise: jax.Array,
        timesteps: jax.Array,
        alpha: jax.Array,
        *,
        clip_skip: int,
    ) -> jax.Array:
        """The error of each sample on this device, float32 [b]."""
        pipeline = self._pipeline
        _, height, width, _ = latents.shape
        told = pipeline.condition(weights, ids, rows, first_id, height=height, width=width, clip_skip=clip_skip)
        told = jax.tree.map(lambda one: jnp.broadcast_to(one, (len(latents), *one.shape[1:])), told)
        predicted = pipeline.unet.module(weights.unet)(add_noise(latents, noise, alpha), timesteps, *told)
        predicts_velocity = pipeline.sampler.schedule.prediction_type == "v_prediction"
        target = velocity(latents, noise, alpha) if predicts_velocity else noise
        return jnp.square(predicted - target).mean(axis=(1, 2, 3))

"""Pictures drawn on all devices of a process: one noise, one picture, whatever else is in the batch.

Sampling is by the pipeline's sampler with classifier-free guidance, compiled once for each number of pictures, size and
number of steps; the guidance scale is an argument.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from components.flax_models.ddim import Steps
from components.flax_models.devices import DATA
from components.flax_models.pipeline import FlaxPipeline, Weights


class FlaxSampler:
    """Draws with a base model and the concept that is loaded into it."""

    def __init__(self, pipeline: FlaxPipeline) -> None:
        """Takes the base model; nothing is compiled yet."""
        self._pipeline = pipeline

    def sample(
        self,
        prompts: Sequence[str],
        noise: np.ndarray,
        *,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: str = "",
    ) -> np.ndarray:
        """One picture for each prompt, float32 [pictures, H, W, 3], 0 to 1.

        Args:
            prompts: the prompts, with the placeholder alone for a concept of several vectors.
            noise: where each picture starts, standard normal, float32 [pictures, C, H/8, W/8].
            num_inference_steps: denoising steps.
            guidance_scale: weight of classifier-free guidance (Ho & Salimans 2022); 1 or less turns it off.
            negative_prompt: what guidance leads away from.
        """
        pipeline = self._pipeline
        count, surplus = len(prompts), -len(prompts) % pipeline.mesh.size
        filled = [*prompts, *[prompts[-1]] * surplus]
        latents = np.concatenate([noise, np.repeat(noise[-1:], surplus, axis=0)])
        steps = pipeline.sampler.steps(num_inference_steps)
        with jax.default_matmul_precision(pipeline.matmul_precision):
            pictures = self._draw(guidance_scale > 1, pipeline.zeroed_negative and not negative_prompt)(
                pipeline.weights,
                pipeline.rows,
                pipeline.cut(pipeline.prompt_ids(filled)),
                pipeline.cut(pipeline.prompt_ids([negative_prompt] * len(filled))),
                pipeline.cut((latents * pipeline.sampler.noise_scale(steps)).astype(np.float32)),
                steps,
                np.float32(guidance_scale),
                first_id=pipeline.first_id,
                clip_skip=pipeline.clip_skip,
            )
        return np.asarray(pictures)[:count]

    @functools.cache  # noqa: B019 - a sampler lives as long as its process
    def _draw(self, guided: bool, zeroed_negative: bool) -> Any:
        """The compiled function; [b, ...] is cut over the devices, which have nothing to tell each other."""

        def draw(
            weights: Weights,
            rows: Mapping[str, jax.Array],
            ids: Mapping[str, jax.Array],
            negative_ids: Mapping[str, jax.Array],
            noise: jax.Array,
            steps: Steps,
            scale: jax.Array,
            *,
            first_id: int,
            clip_skip: int,
        ) -> jax.Array:
            local = functools.partial(
                self._draw_on_device,
                guided=guided,
                zeroed_negative=zeroed_negative,
                first_id=first_id,
                clip_skip=clip_skip,
            )
            specs = (P(), P(), P(DATA), P(DATA), P(DATA), P(), P())
            return jax.shard_map(local, mesh=self._pipeline.mesh, in_specs=specs, out_specs=P(DATA), check_vma=False)(
                weights, rows, ids, negative_ids, noise, steps, scale
            )

        return jax.jit(draw, static_argnames=("first_id", "clip_skip"))

    def _draw_on_device(
        self,
        weights: Weights,
        rows: Mapping[str, jax.Array],
        ids: Mapping[str, jax.Array],
        negative_ids: Mapping[str, jax.Array],
        noise: jax.Array,
        steps: Steps,
        scale: jax.Array,
        *,
        guided: bool,
        zeroed_negative: bool,
        first_id: int,
        clip_skip: int,
    ) -> jax.Array:
        pipeline = self._pipeline
        unet, vae = pipeline.unet.module(weights.unet), pipeline.vae.module(weights.vae)
        _, _, height, width = noise.shape
        tell = functools.partial(pipeline.condition, weights, rows=rows, first_id=first_id, height=height, width=width)
        told = tell(ids, clip_skip=clip_skip)
        if guided:  # as in diffusers the negative prompt has all layers
            away = told.with_zeroed_prompt() if zeroed_negative else tell(negative_ids)
            told = jax.tree.map(lambda *both: jnp.concatenate(both), away, told)

        def denoise(state: tuple[jax.Array, jax.Array], step: Steps) -> tuple[tuple[jax.Array, jax.Array], None]:
            latents, before = state
            given = jnp.concatenate([latents, latents]) if guided else latents
            predicted = unet(given, jnp.full(len(given), step.timestep), *told)
            if guided:
                without, towards = jnp.split(predicted, 2)
                predicted = without + scale * (towards - without)
            return pipeline.sampler.denoise(latents, predicted, before, step), None

        begin = noise.transpose(0, 2, 3, 1)
        (latents, _), _ = jax.lax.scan(denoise, (begin, jnp.zeros_like(begin)), steps)
        latents = latents / pipeline.vae.config.scaling_factor
        pictures = jax.lax.map(lambda one: vae.decode(one[None])[0], latents)  # one takes gigabytes at 1024 pixels
        return jnp.clip(pictures / 2 + 0.5, 0.0, 1.0)

"""Pictures drawn on all devices of a process: one noise, one picture, whatever else is in the batch.

Sampling is DDIM with classifier-free guidance, compiled once for each number of pictures, size and number of steps;
the guidance scale is an argument.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.artifacts import read_learned_embeds
from components.common.errors import InputError, TokenError
from components.common.prompts import placeholder_tokens
from components.flax_models.ddim import Steps, load_ddim
from components.flax_models.devices import DATA
from components.flax_models.loading import load_text_encoder, load_unet, load_vae, replicated, weight_dtype

logger = logging.getLogger(__name__)

TEXT_ENCODER = "text_encoder"


class _Weights(NamedTuple):
    text_encoder: Any
    unet: Any
    vae: Any


class FlaxSampler:
    """A base model, and at most one learned concept, ready to draw."""

    def __init__(self, model: Path, *, mesh: Mesh, mixed_precision: str = "no") -> None:
        """Loads all parts of a local diffusers folder onto every device of the mesh, which is of one process.

        Raises:
            BaseModelError: when a part is missing or not implemented.
        """
        from transformers import CLIPTokenizer

        dtype = weight_dtype(mixed_precision)
        self._mesh, self._precision = mesh, "highest" if mixed_precision == "no" else "default"
        self._tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True)
        self._ddim = load_ddim(model)
        self._text_encoder, self._unet = load_text_encoder(model, dtype=dtype), load_unet(model, dtype=dtype)
        self._vae = load_vae(model)
        self._weights: _Weights = replicated(
            _Weights(self._text_encoder.weights, self._unet.weights, self._vae.weights), mesh
        )
        self._first_id, self._tokens = self._text_encoder.config.vocab_size, tuple[str, ...]()
        self._rows = replicated(np.zeros((1, self._text_encoder.config.hidden_size), np.float32), mesh)

    def load_concept(self, file: Path) -> tuple[str, ...]:
        """The placeholder's tokens, after loading a learned-embedding file; in prompts stands the first one alone.

        Raises:
            TokenError: when the placeholder is in the vocabulary already.
            InputError: when the rows are of another width than the text encoder, or of another text encoder.
        """
        header, rows = read_learned_embeds(file)
        token, width = header["placeholder_token"], self._text_encoder.config.hidden_size
        if set(rows) != {TEXT_ENCODER} or rows[TEXT_ENCODER].shape[1] != width:
            found = ", ".join(f"{name} of width {values.shape[1]}" for name, values in rows.items())
            raise InputError(
                f"{file} has rows for {found}, expected {TEXT_ENCODER} of width {width}: use the base model that the "
                "concept was learned on"
            )
        if token in self._tokenizer.get_vocab():
            raise TokenError(f"the placeholder {token!r} is in the tokenizer's vocabulary already: choose another one")
        tokens = placeholder_tokens(token, len(rows[TEXT_ENCODER]))
        self._tokenizer.add_tokens(list(tokens))
        self._tokens, self._first_id = tokens, self._tokenizer.convert_tokens_to_ids(tokens[0])
        self.write_rows(rows[TEXT_ENCODER])
        return tokens

    def write_rows(self, rows: np.ndarray) -> None:
        """Puts other rows, float32 [n, d], under the tokens that `load_concept` gave."""
        self._rows = replicated(rows.astype(np.float32), self._mesh)

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
        count, surplus = len(prompts), -len(prompts) % self._mesh.size
        filled = [*prompts, *[prompts[-1]] * surplus]
        latents = np.concatenate([noise, np.repeat(noise[-1:], surplus, axis=0)])
        with jax.default_matmul_precision(self._precision):
            pictures = self._draw(guidance_scale > 1)(
                self._weights,
                self._rows,
                self._cut(self._ids(filled)),
                self._cut(self._ids([negative_prompt] * len(filled))),
                self._cut(latents.astype(np.float32)),
                self._ddim.steps(num_inference_steps),
                np.float32(guidance_scale),
                first_id=self._first_id,
            )
        return np.asarray(pictures)[:count]

    @functools.cache  # noqa: B019 - a sampler lives as long as its process
    def _draw(self, guided: bool) -> Any:
        """The compiled function; [b, ...] is cut over the devices, which have nothing to tell each other."""

        def draw(
            weights: _Weights,
            rows: jax.Array,
            ids: jax.Array,
            negative_ids: jax.Array,
            noise: jax.Array,
            steps: Steps,
            scale: jax.Array,
            *,
            first_id: int,
        ) -> jax.Array:
            local = functools.partial(self._draw_on_device, guided=guided, first_id=first_id)
            specs = (P(), P(), P(DATA), P(DATA), P(DATA), P(), P())
            return jax.shard_map(local, mesh=self._mesh, in_specs=specs, out_specs=P(DATA), check_vma=False)(
                weights, rows, ids, negative_ids, noise, steps, scale
            )

        return jax.jit(draw, static_argnames="first_id")

    def _draw_on_device(
        self,
        weights: _Weights,
        rows: jax.Array,
        ids: jax.Array,
        negative_ids: jax.Array,
        noise: jax.Array,
        steps: Steps,
        scale: jax.Array,
        *,
        guided: bool,
        first_id: int,
    ) -> jax.Array:
        unet, vae = self._unet.module(weights.unet), self._vae.module(weights.vae)
        wanted = jnp.concatenate([negative_ids, ids]) if guided else ids
        prompt = self._text_encoder.module(weights.text_encoder)(wanted, rows, first_id)

        def denoise(latents: jax.Array, step: Steps) -> tuple[jax.Array, None]:
            given = jnp.concatenate([latents, latents]) if guided else latents
            predicted = unet(given, jnp.full(len(given), step.timestep), prompt)
            if guided:
                without, towards = jnp.split(predicted, 2)
                predicted = without + scale * (towards - without)
            return self._ddim.denoise(latents, predicted, step.alpha, step.alpha_after), None

        latents, _ = jax.lax.scan(denoise, noise.transpose(0, 2, 3, 1), steps)
        return jnp.clip(vae.decode(latents / self._vae.config.scaling_factor) / 2 + 0.5, 0.0, 1.0)

    def _ids(self, prompts: Sequence[str]) -> np.ndarray:
        texts = [
            prompt.replace(self._tokens[0], " ".join(self._tokens)) if self._tokens else prompt for prompt in prompts
        ]
        length = self._tokenizer.model_max_length
        encoded = self._tokenizer(texts, padding="max_length", truncation=True, max_length=length)
        return np.array(encoded.input_ids, np.int32)

    def _cut(self, values: np.ndarray) -> jax.Array:
        return jax.device_put(values, NamedSharding(self._mesh, P(DATA)))


def starting_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
    """Standard normal float32 [pictures, *shape], each picture from its own seed, the same on every device."""
    generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
    return np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators])

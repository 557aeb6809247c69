"""The norms of rows: the vocabulary's, and those that the trained rows are held to."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from components.common.training.config import TrainConfig
from components.flax_models.clip_text import ClipTextEncoder
from components.flax_models.loading import Loaded


def mean_vocabulary_norm(text_encoder: Loaded[ClipTextEncoder], vocabulary_size: int) -> float:
    """The mean Euclidean norm of the vocabulary's token embeddings."""
    table = text_encoder.module(text_encoder.weights).embeddings.token_embedding.embedding.get_value()
    return float(np.linalg.norm(np.asarray(table[:vocabulary_size], np.float32), axis=1).mean())


def controlled_gradients(
    config: TrainConfig, gradients: Mapping[str, jax.Array], rows: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """The rows' gradients by text encoder, float32 [n, d] each, as the optimizer takes them.

    Where rows keep their norm it is what is left along the sphere that they lie on (arXiv 2512.13672). Then all of them
    together are shortened to `max_grad_norm`, as by `torch.nn.utils.clip_grad_norm_`.
    """
    controlled = dict(gradients)
    if config.norm_control == "fixed":
        controlled = {name: _along_sphere(gradient, rows[name]) for name, gradient in controlled.items()}
    if config.max_grad_norm:
        norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in controlled.values()))
        factor = jnp.minimum(1.0, config.max_grad_norm / (norm + 1e-6))
        controlled = {name: gradient * factor for name, gradient in controlled.items()}
    return controlled


def _along_sphere(gradient: jax.Array, rows: jax.Array) -> jax.Array:
    direction = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return gradient - (gradient * direction).sum(axis=1, keepdims=True) * direction


def norm_control(
    config: TrainConfig, norms: Mapping[str, jax.Array], rows: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """The rows, float32 [n, d], with the norms that they are held to, float32 [n, 1], each by text encoder.

    See `wanted_norms`.
    """
    factors = {name: norms[name] / jnp.linalg.norm(values, axis=1, keepdims=True) for name, values in rows.items()}
    is_cap = config.norm_control == "cap"
    return {
        name: values * (jnp.minimum(1.0, factors[name]) if is_cap else factors[name]) for name, values in rows.items()
    }

"""The norms of rows: the vocabulary's, and those that the trained rows are held to."""

from __future__ import annotations

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


def controlled_gradient(config: TrainConfig, gradient: jax.Array, rows: jax.Array) -> jax.Array:
    """The rows' gradient, float32 [n, d], as the optimizer takes it.

    Where rows keep their norm it is what is left along the sphere that they lie on (arXiv 2512.13672). Then it is
    shortened to `max_grad_norm`, as by `torch.nn.utils.clip_grad_norm_`.
    """
    if config.norm_control == "fixed":
        direction = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        gradient = gradient - (gradient * direction).sum(axis=1, keepdims=True) * direction
    if config.max_grad_norm:
        norm = jnp.linalg.norm(gradient)
        gradient = gradient * jnp.minimum(1.0, config.max_grad_norm / (norm + 1e-6))
    return gradient


def norm_control(config: TrainConfig, norms: jax.Array, rows: jax.Array) -> jax.Array:
    """The rows, float32 [n, d], with the norms that they are held to, float32 [n, 1]; see `wanted_norms`."""
    factor = norms / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows * (jnp.minimum(1.0, factor) if config.norm_control == "cap" else factor)

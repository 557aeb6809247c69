"""Attention that never holds more scores than fit: computed at once where they are few, in chunks of queries otherwise.

A chunk's scores are computed again in the backward pass instead of being kept (Rabe & Staats 2021,
arXiv 2112.05682), so that memory grows with the chunk and not with the square of the tokens.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

SCORES_LIMIT_BYTES = 2**26
"""The most that the float32 scores of one attention may take before queries are cut into chunks."""


def attention(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False) -> jax.Array:
    """Softmax attention of query [b, q, heads, d] over key and value [b, k, heads, d], as [b, q, heads, d].

    Scores and softmax are float32. With `causal`, a token sees itself and those before it; such attention is never
    cut, for it is CLIP's over 77 tokens.
    """
    chunk = query.shape[1] if causal else chunk_length(query.shape, key.shape[1])
    if chunk == query.shape[1]:
        return _attend(query, key, value, causal=causal)
    batch, tokens, heads, features = query.shape
    chunks = query.reshape(batch, tokens // chunk, chunk, heads, features).swapaxes(0, 1)
    attend = jax.checkpoint(functools.partial(_attend, key=key, value=value))
    return jax.lax.map(attend, chunks).swapaxes(0, 1).reshape(query.shape)


def chunk_length(query_shape: tuple[int, ...], keys: int) -> int:
    """How many queries at once: the largest divisor of their number whose scores stay below the limit, at least 1."""
    batch, tokens, heads, _ = query_shape
    most = SCORES_LIMIT_BYTES // (4 * batch * heads * keys)
    return next(length for length in range(tokens, 0, -1) if tokens % length == 0 and (length <= most or length == 1))


def _attend(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False) -> jax.Array:
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(query.shape[-1])
    if causal:
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(seen, scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(value.dtype), value)

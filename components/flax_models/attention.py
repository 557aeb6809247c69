"""Attention that never holds more scores than fit, chosen by backend, dtype and shape.

NVIDIA GPUs take cuDNN's flash attention where it computes the shape. Everything else is plain JAX: at once where
scores are few, in chunks of queries otherwise, whose scores are computed again in the backward pass instead of being
kept (Rabe & Staats 2021, arXiv 2112.05682), so that memory grows with the chunk and not with the square of the tokens.
TPUs take that too: JAX's Pallas kernel wants keys in blocks of 128, which 77 prompt tokens are not, heads of less than
128 features or multiples of it, which the 160 of Stable Diffusion 1 are not, and a TPU to say whether it is faster.

The cuDNN branch has not run on a GPU; tests hold its arguments against the plain one through JAX's own reference.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax.typing import Dtype

SCORES_LIMIT_BYTES = 2**26
"""The most that the float32 scores of one attention may take before queries are cut into chunks."""

Kind = Literal["cudnn", "whole", "chunks"]


def attention(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False) -> jax.Array:
    """Softmax attention of query [b, q, heads, d] over key and value [b, k, heads, d], as [b, q, heads, d].

    Scores and softmax are float32. With `causal`, a token sees itself and those before it; such attention is never
    cut, for it is CLIP's over 77 tokens.
    """
    kind = kind_of_attention(_backend(), query.dtype, query.shape, key.shape[1], causal=causal)
    if kind == "cudnn":
        return by_jax(query, key, value, causal=causal, implementation="cudnn")
    if kind == "whole":
        return _attend(query, key, value, causal=causal)
    batch, tokens, heads, features = query.shape
    chunk = chunk_length(query.shape, key.shape[1])
    chunks = query.reshape(batch, tokens // chunk, chunk, heads, features).swapaxes(0, 1)
    attend = jax.checkpoint(functools.partial(_attend, key=key, value=value))
    return jax.lax.map(attend, chunks).swapaxes(0, 1).reshape(query.shape)


def kind_of_attention(backend: str, dtype: Dtype, query_shape: tuple[int, ...], keys: int, *, causal: bool) -> Kind:
    """How attention is computed.

    cuDNN's rules are those of `jax._src.cudnn.fused_attention_stablehlo` for any GPU since Ampere.

    Args:
        backend: `cpu`, `tpu`, or `gpu` followed by the compute capability of NVIDIA's, such as `gpu 9.0`.
        dtype: of query, key and value.
        query_shape: [b, q, heads, d].
        keys: their number.
        causal: whether a token sees those before it alone.
    """
    features = query_shape[-1]
    if _is_since_ampere(backend) and dtype in (jnp.bfloat16, jnp.float16) and features % 8 == 0 and features <= 128:
        return "cudnn"
    return "whole" if causal or chunk_length(query_shape, keys) == query_shape[1] else "chunks"


def chunk_length(query_shape: tuple[int, ...], keys: int) -> int:
    """How many queries at once: the largest divisor of their number whose scores stay below the limit, at least 1."""
    batch, tokens, heads, _ = query_shape
    most = SCORES_LIMIT_BYTES // (4 * batch * heads * keys)
    return next(length for length in range(tokens, 0, -1) if tokens % length == 0 and (length <= most or length == 1))


def by_jax(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool, implementation: Literal["cudnn", "xla"]
) -> jax.Array:
    """The same attention by JAX's own function; `xla` computes what `cudnn` does, on every backend."""
    return jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation=implementation)


def _backend() -> str:
    """The backend of the mesh that is traced for, which need not be the default; see `kind_of_attention`."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform: str = device.platform if device else jax.default_backend()
    return f"gpu {jax.local_devices(backend='gpu')[0].compute_capability}" if platform == "gpu" else platform


def _is_since_ampere(backend: str) -> bool:
    platform, _, capability = backend.partition(" ")
    major = capability.partition(".")[0]
    return platform == "gpu" and major.isdecimal() and int(major) >= 8  # AMD's are called gfx90a and the like


def _attend(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False) -> jax.Array:
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(query.shape[-1])
    if causal:
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(seen, scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(value.dtype), value)

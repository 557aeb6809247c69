"""The UNet's transformer: tokens of a picture attend to each other and to the prompt (Rombach et al. 2022)."""

from __future__ import annotations

import jax
from flax import nnx
from flax.typing import Dtype

from components.flax_models.attention import attention
from components.flax_models.layers import Conv, GroupNorm, LayerNorm, Linear, Stack, exact_gelu


class SpatialTransformer(nnx.Module):
    """Transformer blocks over the places of a feature map, beside a shortcut."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context: int,
        groups: int,
        dtype: Dtype,
        *,
        depth: int = 1,
        linear_projection: bool = False,
        remat: bool = False,
    ) -> None:
        """Takes the prompt's features as `context`; Stable Diffusion 1 projects by convolutions, XL by dense layers.

        With `remat`, the backward pass repeats the blocks.
        """
        self.linear_projection = linear_projection
        self.norm = GroupNorm(channels, groups, 1e-6)
        self.proj_in = _projection(channels, dtype, linear_projection)
        self.transformer_blocks = Stack(lambda: _Block(channels, heads, context, dtype), depth, remat=remat)
        self.proj_out = _projection(channels, dtype, linear_projection)

    def __call__(self, x: jax.Array, prompt: jax.Array) -> jax.Array:
        """[b, h, w, c] and the prompt's hidden states [b, t, context] to [b, h, w, c]."""
        batch, height, width, channels = x.shape
        hidden = self.proj_in(self.norm(x)).reshape(batch, height * width, channels)
        hidden = self.transformer_blocks(hidden, prompt)
        return x + self.proj_out(hidden.reshape(x.shape))


class Attention(nnx.Module):
    """Multi-head attention of x over a context, or over itself."""

    def __init__(self, features: int, heads: int, context: int, dtype: Dtype, *, bias: bool = False) -> None:
        """Takes whether queries, keys and values have a bias, as in the VAE."""
        self.heads = heads
        self.to_q = Linear(features, features, dtype, bias=bias)
        self.to_k = Linear(context, features, dtype, bias=bias)
        self.to_v = Linear(context, features, dtype, bias=bias)
        self.to_out = nnx.List([Linear(features, features, dtype)])

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """[b, t, features] and [b, k, context features] to [b, t, features]."""
        source = x if context is None else context
        head = x.shape[-1] // self.heads
        query, key, value = (
            project(given).reshape(given.shape[0], given.shape[1], self.heads, head)
            for project, given in ((self.to_q, x), (self.to_k, source), (self.to_v, source))
        )
        return self.to_out[0](attention(query, key, value).reshape(x.shape))


class _Block(nnx.Module):
    def __init__(self, features: int, heads: int, context: int, dtype: Dtype) -> None:
        self.norm1 = LayerNorm(features)
        self.attn1 = Attention(features, heads, features, dtype)
        self.norm2 = LayerNorm(features)
        self.attn2 = Attention(features, heads, context, dtype)
        self.norm3 = LayerNorm(features)
        self.ff = _FeedForward(features, dtype)

    def __call__(self, x: jax.Array, prompt: jax.Array) -> jax.Array:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), prompt)
        return x + self.ff(self.norm3(x))


class _FeedForward(nnx.Module):
    """A gated feed-forward layer; diffusers' files number its parts 0 and 2."""

    def __init__(self, features: int, dtype: Dtype) -> None:
        self.net = nnx.Dict({"0": _Gated(features, 4 * features, dtype), "2": Linear(4 * features, features, dtype)})

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.net["2"](self.net["0"](x))


class _Gated(nnx.Module):
    """GEGLU (Shazeer 2020)."""

    def __init__(self, features_in: int, features_out: int, dtype: Dtype) -> None:
        self.proj = Linear(features_in, 2 * features_out, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden, gate = jax.numpy.split(self.proj(x), 2, axis=-1)
        return hidden * exact_gelu(gate)


def _projection(channels: int, dtype: Dtype, linear_projection: bool) -> nnx.Module:
    return Linear(channels, channels, dtype) if linear_projection else Conv(channels, channels, dtype, size=1)

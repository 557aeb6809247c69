"""CLIP's text encoders (Radford et al. 2021), with placeholder rows placed into their token embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from components.common.families import TextEncoder
from components.flax_models.attention import attention
from components.flax_models.layers import ACTIVATIONS, Embedding, LayerNorm, Linear, Stack
from components.flax_models.module_configs import ClipTextConfig

_LEGACY_END_OF_TEXT = 2
"""The end-of-text token in configurations of before transformers 4.31, where it is not that of the tokenizer."""


class ClipTextEncoder(nnx.Module):
    """Token ids to what a UNet is conditioned on; parameters are named as in the model's safetensors file."""

    def __init__(self, config: ClipTextConfig, dtype: Dtype, encoder: TextEncoder, *, remat: bool = False) -> None:
        """Takes the weights' dtype, and what of it a family uses; with `remat`, the backward pass repeats layers."""
        self.used, self.end_of_text = encoder, config.eos_token_id
        self.embeddings = _Embeddings(config, dtype)
        self.encoder = _Layers(config, dtype, remat)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        if encoder.pooled:
            self.text_projection = Linear(config.hidden_size, config.projection_dim, dtype, bias=False)

    def __call__(
        self, token_ids: jax.Array, rows: jax.Array, first_id: int | jax.Array, *, clip_skip: int = 0
    ) -> tuple[jax.Array, jax.Array | None]:
        """The hidden states [b, t, hidden], and the pooled projection [b, projection] where the family uses one.

        Args:
            token_ids: int32 [b, t]; the placeholder's ids are the last ones, `first_id` up to `first_id + n - 1`.
            rows: float32 [n, hidden], the embeddings of the placeholder's tokens.
            first_id: see `token_ids`.
            clip_skip: how many of the last layers hidden states go without, beside those that the family leaves out; a
                final norm follows all the same (diffusers, `encode_prompt` of the pipelines). What is pooled has all.
        """
        last, hidden = self.encoder(self.embeddings(token_ids, rows, first_id), self.used.left_out_layers + clip_skip)
        hidden = self.final_layer_norm(hidden) if self.used.final_norm else hidden
        if not self.used.pooled:
            return hidden, None
        last = self.final_layer_norm(last)
        ends = last[jnp.arange(len(last)), self._ends(token_ids)]
        return hidden, self.text_projection(ends)

    def _ends(self, token_ids: jax.Array) -> jax.Array:
        """Where each prompt ends, int32 [b], as transformers' `CLIPTextModel` finds it.

        By a legacy configuration that is the highest id: of a placeholder, its last token.
        """
        if self.end_of_text == _LEGACY_END_OF_TEXT:
            return token_ids.argmax(axis=1)
        return (token_ids == self.end_of_text).argmax(axis=1)


class _Embeddings(nnx.Module):
    def __init__(self, config: ClipTextConfig, dtype: Dtype) -> None:
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size, dtype)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size, dtype)

    def __call__(self, token_ids: jax.Array, rows: jax.Array, first_id: int | jax.Array) -> jax.Array:
        offset = token_ids - first_id
        is_placeholder = offset >= 0
        ordinary = self.token_embedding(jnp.where(is_placeholder, 0, token_ids))
        placed = rows[jnp.maximum(offset, 0)].astype(ordinary.dtype)
        positions = self.position_embedding(jnp.arange(token_ids.shape[1]))
        return jnp.where(is_placeholder[..., None], placed, ordinary) + positions


class _Layers(nnx.Module):
    def __init__(self, config: ClipTextConfig, dtype: Dtype, remat: bool) -> None:
        self.layers = Stack(lambda: _Layer(config, dtype), config.num_hidden_layers, remat=remat)

    def __call__(self, x: jax.Array, left_out: int) -> tuple[jax.Array, jax.Array]:
        """The hidden states after all layers, and those with the last `left_out` left out."""
        return self.layers.keeping(x, self.layers.depth - left_out)


class _Layer(nnx.Module):
    def __init__(self, config: ClipTextConfig, dtype: Dtype) -> None:
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = _SelfAttention(config, dtype)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = _Mlp(config, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _SelfAttention(nnx.Module):
    def __init__(self, config: ClipTextConfig, dtype: Dtype) -> None:
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj, self.k_proj = Linear(width, width, dtype), Linear(width, width, dtype)
        self.v_proj, self.out_proj = Linear(width, width, dtype), Linear(width, width, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        split = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        query, key, value = (project(x).reshape(split) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attention(query, key, value, causal=True).reshape(x.shape))


class _Mlp(nnx.Module):
    def __init__(self, config: ClipTextConfig, dtype: Dtype) -> None:
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = Linear(config.hidden_size, config.intermediate_size, dtype)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.activation(self.fc1(x)))

"""What a UNet is told beside latents and timesteps, from prompts: the same in training, measuring and drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from components.flax_models.clip_text import ClipTextEncoder


class Conditioning(NamedTuple):
    """The last arguments of `UNet`: hidden states [b, t, features], pooled projection [b, p], time ids [b, 6].

    The last two are None where the family has none.
    """

    prompt: jax.Array
    pooled: jax.Array | None = None
    time_ids: jax.Array | None = None

    def with_zeroed_prompt(self) -> Conditioning:
        """The same for zeros in place of what prompts tell, as diffusers' `force_zeros_for_empty_prompt` has it."""
        return jax.tree.map(jnp.zeros_like, self)._replace(time_ids=self.time_ids)


def conditioning(
    text_encoders: Mapping[str, ClipTextEncoder],
    token_ids: Mapping[str, jax.Array],
    rows: Mapping[str, jax.Array],
    first_id: int | jax.Array,
    *,
    clip_skip: int = 0,
    time_ids: jax.Array | None = None,
) -> Conditioning:
    """What prompts tell the UNet: the hidden states of all text encoders, joined, and the pooled projection.

    Args:
        text_encoders: the family's, in its order.
        token_ids: of the prompts by text encoder, int32 [b, t] each.
        rows: the placeholder's by text encoder, float32 [n, hidden] each.
        first_id: the placeholder's first id.
        clip_skip: see `ClipTextEncoder`.
        time_ids: float32 [b, 6], where the family has them.
    """
    read = [
        encoder(token_ids[part], rows[part], first_id, clip_skip=clip_skip) for part, encoder in text_encoders.items()
    ]
    hidden = [states for states, _ in read]
    pooled = [projection for _, projection in read if projection is not None]
    prompt = jnp.concatenate(hidden, axis=-1) if len(hidden) > 1 else hidden[0]
    return Conditioning(prompt, pooled[0] if pooled else None, time_ids)

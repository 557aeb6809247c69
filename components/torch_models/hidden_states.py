"""The text encoder's hidden states that a UNet is conditioned on."""

from __future__ import annotations

import torch
from transformers import CLIPTextModel


def hidden_states(text_encoder: CLIPTextModel, ids: torch.Tensor, clip_skip: int = 0) -> torch.Tensor:
    """The hidden states [b, t, hidden] of token ids, int64 [b, t].

    With `clip_skip` they are those so many layers before the last, normalised as the last ones are (diffusers,
    `StableDiffusionPipeline.encode_prompt`, which looks for the norm where transformers 5 has it no longer).
    """
    if not clip_skip:
        last: torch.Tensor = text_encoder(ids)[0]
        return last
    states = text_encoder(ids, output_hidden_states=True).hidden_states
    normalised: torch.Tensor = text_encoder.final_layer_norm(states[-(clip_skip + 1)])
    return normalised

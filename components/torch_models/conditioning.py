"""What a UNet is told: a prompt as the text encoders of its family read it, and what is known of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from components.common.families import Family

Text = tuple[torch.Tensor, ...]
"""b prompts: the text encoders' hidden states [b, tokens, d], joined along the last axis; then, where the family has
one, the pooled projection [b, p]."""


def encode_text(
    family: Family, text_encoders: Mapping[str, Any], ids: Mapping[str, torch.Tensor], clip_skip: int = 0
) -> Text:
    """The prompts of token ids, int64 [b, tokens] for each text encoder.

    With `clip_skip` the hidden states are those so many layers earlier (`encode_prompt` of diffusers' pipelines).
    Pooled is the last layer, at the token that transformers takes for the end of the text: where a configuration has
    the `eos_token_id` 2, as SDXL's, at the highest id, which in a prompt with the placeholder is its last vector's.
    """
    states, pooled = [], []
    for described in family.text_encoders:
        text_encoder = text_encoders[described.part]
        output = text_encoder(ids[described.part], output_hidden_states=True)
        # Not yet normalised, the last ones neither.
        found = output.hidden_states[-(1 + described.left_out_layers + clip_skip)]
        states.append(text_encoder.final_layer_norm(found) if described.final_norm else found)
        if described.pooled:
            pooled.append(output.text_embeds)
    return torch.cat(states, dim=-1), *pooled


def predict(
    unet: UNet2DConditionModel, noisy_latents: torch.Tensor, timestep: torch.Tensor, text: Text, time_ids: torch.Tensor
) -> torch.Tensor:
    """The UNet's prediction, [b, C, h, w] in its dtype.

    Args:
        unet: the UNet.
        noisy_latents: [b, C, h, w].
        timestep: int64 [b].
        text: from `encode_text`.
        time_ids: float32 [b, 6], in full precision whatever the UNet's; unused where the text has nothing pooled.
    """
    hidden_states, *pooled = (each.to(unet.dtype) for each in text)
    added = {"text_embeds": pooled[0], "time_ids": time_ids} if pooled else None
    prediction: torch.Tensor = unet(
        noisy_latents.to(unet.dtype), timestep, hidden_states, added_cond_kwargs=added, return_dict=False
    )[0]
    return prediction

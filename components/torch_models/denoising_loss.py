"""The held-out denoising loss: how well a prompt explains pictures that were not trained on.

The same pictures, timesteps and noise for every prompt, so that two values differ by the prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import nn

from components.common.held_out_draws import held_out_draws
from components.torch_models.hidden_states import hidden_states
from components.torch_models.sampling import Pipeline

_BATCH = 10


@torch.inference_mode()
def held_out_loss(pipeline: Pipeline, pictures: Sequence[np.ndarray], prompt: str, *, clip_skip: int = 0) -> float:
    """The mean squared error of the pipeline's UNet over pictures and timesteps, given `prompt`.

    Args:
        pipeline: from `load_pipeline`, with the concept loaded if the prompt names it.
        pictures: uint8 [H, W, 3] each, of one size.
        prompt: with the placeholder alone for a concept of several vectors.
        clip_skip: how many of the text encoder's last layers are left out.
    """
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    latents = _latents(pipeline, pictures)
    states = _hidden_states(pipeline, prompt, clip_skip)
    draws = held_out_draws(tuple(latents.shape), schedule.config.num_train_timesteps)
    errors = []
    for timestep, drawn in zip(draws.timesteps.tolist(), torch.from_numpy(draws.noise), strict=True):
        for start in range(0, len(latents), _BATCH):
            chosen = slice(start, start + _BATCH)
            errors.append(_squared_errors(pipeline.unet, schedule, latents[chosen], drawn[chosen], timestep, states))
    return float(torch.cat(errors).mean())


def _squared_errors(
    unet: Any,
    schedule: Any,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timestep: int,
    hidden_states: torch.Tensor,
) -> torch.Tensor:
    noise = noise.to(latents.device)
    timesteps = torch.full((len(latents),), timestep, device=latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    predicted = unet(noisy.to(unet.dtype), timesteps, hidden_states.expand(len(latents), -1, -1)).sample.float()
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
    return nn.functional.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))


def _latents(pipeline: Pipeline, pictures: Sequence[np.ndarray]) -> torch.Tensor:
    vae = pipeline.vae
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(vae.device)
    mean = vae.encode((pixels.float() / 127.5 - 1.0).to(vae.dtype)).latent_dist.mean
    return mean.float() * vae.config.scaling_factor


def _hidden_states(pipeline: Pipeline, prompt: str, clip_skip: int) -> torch.Tensor:
    tokenizer = pipeline.tokenizer
    ids = tokenizer(
        pipeline.maybe_convert_prompt(prompt.lower(), tokenizer),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    states = hidden_states(pipeline.text_encoder, ids.to(pipeline.text_encoder.device), clip_skip)
    return states.to(pipeline.unet.dtype)

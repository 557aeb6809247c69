"""The denoising loss: how well a prompt explains pictures.

The same pictures, timesteps and noise for every prompt, so that two values differ by the prompt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import nn

from components.common.artifacts import LatentSet
from components.common.held_out_draws import held_out_draws
from components.common.vocabulary import Tokenizer
from components.torch_models.hidden_states import hidden_states
from components.torch_models.loading import load_noise_scheduler, load_text_encoder, load_unet
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
            timesteps = torch.full((len(latents[chosen]),), timestep)
            errors.append(_squared_errors(pipeline.unet, schedule, latents[chosen], drawn[chosen], timesteps, states))
    return float(torch.cat(errors).mean())


class PromptLosses:
    """The loss of one prompt after the other over some pictures of a LatentSet, float32 on CPUs, float16 on GPUs."""

    def __init__(
        self,
        model: Path,
        tokenizer: Tokenizer,
        latent_set: LatentSet,
        *,
        device: torch.device,
        strata: int,
        template: str,
        max_pictures: int,
    ) -> None:
        """Loads text encoder and UNet.

        Args:
            model: a local diffusers folder.
            tokenizer: the model's, limited to its text encoder.
            latent_set: the pictures.
            device: where to compute.
            strata: equal parts of the noise schedule, each looked at in its middle.
            template: the prompt, with `{}` in a word's place.
            max_pictures: how many pictures are looked at, the first of them.
        """
        dtype = torch.float32 if device.type == "cpu" else torch.float16
        self._tokenizer, self._template = tokenizer, template
        self._text_encoder = load_text_encoder(model, dtype=dtype, device=device)
        self._unet = load_unet(model, dtype=dtype, device=device)
        self._schedule = load_noise_scheduler(model)
        means = np.stack([latents.mean for latents in latent_set.latents[:max_pictures]])
        draws = held_out_draws(means.shape, self._schedule.config.num_train_timesteps, strata)
        self._latents = torch.from_numpy(means).to(device) * latent_set.scaling_factor
        self._timesteps, self._noise = torch.from_numpy(draws.timesteps), torch.from_numpy(draws.noise)

    @torch.inference_mode()
    def loss(self, word: str, strata: Sequence[int] | None = None) -> float:
        """The mean squared error of the UNet's prediction with a word, or none, in the template.

        Args:
            word: the word; empty to leave it out.
            strata: the parts of the noise schedule to look at; None for all.
        """
        prompt = " ".join(self._template.format(word).split())
        states = _encoded(self._tokenizer, self._text_encoder, prompt).to(self._unet.dtype)
        chosen = list(range(len(self._timesteps)) if strata is None else strata)
        pictures = len(self._latents)
        latents = self._latents.repeat(len(chosen), 1, 1, 1)
        noise = self._noise[chosen].flatten(0, 1)
        timesteps = self._timesteps[chosen].repeat_interleave(pictures)
        errors = [
            _squared_errors(self._unet, self._schedule, latents[part], noise[part], timesteps[part], states)
            for part in (slice(start, start + _BATCH) for start in range(0, len(latents), _BATCH))
        ]
        return float(torch.cat(errors).mean())


def _squared_errors(
    unet: Any,
    schedule: Any,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    states: torch.Tensor,
) -> torch.Tensor:
    """The error of each sample, float32 [b], whose timestep is int64 [b]."""
    noise, timesteps = noise.to(latents.device), timesteps.to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    predicted = unet(noisy.to(unet.dtype), timesteps, states.expand(len(latents), -1, -1)).sample.float()
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
    prompt = pipeline.maybe_convert_prompt(prompt.lower(), tokenizer)
    return _encoded(tokenizer, pipeline.text_encoder, prompt, clip_skip).to(pipeline.unet.dtype)


def _encoded(tokenizer: Tokenizer, text_encoder: Any, prompt: str, clip_skip: int = 0) -> torch.Tensor:
    """The text encoder's hidden states of a prompt, [1, tokens, d]."""
    ids = tokenizer(
        prompt,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    return hidden_states(text_encoder, ids.to(text_encoder.device), clip_skip)

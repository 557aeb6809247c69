"""The denoising loss: how well a prompt explains pictures.

The same pictures, timesteps and noise for every prompt, so that two values differ by the prompt alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import nn

from components.common.artifacts import LatentSet
from components.common.families import Family, family_of
from components.common.held_out_draws import SAMPLES_AT_ONCE, held_out_draws
from components.common.time_ids import TimeIds, drawing_time_ids, time_ids
from components.common.vocabulary import Tokenizer
from components.torch_models.conditioning import Text, encode_text, predict
from components.torch_models.loading import load_noise_scheduler, load_text_encoders, load_unet
from components.torch_models.sampling import Pipeline


@torch.inference_mode()
def held_out_loss(pipeline: Pipeline, pictures: Sequence[np.ndarray], prompt: str, *, clip_skip: int = 0) -> float:
    """The mean squared error of the pipeline's UNet over pictures and timesteps, given `prompt`.

    A UNet that is told sizes and crops hears of pictures as they are, not cut.

    Args:
        pipeline: from `load_pipeline`, with the concept loaded if the prompt names it.
        pictures: uint8 [H, W, 3] each, of one size.
        prompt: with the placeholder alone for a concept of several vectors.
        clip_skip: how many of the text encoder's last layers are left out.
    """
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    latents = _latents(pipeline, pictures)
    text = _text_of_pipeline(pipeline, prompt, clip_skip)
    told = _on_device([drawing_time_ids(*picture.shape[:2]) for picture in pictures], latents.device)
    draws = held_out_draws(tuple(latents.shape), schedule.config.num_train_timesteps)
    errors = []
    for timestep, drawn in zip(draws.timesteps.tolist(), torch.from_numpy(draws.noise), strict=True):
        for start in range(0, len(latents), SAMPLES_AT_ONCE):
            chosen = slice(start, start + SAMPLES_AT_ONCE)
            timesteps = torch.full((len(latents[chosen]),), timestep)
            errors.append(
                _squared_errors(pipeline.unet, schedule, latents[chosen], drawn[chosen], timesteps, text, told[chosen])
            )
    return float(torch.cat(errors).mean())


class PromptLosses:
    """The loss of one prompt after the other over some pictures of a LatentSet, float32 on CPUs, float16 on GPUs."""

    def __init__(
        self,
        model: Path,
        family: Family,
        tokenizers: Mapping[str, Tokenizer],
        latent_set: LatentSet,
        *,
        device: torch.device,
        strata: int,
        template: str,
        max_pictures: int,
        clip_skip: int = 0,
    ) -> None:
        """Loads text encoders and UNet.

        Args:
            model: a local diffusers folder.
            family: what it is.
            tokenizers: the model's, each limited to its text encoder, by text encoder.
            latent_set: the pictures.
            device: where to compute.
            strata: equal parts of the noise schedule, each looked at in its middle.
            template: the prompt, with `{}` in a word's place.
            max_pictures: how many pictures are looked at, the first of them.
            clip_skip: how many of the text encoder's last layers are left out.
        """
        dtype = torch.float32 if device.type == "cpu" else torch.float16
        self._family, self._tokenizers, self._template, self._clip_skip = family, tokenizers, template, clip_skip
        self._text_encoders = load_text_encoders(model, family, dtype=dtype, device=device)
        self._unet = load_unet(model, dtype=dtype, device=device)
        self._schedule = load_noise_scheduler(model)
        looked_at = latent_set.latents[:max_pictures]
        means = np.stack([latents.mean for latents in looked_at])
        draws = held_out_draws(means.shape, self._schedule.config.num_train_timesteps, strata)
        self._latents = torch.from_numpy(means).to(device) * latent_set.scaling_factor
        self._time_ids = _on_device([time_ids(latents.picture, mirrored=False) for latents in looked_at], device)
        self._timesteps, self._noise = torch.from_numpy(draws.timesteps), torch.from_numpy(draws.noise)

    @torch.inference_mode()
    def loss(self, word: str, strata: Sequence[int] | None = None) -> float:
        """The mean squared error of the UNet's prediction with a word, or none, in the template.

        Args:
            word: the word; empty to leave it out.
            strata: the parts of the noise schedule to look at; None for all.
        """
        prompt = " ".join(self._template.format(word).split())
        text = _encoded(self._family, self._text_encoders, self._tokenizers, prompt, self._clip_skip)
        chosen = list(range(len(self._timesteps)) if strata is None else strata)
        pictures = len(self._latents)
        latents = self._latents.repeat(len(chosen), 1, 1, 1)
        noise = self._noise[chosen].flatten(0, 1)
        timesteps = self._timesteps[chosen].repeat_interleave(pictures)
        told = self._time_ids.repeat(len(chosen), 1)
        errors = [
            _squared_errors(self._unet, self._schedule, latents[part], noise[part], timesteps[part], text, told[part])
            for part in (slice(start, start + SAMPLES_AT_ONCE) for start in range(0, len(latents), SAMPLES_AT_ONCE))
        ]
        return float(torch.cat(errors).mean())


def _squared_errors(
    unet: Any,
    schedule: Any,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    text: Text,
    told: torch.Tensor,
) -> torch.Tensor:
    """The error of each sample, float32 [b], whose timestep is int64 [b] and time ids are float32 [b, 6]."""
    noise, timesteps = noise.to(latents.device), timesteps.to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    text = tuple(each.expand(len(latents), *each.shape[1:]) for each in text)
    predicted = predict(unet, noisy, timesteps, text, told).float()
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
    return nn.functional.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))


def _latents(pipeline: Pipeline, pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """The scaled posterior means, float32 [b, C, h, w], computed in float32: in fp16 SDXL's VAE overflows.

    Picture by picture, as `load_pipeline` has told the VAE.
    """
    vae, drawn_in = pipeline.vae, pipeline.vae.dtype
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(vae.device)
    mean: torch.Tensor = vae.float().encode(pixels.float() / 127.5 - 1.0).latent_dist.mean
    vae.to(drawn_in)
    return mean * vae.config.scaling_factor


def _on_device(told: Sequence[TimeIds], device: torch.device) -> torch.Tensor:
    return torch.tensor(told, dtype=torch.float32, device=device)


def _text_of_pipeline(pipeline: Pipeline, prompt: str, clip_skip: int) -> Text:
    family = family_of(pipeline.components, pipeline.unet.config)
    tokenizers = {each.part: pipeline.components[each.tokenizer] for each in family.text_encoders}
    prompt = pipeline.maybe_convert_prompt(prompt.lower(), pipeline.tokenizer)
    return _encoded(family, pipeline.components, tokenizers, prompt, clip_skip)


def _encoded(
    family: Family,
    text_encoders: Mapping[str, Any],
    tokenizers: Mapping[str, Tokenizer],
    prompt: str,
    clip_skip: int = 0,
) -> Text:
    """One prompt as the text encoders read it."""
    ids = {
        part: tokenizer(
            prompt,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids.to(text_encoders[part].device)
        for part, tokenizer in tokenizers.items()
    }
    return encode_text(family, text_encoders, ids, clip_skip)

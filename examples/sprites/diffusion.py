"""The tiny latent diffusion model: a UNet and a text encoder trained together in the autoencoder's latents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from examples.sprites.captions import draw_captioned, random_caption, random_full_caption
from examples.sprites.clip import HIDDEN_SIZE, tokenize
from examples.sprites.progress import Progress
from examples.sprites.vae import to_tensor
from examples.sprites.world import Dataset

_LR = 1e-3
_TEXT_LR_FACTOR = 0.3
_BATCH = 32
_CAPTION_DROPOUT = 0.1
_EMA = 0.999
_CAPTIONS_PER_PICTURE = 5
_EXPORT_EVERY = 500

Export = Callable[[StableDiffusionPipeline, int], None]


def train_diffusion(
    vae: AutoencoderKL,
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    *,
    steps: int,
    pictures: int,
    seed: int,
    export: Export,
) -> list[float]:
    """The losses of training; every 500 steps and at the end, `export` is given the averaged weights as a pipeline.

    v-prediction (Salimans & Ho 2022) with the linear schedule of Ho et al. 2020: with epsilon and Stable Diffusion's
    scaled-linear schedule so short a training leaves the mean colour to the noise.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed + 1)
    data = draw_captioned(pictures, seed=seed + 2)
    captions, empty = _caption_ids(data, tokenizer, rng), tokenize(tokenizer, [""])
    mean, std = _encode(vae, data)
    text_encoder, unet = _text_encoder_from(clip, tokenizer), _new_unet()
    scheduler = DDPMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", prediction_type="v_prediction", clip_sample=False
    )
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    averaged = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(unet.parameters()), "factor": 1.0},
            {"params": list(text_encoder.parameters()), "factor": _TEXT_LR_FACTOR},
        ],
        weight_decay=0.01,
        betas=(0.9, 0.99),
    )
    progress = Progress("unet", steps=steps, every=50)
    for step in range(steps):
        lr = _learning_rate(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        chosen = torch.randint(0, len(mean), (_BATCH,))
        ids = captions[torch.randint(0, _CAPTIONS_PER_PICTURE, (_BATCH,)), chosen % pictures]
        ids = torch.where((torch.rand(_BATCH) < _CAPTION_DROPOUT)[:, None], empty, ids)
        latents = mean[chosen] + std[chosen] * torch.randn_like(mean[chosen])
        loss = _loss(unet, text_encoder, scheduler, latents, ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(_EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(averaged, [p.detach() for p in parameters], 1 - decay)
        progress.record(loss.item(), lr)
        done = step + 1
        if done % _EXPORT_EVERY == 0 or done == steps:
            _swap(parameters, averaged)
            export(assemble_pipeline(vae, text_encoder, tokenizer, unet, scheduler), done)
            _swap(parameters, averaged)
    return progress.losses


def assemble_pipeline(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    scheduler: DDPMScheduler,
) -> StableDiffusionPipeline:
    """The parts as a Stable Diffusion pipeline that samples with DDIM, without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler.from_config(scheduler.config, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _learning_rate(step: int, steps: int) -> float:
    """Warm-up for 100 steps, flat to 40 per cent of the run, then linearly down to one per cent."""
    return _LR * min(1.0, (step + 1) / 100, max(0.01, (1 - step / steps) / 0.6))


def _loss(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    scheduler: DDPMScheduler,
    latents: torch.Tensor,
    ids: torch.Tensor,
) -> torch.Tensor:
    batch, levels = len(latents), scheduler.config.num_train_timesteps
    # One timestep from each of `batch` equal strata: the same expectation as uniform draws, with less variance.
    timesteps = ((torch.randperm(batch) + torch.rand(batch)) * (levels / batch)).long().clamp(max=levels - 1)
    noise = torch.randn_like(latents)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    predicted = unet(noisy, timesteps, text_encoder(ids)[0]).sample
    return F.mse_loss(predicted, scheduler.get_velocity(latents, noise, timesteps))


def _caption_ids(data: Dataset, tokenizer: CLIPTokenizer, rng: np.random.Generator) -> torch.Tensor:
    """Token ids int64 ``(captions, N, L)``: a full caption for each picture, and several loose ones."""
    loose = [
        [random_caption(*pair, rng) for pair in zip(data.attributes, data.nouns, strict=True)]
        for _ in range(_CAPTIONS_PER_PICTURE - 1)
    ]
    full = [random_full_caption(row, rng) for row in data.attributes]
    return torch.stack([tokenize(tokenizer, captions) for captions in (full, *loose)])


@torch.no_grad()
def _encode(vae: AutoencoderKL, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled posterior mean and deviation ``(2N, 4, 16, 16)`` of the pictures and of their mirror images."""
    pictures = np.concatenate([data.pictures, data.pictures[:, :, ::-1]])
    posteriors = [vae.encode(to_tensor(pictures[i : i + 100])).latent_dist for i in range(0, len(pictures), 100)]
    factor = vae.config.scaling_factor
    return torch.cat([p.mean for p in posteriors]) * factor, torch.cat([p.std for p in posteriors]) * factor


def _text_encoder_from(clip: CLIPModel, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A text encoder that begins as CLIP's text tower, shortened to the tokenizer's length."""
    source = clip.config.text_config.to_dict()
    length = tokenizer.model_max_length
    config = CLIPTextConfig.from_dict({**source, "max_position_embeddings": length, "projection_dim": HIDDEN_SIZE})
    encoder = CLIPTextModel(config)
    weights = clip.text_model.state_dict()
    own = encoder.state_dict()
    encoder.load_state_dict({key: weights[key.removeprefix("text_model.")][: len(own[key])] for key in own})
    return encoder


def _new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 80, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=HIDDEN_SIZE,
        attention_head_dim=4,
        norm_num_groups=8,
    )


@torch.no_grad()
def _swap(left: list[torch.nn.Parameter], right: list[torch.Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        kept = a.detach().clone()
        a.copy_(b)
        b.copy_(kept)

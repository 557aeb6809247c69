"""The tiny latent diffusion model: a UNet and a text encoder trained together in the autoencoder's latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from examples.sprites.captions import draw_captioned, random_caption, random_full_caption
from examples.sprites.clip import HIDDEN_SIZE, tokenize
from examples.sprites.progress import Progress
from examples.sprites.vae import to_tensor
from examples.sprites.world import Dataset, Pictures

BATCH = 32
CAPTION_DROPOUT = 0.1
CAPTIONS_PER_PICTURE = 5
_LR = 1e-3
_TEXT_LR_FACTOR = 0.3
_EMA = 0.999
_EXPORT_EVERY = 500

Export = Callable[[DiffusionPipeline, int], None]


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
    captions, empty = caption_ids(tokenizer, draw_captions(data, rng)), tokenize(tokenizer, [""])
    mean, std = encode(vae, with_mirror_images(data.pictures))
    text_encoder, unet = _text_encoder_from(clip, tokenizer), _new_unet()
    scheduler = DDPMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", prediction_type="v_prediction", clip_sample=False
    )

    def loss() -> torch.Tensor:
        chosen = torch.randint(0, len(mean), (BATCH,))
        ids = captions[torch.randint(0, CAPTIONS_PER_PICTURE, (BATCH,)), chosen % pictures]
        ids = torch.where((torch.rand(BATCH) < CAPTION_DROPOUT)[:, None], empty, ids)
        latents = mean[chosen] + std[chosen] * torch.randn_like(mean[chosen])
        return velocity_loss(scheduler, latents, lambda noisy, t: unet(noisy, t, text_encoder(ids)[0]).sample)

    return descend(
        loss,
        unet,
        [text_encoder],
        steps=steps,
        export=lambda step: export(assemble_pipeline(vae, text_encoder, tokenizer, unet, scheduler), step),
    )


def descend(
    loss: Callable[[], torch.Tensor],
    unet: nn.Module,
    text_encoders: Sequence[nn.Module],
    *,
    steps: int,
    export: Callable[[int], None],
) -> list[float]:
    """Trains the modules to make `loss`, of a new batch at each call, small, and gives its values.

    AdamW, the text encoders at three tenths of the learning rate. Every 500 steps and at the end `export` is called
    with the number of steps, while the modules have the running average of their weights.
    """
    of_unet = list(unet.parameters())
    of_text = [parameter for encoder in text_encoders for parameter in encoder.parameters()]
    parameters = [*of_unet, *of_text]
    averaged = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        [{"params": of_unet, "factor": 1.0}, {"params": of_text, "factor": _TEXT_LR_FACTOR}],
        weight_decay=0.01,
        betas=(0.9, 0.99),
        fused=True,
    )
    progress = Progress("unet", steps=steps, every=50)
    for step in range(steps):
        lr = _learning_rate(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(_EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(averaged, [p.detach() for p in parameters], 1 - decay)
        progress.record(value.item(), lr)
        done = step + 1
        if done % _EXPORT_EVERY == 0 or done == steps:
            _swap(parameters, averaged)
            export(done)
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


def velocity_loss(
    scheduler: DDPMScheduler | DDIMScheduler,
    latents: torch.Tensor,
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The mean squared error of the velocity that `predict` sees in noisy latents ``(B, 4, 16, 16)`` at B timesteps."""
    batch, levels = len(latents), scheduler.config.num_train_timesteps
    # One timestep from each of `batch` equal strata: the same expectation as uniform draws, with less variance.
    timesteps = ((torch.randperm(batch) + torch.rand(batch)) * (levels / batch)).long().clamp(max=levels - 1)
    noise = torch.randn_like(latents)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    return F.mse_loss(predict(noisy, timesteps), scheduler.get_velocity(latents, noise, timesteps))


def draw_captions(data: Dataset, rng: np.random.Generator) -> list[list[str]]:
    """`CAPTIONS_PER_PICTURE` lists of a caption for each picture: full ones in the first, loose ones in the others."""
    loose = [
        [random_caption(*pair, rng) for pair in zip(data.attributes, data.nouns, strict=True)]
        for _ in range(CAPTIONS_PER_PICTURE - 1)
    ]
    return [[random_full_caption(row, rng) for row in data.attributes], *loose]


def caption_ids(tokenizer: CLIPTokenizer, captions: list[list[str]]) -> torch.Tensor:
    """Token ids int64 ``(captions, N, L)`` of `draw_captions`."""
    return torch.stack([tokenize(tokenizer, each) for each in captions])


def with_mirror_images(pictures: Pictures) -> Pictures:
    """The pictures ``(N, H, W, 3)`` and, after them, their mirror images ``(2N, H, W, 3)``."""
    return np.concatenate([pictures, pictures[:, :, ::-1]])


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Pictures) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled posterior mean and deviation ``(N, 4, 16, 16)`` of pictures ``(N, 32, 32, 3)``."""
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

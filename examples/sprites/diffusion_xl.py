"""The tiny Stable Diffusion XL: the tiny Stable Diffusion, trained on with a second text encoder, sizes and crops."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from examples.sprites.captions import draw_captioned
from examples.sprites.clip import HIDDEN_SIZE
from examples.sprites.diffusion import (
    BATCH,
    CAPTION_DROPOUT,
    CAPTIONS_PER_PICTURE,
    Export,
    caption_ids,
    descend,
    draw_captions,
    encode,
    velocity_loss,
    with_mirror_images,
)
from examples.sprites.tokenizer import MAX_LENGTH
from examples.sprites.world import SIZE, Pictures

CANVAS = 48
_CROPPED = 0.5
_HEADS = (2, 4, 8)
_TRANSFORMER_LAYERS = (1, 2, 1)
_TIME_EMBEDDING = 8
_CAPTIONS_FITTED = 500

Encoder = TypeVar("Encoder", CLIPTextModel, CLIPTextModelWithProjection)


def train_diffusion_xl(
    start: StableDiffusionPipeline,
    clip: CLIPModel,
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    *,
    steps: int,
    pictures: int,
    seed: int,
    export: Export,
) -> list[float]:
    """The losses of training; every 500 steps and at the end, `export` is given the averaged weights as a pipeline.

    As in Podell et al. 2023 the UNet sees the last but one layer of two text encoders, the second's pooled text, and
    the size and crop of the picture; a caption that is left out is zeros.

    Args:
        start: the tiny Stable Diffusion, in fp32: what the autoencoder is, and what the others begin as.
        clip: the tiny CLIP, in fp32: its text tower is what the second text encoder begins as.
        tokenizers: of the two text encoders, with the vocabulary of the tiny Stable Diffusion.
        steps: of 32 samples.
        pictures: how many are drawn; their mirror images come on top.
        seed: of pictures, captions, noise and new weights.
        export: as for `train_diffusion`.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed + 1)
    data = draw_captioned(pictures, seed=seed + 2, size=CANVAS)
    captions = draw_captions(data, rng)
    ids, ids_2 = (caption_ids(tokenizer, captions) for tokenizer in tokenizers)
    crops, time_ids = draw_crops(with_mirror_images(data.pictures), rng)
    mean, std = encode(start.vae, crops)
    text_encoder, text_encoder_2 = _text_encoders_from(start, clip)
    normed = _final_norm(text_encoder, ids[0, :_CAPTIONS_FITTED])
    unet = _unet_from(start.unet, normed, pooled_size=text_encoder_2.config.projection_dim)
    pipeline = StableDiffusionXLPipeline(
        vae=start.vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=start.scheduler,
        add_watermarker=False,
    )

    def loss() -> torch.Tensor:
        chosen = torch.randint(0, len(mean), (BATCH,))
        caption = torch.randint(0, CAPTIONS_PER_PICTURE, (BATCH,)), chosen % pictures
        kept = (torch.rand(BATCH) >= CAPTION_DROPOUT)[:, None]
        first = text_encoder(ids[caption], output_hidden_states=True)
        second = text_encoder_2(ids_2[caption], output_hidden_states=True)
        text = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1) * kept[..., None]
        added = {"text_embeds": second.text_embeds * kept, "time_ids": time_ids[chosen]}
        latents = mean[chosen] + std[chosen] * torch.randn_like(mean[chosen])
        return velocity_loss(
            start.scheduler, latents, lambda noisy, t: unet(noisy, t, text, added_cond_kwargs=added).sample
        )

    return descend(
        loss,
        unet,
        [text_encoder, text_encoder_2],
        steps=steps,
        export=functools.partial(export, pipeline),
    )


def draw_crops(pictures: Pictures, rng: np.random.Generator) -> tuple[Pictures, torch.Tensor]:
    """A crop uint8 ``(N, 32, 32, 3)`` of each picture ``(N, 48, 48, 3)``, and their time ids float32 ``(N, 6)``.

    Time ids are Stable Diffusion XL's: original height and width, top and left of the crop, target height and width.
    Half are whole pictures of 32 x 32, the others come from anywhere in one of 32 x 48 or 48 x 32; half of either are
    said to have been twice as large before they were made smaller.
    """
    count = len(pictures)
    longer = np.where(rng.random(count) < _CROPPED, CANVAS - SIZE, 0)
    offset = rng.integers(0, longer + 1)
    tall = rng.random(count) < 0.5
    scale = rng.integers(1, 3, count)
    direction = np.stack([tall, ~tall], axis=1)
    original, top_left = SIZE + longer[:, None] * direction, offset[:, None] * direction
    corners = (CANVAS - original) // 2 + top_left
    crops = [picture[y : y + SIZE, x : x + SIZE] for picture, (y, x) in zip(pictures, corners, strict=True)]
    time_ids = np.concatenate([original * scale[:, None], top_left, np.full((count, 2), SIZE)], axis=1)
    return np.stack(crops), torch.tensor(time_ids, dtype=torch.float32)


def _text_encoders_from(
    start: StableDiffusionPipeline, clip: CLIPModel
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Encoders that begin as the tiny Stable Diffusion's and as CLIP's, each with one more layer.

    So the last layer but one, which the UNet sees, is what was trained as the last.
    """
    tower = {f"text_model.{key}": value for key, value in clip.text_model.state_dict().items()}
    projection = {"text_projection.weight": clip.text_projection.weight}
    return (
        _deepened(CLIPTextModel, start.text_encoder.config, start.text_encoder.state_dict()),
        _deepened(CLIPTextModelWithProjection, clip.config.text_config, {**tower, **projection}),
    )


def _deepened(kind: type[Encoder], config: CLIPTextConfig, weights: Mapping[str, torch.Tensor]) -> Encoder:
    """The encoder of these weights with another layer, which at first passes on what it gets, and fewer positions."""
    layers = config.num_hidden_layers + 1
    encoder = kind(
        CLIPTextConfig.from_dict(
            {**config.to_dict(), "num_hidden_layers": layers, "max_position_embeddings": MAX_LENGTH}
        )
    )
    own = encoder.state_dict()
    encoder.load_state_dict({key: value[: len(own[key])] for key, value in weights.items()}, strict=False)
    for name, parameter in encoder.named_parameters():
        if f"layers.{layers - 1}." in name and name.rsplit(".", 2)[1] in ("out_proj", "fc2"):
            nn.init.zeros_(parameter)
    return encoder


@torch.no_grad()
def _final_norm(text_encoder: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
    """The matrix ``(96, 96)`` that comes nearest to the final norm, for the words of these token ids ``(N, L)``.

    The tiny Stable Diffusion's UNet sees words after that norm, as Stable Diffusion XL's does not.
    """
    output = text_encoder(ids, output_hidden_states=True)
    return torch.linalg.lstsq(output.hidden_states[-2].flatten(0, 1), output[0].flatten(0, 1)).solution


@torch.no_grad()
def _unet_from(start: UNet2DConditionModel, normed: torch.Tensor, *, pooled_size: int) -> UNet2DConditionModel:
    """A UNet with Stable Diffusion XL's conditioning that begins by drawing what `start` draws.

    The columns for the second encoder and the further transformer blocks give nothing at first, and the embedding of
    pooled text, size and crop little. `normed` is from `_final_norm`.
    """
    unet = UNet2DConditionModel.from_config(
        start.config,
        cross_attention_dim=2 * HIDDEN_SIZE,
        attention_head_dim=_HEADS,
        transformer_layers_per_block=_TRANSFORMER_LAYERS,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_EMBEDDING,
        projection_class_embeddings_input_dim=pooled_size + 6 * _TIME_EMBEDDING,
    )
    begun = start.state_dict()
    for name, parameter in unet.named_parameters():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) and name in begun:
            parameter.copy_(F.pad(begun[name] @ normed.T, (0, HIDDEN_SIZE)))
        elif name in begun:
            parameter.copy_(begun[name].reshape(parameter.shape))
        elif any(part in name for part in (".to_out.0", ".ff.net.2")):
            nn.init.zeros_(parameter)
    return unet

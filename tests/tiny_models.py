"""Base models with random weights: the configurations of SD 1.5 and SD 2.1 with all widths divided by 8.

Four levels, 77 tokens and a vocabulary of 49,408 entries as in the originals, so that every step meets real shapes of
the configuration without real weights.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from components.common.prompts import OBJECT_TEMPLATES, STYLE_TEMPLATES

VOCABULARY = 49_408
STYLES = ("sd15", "sd21")
_EXTRA_WORDS = ("toy", "cat", "circle", "dog", "art", "on", "beach", "grass")

_UNET = {
    "sample_size": 64,
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelWidths:
    """What differs between base models: arguments of the parts' configurations."""

    text: dict[str, Any]
    unet: dict[str, Any]
    vae_channels: tuple[int, ...]
    norm_num_groups: int
    scheduler: dict[str, Any]


_WIDTHS = {
    "sd15": ModelWidths(
        text={
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
        unet={"block_out_channels": (40, 80, 160, 160), "cross_attention_dim": 96, "attention_head_dim": 8},
        vae_channels=(16, 32, 64, 64),
        norm_num_groups=8,
        scheduler={"prediction_type": "epsilon"},
    ),
    "sd21": ModelWidths(
        text={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
        },
        unet={
            "block_out_channels": (40, 80, 160, 160),
            "cross_attention_dim": 128,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        vae_channels=(16, 32, 64, 64),
        norm_num_groups=8,
        scheduler={"prediction_type": "v_prediction"},
    ),
}


def make_tokenizer(**told: str) -> CLIPTokenizer:
    """A CLIP tokenizer of 49,408 entries in which most words of the templates, and `toy`, are one token.

    `told` goes to its constructor.
    """
    alphabet = [chr(code) for code in range(33, 127)]
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, *(f"{c}</w>" for c in alphabet)])}
    merges: list[tuple[str, str]] = []

    def merge(left: str, right: str) -> str:
        if left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append((left, right))
        return left + right

    for word in sorted({w for t in (*OBJECT_TEMPLATES, *STYLE_TEMPLATES) for w in _words(t)} | set(_EXTRA_WORDS)):
        symbols = [*word[:-1], word[-1] + "</w>"]
        while len(symbols) > 1:
            symbols = [merge(symbols[0], symbols[1]), *symbols[2:]]
    fillers = ((a + b, c + "</w>") for a in alphabet for b in alphabet for c in alphabet if a + b in vocabulary)
    pairs = ((a, b) for a in alphabet for b in alphabet)
    for left, right in [*pairs]:
        merge(left, right)
    for left, right in fillers:
        if len(vocabulary) == VOCABULARY - 2:
            break
        merge(left, right)
    vocabulary |= {"<|startoftext|>": VOCABULARY - 2, "<|endoftext|>": VOCABULARY - 1}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, **told)


def make_tiny_model(path: Path, style: str = "sd15", seed: int = 0) -> Path:
    """A diffusers folder at `path` with the configuration `style` (one of `STYLES`) and random weights of a seed."""
    return make_model(path, _WIDTHS[style], seed)


def make_model(path: Path, widths: ModelWidths, seed: int = 0) -> Path:
    """A diffusers folder at `path` with these widths and random weights of a seed."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=widths.text["hidden_size"],
            **widths.text,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=widths.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=widths.norm_num_groups,
        sample_size=512,
        scaling_factor=0.18215,
    )
    scheduler = PNDMScheduler(
        **_BETAS, num_train_timesteps=1000, skip_prk_steps=True, steps_offset=1, **widths.scheduler
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**{**_UNET, "norm_num_groups": widths.norm_num_groups, **widths.unet}),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(path)
    return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class SdxlWidths:
    """What differs between base models of SDXL's parts: arguments of the parts' configurations."""

    text: dict[str, Any]
    text_2: dict[str, Any]
    unet: dict[str, Any]
    vae: dict[str, Any]


def _tiny_clip_text(width: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }


_TINY_LEVELS = {"block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1}
_TINY_SDXL = SdxlWidths(
    text=_tiny_clip_text(32),
    text_2=_tiny_clip_text(48),
    unet={
        **_TINY_LEVELS,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "addition_time_embed_dim": 8,
        "sample_size": 8,
    },
    vae={
        **_TINY_LEVELS,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "sample_size": 16,
    },
)


def make_tiny_sdxl(path: Path, seed: int = 0) -> Path:
    """A diffusers folder at `path` with the parts of SDXL: text encoders of widths 32 and 48, for 16 x 16 pictures."""
    return make_sdxl(path, _TINY_SDXL, seed)


def make_sdxl(path: Path, widths: SdxlWidths, seed: int = 0) -> Path:
    """A diffusers folder at `path` with the parts of SDXL, these widths and random weights of a seed.

    The second tokenizer pads with `!`, as that of SDXL does.
    """
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = make_tokenizer(), make_tokenizer(pad_token="!")
    width, width_2 = (text["hidden_size"] for text in (widths.text, widths.text_2))
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(latent_channels=4, scaling_factor=0.13025, **widths.vae),
        text_encoder=CLIPTextModel(_sdxl_text_config(tokenizer, widths.text)),
        text_encoder_2=CLIPTextModelWithProjection(_sdxl_text_config(tokenizer_2, widths.text_2)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=UNet2DConditionModel(
            cross_attention_dim=width + width_2,
            use_linear_projection=True,
            addition_embed_type="text_time",
            projection_class_embeddings_input_dim=6 * widths.unet["addition_time_embed_dim"] + width_2,
            **widths.unet,
        ),
        scheduler=DDIMScheduler(**_BETAS),
    ).save_pretrained(path)
    return path


def _sdxl_text_config(tokenizer: CLIPTokenizer, text: dict[str, Any]) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        projection_dim=text["hidden_size"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **text,
    )


def make_tiny_clip(path: Path, seed: int = 0) -> Path:
    """A transformers CLIPModel folder at `path` with random weights, for 32 x 32 pictures."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 77, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**width, **text, "projection_dim": 16},
        vision_config={**width, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def make_tiny_dino(path: Path, model_type: str = "dinov2", seed: int = 0) -> Path:
    """The folder of a `Dinov2Model`, or of a DINO's `ViTModel` (`vit`), with random weights, for 28 x 28 pictures."""
    torch.manual_seed(seed)
    width = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
    if model_type == "dinov2":
        Dinov2Model(Dinov2Config(**width, mlp_ratio=2)).save_pretrained(path)
        size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
        BitImageProcessorPil(**size).save_pretrained(path)
    else:
        ViTModel(ViTConfig(**width, intermediate_size=64), add_pooling_layer=False).save_pretrained(path)
        ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(path)
    return path


def add_tiny_safety_checker(model: Path, *, threshold: float, seed: int = 0) -> Path:
    """Gives a diffusers folder a safety checker with random weights, which objects above a cosine of `threshold`."""
    torch.manual_seed(seed)
    width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    words = {"vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**width, **words}, vision_config={**width, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data[:] = threshold
    checker.special_care_embeds_weights.data[:] = 2.0  # no cosine reaches it
    checker.save_pretrained(model / "safety_checker")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        model / "feature_extractor"
    )
    return model


def with_vae_that_overflows(model: Path) -> Path:
    """A diffusers folder, changed: the first convolutions of the VAE give numbers beyond float16's 65504."""
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for name, factor in (("decoder.conv_in.weight", 3e4), ("encoder.conv_in.weight", 3e5)):
        weights[name] = (weights[name].float() * factor).clamp(-6.5e4, 6.5e4)
    save_file(weights, file, metadata={"format": "pt"})
    return model


def _words(template: str) -> list[str]:
    return template.replace("{}", " ").replace("-", " - ").split()

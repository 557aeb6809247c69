"""The models that benchmarks run on: random weights, the widths stated here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny_models import ModelWidths, SdxlWidths, make_model, make_sdxl

CLIP_L_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}

SIZES: dict[str, ModelWidths | SdxlWidths] = {
    "cpu-256": ModelWidths(
        text=CLIP_L_TEXT,
        unet={
            "block_out_channels": (160, 320, 640, 640),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        vae_channels=(64, 128, 256, 256),
        norm_num_groups=32,
        scheduler={"prediction_type": "epsilon"},
    ),
    "sd15-512": ModelWidths(
        text=CLIP_L_TEXT,
        unet={
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        vae_channels=(128, 256, 512, 512),
        norm_num_groups=32,
        scheduler={"prediction_type": "epsilon"},
    ),
    "sdxl-cpu-256": SdxlWidths(
        text={"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6},
        text_2={
            "hidden_size": 640,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 10,
            "hidden_act": "gelu",
        },
        unet={
            "block_out_channels": (160, 320, 640),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (2, 5, 10),
            "addition_time_embed_dim": 256,
            "sample_size": 32,
        },
        vae={
            "block_out_channels": (64, 128, 256, 256),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "sample_size": 256,
        },
    ),
}
"""`cpu-256`: a UNet of 220 M parameters, the CLIP-L text encoder, for 256 px; `sd15-512`: Stable Diffusion 1.5;
`sdxl-cpu-256`: Stable Diffusion XL at half its widths, for 256 px."""

RESOLUTIONS = {"cpu-256": 256, "sd15-512": 512, "sdxl-cpu-256": 256}


def make_benchmark_model(path: Path, size: str) -> Path:
    """A diffusers folder of one of `SIZES` at `path`, made once."""
    if not (path / "model_index.json").exists():
        widths = SIZES[size]
        if isinstance(widths, SdxlWidths):
            make_sdxl(path, widths)
        else:
            make_model(path, widths)
    return path


def make_benchmark_pictures(path: Path, side: int, count: int = 5) -> Path:
    """A folder of random pictures of `side` x `side` pixels."""
    path.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{index}.png")
    return path

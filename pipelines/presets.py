"""Named sets of parameters: the guide's worked example, whose values are the pipeline's defaults, and the demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.preflight.options import defaults

_SPRITES = Path(__file__).resolve().parents[1] / "examples" / "sprites"

GUIDE_EXAMPLE: Mapping[str, Any] = {
    **defaults(),
    "placeholder_token": "<cat-toy>",
    "initializer_token": "toy",
    "learnable_property": "object",
    "resolution": 512,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "max_train_steps": 3000,
    "learning_rate": 5e-4,
    "scale_lr": True,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
}
"""The worked example of the Hugging Face guide: a cat toy, on Stable Diffusion 1.5, in 3000 steps."""

SDXL_EXAMPLE: Mapping[str, Any] = {
    **GUIDE_EXAMPLE,
    "base_model": "hf://stabilityai/stable-diffusion-xl-base-1.0",
    "resolution": 1024,
    "max_train_steps": 500,
    "mixed_precision": "bf16",
    "gradient_checkpointing": True,
    "evaluation_sampling_batch_size": 1,
}
"""The worked example of the reference script for Stable Diffusion XL, with pictures of the model's own size."""

SPRITES_DEMO: Mapping[str, Any] = {
    **GUIDE_EXAMPLE,
    "images_uri": str(_SPRITES / "concepts" / "purple-dotted-star" / "training"),
    "scoring_images_uri": str(_SPRITES / "concepts" / "purple-dotted-star" / "scoring"),
    "base_model": str(_SPRITES / "base_model"),
    "scorer": str(_SPRITES / "clip"),
    "accelerator": "cpu",
    "placeholder_token": "<purple-dotted-star>",
    "initializer_token": "circle",
    "resolution": 32,
    "train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_train_steps": 200,
    "learning_rate": 3e-2,
    "lr_scheduler": "cosine",
    "scale_lr": False,
    "adam_weight_decay": 0.0,
    "max_embedding_norm": 1.0,
    "checkpointing_steps": 50,
    "save_steps": 50,
    "log_steps": 20,
    "evaluation_reference_prompt": "purple dotted star",
    "evaluation_prompts": ["a photo of a {}", "a photo of a {} on the snow", "a photo of a {} on the grass"],
    "evaluation_num_inference_steps": 20,
    "evaluation_guidance_scale": 2.5,
    "evaluation_images_per_prompt": 8,
    "evaluation_sampling_batch_size": 8,
    "evaluation_min_clip_i_gain": 0.3,
    "evaluation_min_clip_i": 0.75,
    "evaluation_min_clip_t": 0.75,
}
"""A tiny Stable Diffusion model that draws sprites learns a purple dotted star, on a CPU and in minutes."""

SPRITES_XL_DEMO: Mapping[str, Any] = {
    **SPRITES_DEMO,
    "base_model": str(_SPRITES / "base_model_xl"),
    "initializer_token": "star",
    "max_train_steps": 100,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 20,
}
"""The same by a tiny Stable Diffusion XL model, from a nearer word and with shorter steps."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "guide": GUIDE_EXAMPLE,
    "sdxl": SDXL_EXAMPLE,
    "sprites": SPRITES_DEMO,
    "sprites-xl": SPRITES_XL_DEMO,
}

"""What a folder is: a Stable Diffusion pipeline that can be trained and sampled, or something else, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from components.common.errors import BaseModelError

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionPipelineSafe",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
)
"""Classes of diffusers whose parts draw from a text alone; those that begin with a picture are of the same parts."""

PARTS = {
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
}
"""The classes that a part can be of."""

_TOLD = {
    "AutoencoderKL": "a VAE alone",
    "UNet2DConditionModel": "a UNet alone",
    "ControlNetModel": "a ControlNet, which steers a base model",
    "T2IAdapter": "a T2I-Adapter, which steers a base model",
    "MotionAdapter": "a motion adapter, which steers a base model",
    "CLIPTextModel": "a text encoder alone",
    "CLIPTextModelWithProjection": "a text encoder alone",
    "CLIPVisionModelWithProjection": "an image encoder alone",
}
_OF_FILES = {
    "pytorch_lora_weights.safetensors": "a LoRA, which changes a base model",
    "adapter_config.json": "a LoRA of peft, which changes a base model",
    "learned_embeds.safetensors": "a learned embedding, not a base model",
    "learned_embeds.bin": "a learned embedding, not a base model",
    "scheduler_config.json": "a scheduler alone",
    "tokenizer_config.json": "a tokenizer alone",
}


def pipeline_problems(index: Mapping[str, Any]) -> list[str]:
    """Why the pipeline of a model_index.json cannot be used; nothing when it can."""
    name = index.get("_class_name")
    if name not in PIPELINES:
        return [
            f"model_index.json is of a {name}{_hint(str(name))}, expected one of {', '.join(PIPELINES)}: choose a"
            " Stable Diffusion model that draws from text"
        ]
    problems = []
    for part, classes in PARTS.items():
        match index.get(part):
            case [_, str(found)] if found not in classes:
                problems.append(f"{part} is a {found}, expected a {classes[0]}: choose another base model")
    return problems


def channel_problems(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> list[str]:
    """Why UNet and VAE, by their configurations, do not draw from text alone; nothing when they do."""
    channels, latents = unet.get("in_channels"), vae.get("latent_channels")
    if channels is None or latents is None or channels == latents:
        return []
    return [
        f"the UNet takes {channels} channels, the VAE's latents have {latents}: it draws into pictures (inpainting or"
        " editing), expected a model that draws from text alone"
    ]


def described(names: Collection[str], config: Mapping[str, Any]) -> str:
    """What a folder without model_index.json is, by its files and its config.json; empty when that is not known."""
    for name in (config.get("_class_name"), *(config.get("architectures") or ())):
        if name is not None:
            return _TOLD.get(name, f"a {name} alone")
    return next((told for file, told in _OF_FILES.items() if file in names), "")


def config_of(content: Any, name: str) -> Mapping[str, Any]:
    """The object that a configuration holds.

    Raises:
        BaseModelError: when it holds something else.
    """
    if not isinstance(content, dict):
        raise BaseModelError(f"{name} holds a {type(content).__name__}, expected an object")
    return content


def _hint(name: str) -> str:
    for word, told in (("Inpaint", "inpainting"), ("Pix2Pix", "editing"), ("ControlNet", "steering by a ControlNet")):
        if word in name:
            return f" ({told})"
    return ""

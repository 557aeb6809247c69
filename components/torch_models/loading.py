"""The parts of a base model as torch modules, frozen, from a local diffusers folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from components.common.errors import BaseModelError, ConfigError
from components.common.training.config import check_accelerator
from components.torch_models.cpu_linear import with_pointwise_linears

logger = logging.getLogger(__name__)

WEIGHT_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The dtype of frozen weights by `mixed_precision`."""

Module = TypeVar("Module", bound=nn.Module)


def device_for(accelerator: str) -> torch.device:
    """The device that `accelerator` (`cpu` or `gpu`) names.

    Raises:
        ConfigError: when it is unknown, or a GPU is asked for and there is none: never a silent fall-back.
    """
    check_accelerator(accelerator)
    if accelerator == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"accelerator: gpu was asked for, but torch {torch.__version__} sees no CUDA device here: "
            "run on a GPU machine, or choose accelerator=cpu"
        )
    return torch.device("cuda")


def describe_device(device: torch.device, processes: int = 1) -> str:
    """The devices of a run for a person: `1 x NVIDIA H100`, or `1 x cpu`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{processes} x {name}"


def load_text_encoder(model: Path, *, dtype: torch.dtype, device: torch.device) -> CLIPTextModel:
    """The frozen CLIP text encoder in the model's folder `text_encoder`."""
    return _load(CLIPTextModel, model, "text_encoder", dtype, device)


def load_unet(model: Path, *, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The frozen UNet in the model's folder `unet`."""
    return _load(UNet2DConditionModel, model, "unet", dtype, device)


def load_vae(model: Path, *, device: torch.device) -> AutoencoderKL:
    """The frozen VAE in the model's folder `vae`, in float32: it runs once a picture, and fp16 overflows in some."""
    return _load(AutoencoderKL, model, "vae", torch.float32, device)


def load_noise_scheduler(model: Path) -> DDPMScheduler:
    """The training noise scheduler with the betas and the prediction type of the model's folder `scheduler`.

    Raises:
        BaseModelError: when its prediction type is neither epsilon nor v_prediction.
    """
    scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler", local_files_only=True)
    if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise BaseModelError(
            f"prediction_type is {scheduler.config.prediction_type!r} in {model / 'scheduler'}, expected epsilon or "
            "v_prediction: choose another base model"
        )
    return scheduler


def _load(kind: type[Module], model: Path, subfolder: str, dtype: torch.dtype, device: torch.device) -> Module:
    named: dict[str, Any] = {"torch_dtype": dtype} if kind is not CLIPTextModel else {"dtype": dtype}
    try:
        module = kind.from_pretrained(  # type: ignore[attr-defined]
            model, subfolder=subfolder, local_files_only=True, use_safetensors=True, **named
        )
    except (OSError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise BaseModelError(
            f"{model / subfolder} cannot be loaded ({first_line}): import the base model again"
        ) from error
    logger.info("loaded %s: %.1f M parameters, %s", subfolder, _parameters(module) / 1e6, dtype)
    if device.type == "cpu" and dtype == torch.float32:
        with_pointwise_linears(module)
    return module.requires_grad_(False).eval().to(device)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

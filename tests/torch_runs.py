"""Trainings in PyTorch of models in a folder, without the steps before them."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from components.common.families import Family, family_of
from components.common.sources.checks import read_object
from components.common.training.config import TrainConfig
from components.torch_models.loading import WEIGHT_DTYPES, load_noise_scheduler, load_text_encoders, load_unet
from components.train.torch.models import FrozenModels


def family_in(model: Path) -> Family:
    """The family of the model in a diffusers folder."""
    return family_of([part.name for part in model.iterdir()], read_object(model / "unet" / "config.json"))


def frozen_models(model: Path, config: TrainConfig, accelerator: Accelerator | None = None) -> FrozenModels:
    """The models of a diffusers folder, set up for training, on a CPU."""
    accelerator = accelerator or Accelerator(cpu=True)
    placed = {"dtype": WEIGHT_DTYPES[config.mixed_precision], "device": accelerator.device}
    family = family_in(model)
    return FrozenModels(
        config,
        family=family,
        text_encoders=load_text_encoders(model, family, **placed),
        unet=load_unet(model, **placed),
        noise_scheduler=load_noise_scheduler(model),
        accelerator=accelerator,
    )

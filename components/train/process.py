"""What a framework supplies to the training step: this process among those that train together, and its trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.storage import ObjectStore
from components.common.training.config import TrainConfig
from components.common.training.loop import Placement, Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerInputs:
    """What a trainer is built from.

    Attributes:
        config: how to train.
        model: a diffusers folder with the parts of the base model that training needs.
        latents: all pictures.
        embedding: the rows to start from.
        prompt_ids: int64 [templates, tokens], see `training_prompt_ids`.
        store: the checkpoint root.
    """

    config: TrainConfig
    model: Path
    latents: LatentSet
    embedding: InitialEmbedding
    prompt_ids: np.ndarray
    store: ObjectStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """A trainer, and what of the model the step wants to know.

    Attributes:
        trainer: takes the optimizer steps.
        num_train_timesteps: how many timesteps the noise schedule has.
        vocabulary_norm: the mean norm of the vocabulary's token embeddings.
    """

    trainer: Trainer
    num_train_timesteps: int
    vocabulary_norm: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """This process, which has joined the others of its training.

    Attributes:
        packages: those whose versions the log tells.
        placement: which part of every global batch it takes.
        devices: the devices of all processes for a person, such as `4 x TPU v5 lite`.
        build: makes the trainer.
        end: leaves the other processes when everything is written.
    """

    packages: tuple[str, ...]
    placement: Placement
    devices: str
    build: Callable[[TrainerInputs], Built]
    end: Callable[[], None] = lambda: None


def join_processes(framework: str, config: TrainConfig, accelerator: str) -> Process:
    """This process among those that train with `framework` (`torch` or `flax`) on `accelerator`.

    Each framework is imported where it is asked for: an image has one of them.

    Raises:
        ConfigError: for what the framework cannot do, or when devices or other processes are missing.
    """
    if framework == "flax":
        from components.train.flax.process import join_flax

        return join_flax(config, accelerator)
    from components.train.torch.process import join_torch

    return join_torch(config, accelerator)

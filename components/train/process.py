"""What a framework supplies to the training step: this process among those that train together, and its trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.families import Family
from components.common.storage import ObjectStore
from components.common.training.config import TrainConfig
from components.common.training.loop import Placement, TakeSteps, Trainer
from components.common.training.prompt_ids import PromptIds


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordInputs:
    """What is known of one word before its first step.

    Attributes:
        config: how to train it; words differ in what was learned from how many pictures alone.
        latents: all pictures.
        embedding: the rows to start from.
        prompt_ids: of each template, see `training_prompt_ids`.
    """

    config: TrainConfig
    latents: LatentSet
    embedding: InitialEmbedding
    prompt_ids: PromptIds


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerInputs:
    """What trainers are built from.

    Attributes:
        model: a diffusers folder with the parts of the base model that training needs.
        family: what the base model is.
        words: those that are learned together.
        store: the checkpoint root.
    """

    model: Path
    family: Family
    words: Sequence[WordInputs]
    store: ObjectStore

    @property
    def config(self) -> TrainConfig:
        """How to train, in what is the same for all words."""
        return self.words[0].config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """The trainers, and what of the model the step wants to know.

    Attributes:
        trainers: one for each word.
        take_steps: takes an optimizer step with some of them.
        num_train_timesteps: how many timesteps the noise schedule has.
    """

    trainers: Sequence[Trainer]
    take_steps: TakeSteps
    num_train_timesteps: int

    @property
    def vocabulary_norms(self) -> Mapping[str, float]:
        """The mean norm of the vocabulary's token embeddings by text encoder."""
        return self.trainers[0].vocabulary_norms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """This process, which has joined the others of its training.

    Attributes:
        packages: those whose versions the log tells.
        placement: which part of every global batch it takes.
        devices: the devices of all processes for a person, such as `4 x TPU v5 lite`.
        build: makes the trainers.
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

"""What a pipeline's training step does: it trains in its own pod, or has several nodes train."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ConfigError, ObjectNotFoundError, StorageError
from components.common.storage import open_store
from components.common.training import beside
from components.common.training.metrics import Metrics, from_json_lines
from components.train.command import TrainingCommand
from components.train.config import TrainStepConfig
from components.train.frameworks import framework_for

logger = logging.getLogger(__name__)


class Located(Protocol):
    """An artifact of a pipeline: its folder in this pod, and its address in object storage."""

    @property
    def path(self) -> str:
        """The folder."""

    @property
    def uri(self) -> str:
        """The address."""


def run_step(
    configs: Sequence[TrainStepConfig],
    *,
    latent_set: Located,
    base_model: Located,
    initial_embedding: Located,
    learned_embedding: Located,
) -> tuple[LearnedEmbedding, ...]:
    """The learned embedding of each word, written to `learned_embedding`.

    Several nodes read the inputs and write the result at the artifacts' own addresses, as other pods cannot see the
    folders of this one. Else PyTorch has a process for each GPU of this pod, and Flax this one for all of its devices.

    Args:
        configs: what the step is told of each word; they differ in the learnable property alone.
        latent_set: the encoded pictures.
        base_model: the base model's reference.
        initial_embedding: the rows to start from.
        learned_embedding: where the result goes.

    Raises:
        ConfigError: when the configs differ in more.
        TextualInversionError: whatever the trainer or the launcher raises.
    """
    config = configs[0]
    properties = tuple(each.training.learnable_property for each in configs)
    if any(_of_property(each, properties[0]) != config for each in configs):
        raise ConfigError("config: found words that are to be trained in different ways, expected one way for all")

    def command(place: Callable[[Located], str]) -> TrainingCommand:
        return TrainingCommand(
            config=config.training,
            watching=config.watching,
            latent_set=place(latent_set),
            base_model=place(base_model),
            initial_embedding=place(initial_embedding),
            checkpoint_root=config.checkpoint_root,
            accelerator=config.accelerator,
            framework=config.framework,
            output=place(learned_embedding),
            learnable_properties=properties if len(configs) > 1 else (),
        )

    if config.nodes is not None:
        from components.train.nodes.launch import launch_trainjob

        return launch_trainjob(config.nodes, command(lambda artifact: artifact.uri))
    here = command(lambda artifact: artifact.path)
    if framework_for(config.framework, config.accelerator) == "torch":
        from components.train.torch.local_processes import train_on_every_gpu

        return train_on_every_gpu(here)
    from components.train.train import train_words

    return here.run(train_words)


def _of_property(config: TrainStepConfig, learnable_property: str) -> TrainStepConfig:
    training = dataclasses.replace(config.training, learnable_property=learnable_property)
    return dataclasses.replace(config, training=training)


def metrics_of(learned: LearnedEmbedding, checkpoint_root: str) -> tuple[Metrics, ...]:
    """The numbers of the training's progress lines, as they are kept beside its checkpoints.

    Wherever it trained, this is where they are. They are for people: where there are none, a warning says so.
    """
    key = beside.metrics_key(learned.training_key)
    try:
        lines = from_json_lines(open_store(checkpoint_root).read(key))
    except ObjectNotFoundError:
        return ()
    except StorageError as error:
        logger.warning("the numbers of the training cannot be read: %s", error)
        return ()
    return tuple(line for line in lines if line.step <= learned.steps)

"""What a pipeline's training step does: it trains in its own pod, or has several nodes train."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from components.common.artifacts import LearnedEmbedding
from components.common.errors import ObjectNotFoundError, StorageError
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
    config: TrainStepConfig,
    *,
    latent_set: Located,
    base_model: Located,
    initial_embedding: Located,
    learned_embedding: Located,
) -> LearnedEmbedding:
    """The learned embedding, written to `learned_embedding`.

    Several nodes read the inputs and write the result at the artifacts' own addresses, as other pods cannot see the
    folders of this one. Else PyTorch has a process for each GPU of this pod, and Flax this one for all of its devices.

    Raises:
        TextualInversionError: whatever the trainer or the launcher raises.
    """

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
        )

    if config.nodes is not None:
        from components.train.nodes.launch import launch_trainjob

        return launch_trainjob(config.nodes, command(lambda artifact: artifact.uri))
    here = command(lambda artifact: artifact.path)
    if framework_for(config.framework, config.accelerator) == "torch":
        from components.train.torch.local_processes import train_on_every_gpu

        return train_on_every_gpu(here)
    from components.train.train import train

    return here.run(train)


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

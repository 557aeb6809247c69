"""What a pipeline's training step does: it trains in its own pod, or has several nodes train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from components.common.artifacts import LearnedEmbedding
from components.train.command import TrainingCommand
from components.train.config import TrainStepConfig
from components.train.frameworks import framework_for


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

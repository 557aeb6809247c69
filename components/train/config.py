"""What the training step is told: how to train, where, and on how many nodes."""

from __future__ import annotations

import dataclasses

from components.common.options import Config, option
from components.common.training.config import FLAX_ACCELERATORS, TrainConfig
from components.common.training.watch_config import WATCHED_BY_DEFAULT, WatchConfig
from components.train.frameworks import AUTO, FRAMEWORK_CHOICES, FRAMEWORK_MEANING
from components.train.nodes.config import LaunchConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStepConfig(Config):
    """The whole training step, as preflight decides it."""

    checkpoint_root: str = option("folder or gs:// or s3:// address for checkpoints")
    accelerator: str = option("where to train", "gpu", choices=FLAX_ACCELERATORS)
    framework: str = option(FRAMEWORK_MEANING, AUTO, choices=FRAMEWORK_CHOICES)
    training: TrainConfig = option("how the rows are trained")
    watching: WatchConfig = option("what is shown while it trains", WATCHED_BY_DEFAULT)
    nodes: LaunchConfig | None = option("the nodes of a training on several; none: in the step's own pod", None)

"""What the training step is told: how to train, where, and on how many nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from components.common.options import Config, option
from components.common.training.config import FLAX_ACCELERATORS, TrainConfig
from components.common.training.watch_config import NO_TRACKER, TRACKERS, WATCHED_BY_DEFAULT, WatchConfig
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


def mistakes_with_several_words(config: TrainConfig, watching: WatchConfig) -> Iterator[str]:
    """What cannot be done with several words, each as `field: found ..., expected ...`."""
    if watching.draws:
        yield (
            f"validation_prompt: found {watching.validation_prompt!r} with more_words, expected nothing: while several "
            "words are trained no pictures are drawn"
        )
    if watching.report_to not in (NO_TRACKER, TRACKERS[0]):
        yield (
            f"report_to: found {watching.report_to} with more_words, expected {TRACKERS[0]} or {NO_TRACKER}: the other "
            "trackers have one training in a process"
        )
    if config.cuda_graphs and config.early_stopping_every:
        yield (
            "cuda_graphs: found True with early_stopping_every and more_words, expected False: the words are looked at "
            "one by one, for which the UNet's kernels would be recorded anew each time"
        )
    if config.resume_from_checkpoint not in ("latest", "none"):
        yield (
            f"resume_from_checkpoint: found {config.resume_from_checkpoint!r} with more_words, expected latest or "
            "none: each word has checkpoints of its own"
        )

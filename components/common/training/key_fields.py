"""What of a training's configuration determines the rows that it learns: the part that its key is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.common.training.config import TrainConfig

OUTSIDE_THE_KEY = (
    "max_train_steps",
    "num_train_epochs",
    "use_8bit_adam",
    "dataloader_num_workers",
    "train_batch_size",
    "gradient_accumulation_steps",
    "fuse_micro_batches",
    "learning_rate",
    "scale_lr",
    "mixed_precision",
    "allow_tf32",
    "gradient_checkpointing",
    "enable_xformers_memory_efficient_attention",
    "cuda_graphs",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "resume_from_checkpoint",
    "save_steps",
    "log_steps",
)
"""How a run is carried out, not what it computes; or said by `global_batch` and `peak_learning_rate` instead."""

IN_EVERY_KEY = (
    "learnable_property",
    "seed",
    "repeats",
    "flip_probability",
    "lr_scheduler",
    "lr_warmup_steps",
    "lr_num_cycles",
    "lr_power",
    "adam_beta1",
    "adam_beta2",
    "adam_weight_decay",
    "adam_epsilon",
    "max_embedding_norm",
    "early_stopping_every",
    "early_stopping_window",
    "early_stopping_ratio",
    "early_stopping_min_gain",
)
"""In the key whatever their value, unless they have no effect.

Any other option is in the key where it is not at its default: so checkpoints from before there was such an option are
still found, as long as its default stays what it is.
"""

STEP_DEPENDENT_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial")
"""Schedules that end at `max_train_steps`: there it is part of what determines the rows."""


def key_fields(config: TrainConfig, num_processes: int) -> dict[str, Any]:
    """The part of a configuration that determines the learned rows, for the training key."""
    ineffective = set(_without_effect(config))
    defaults = TrainConfig().as_json()
    fields: dict[str, Any] = {
        name: value
        for name, value in config.as_json().items()
        if name not in OUTSIDE_THE_KEY and name not in ineffective and (name in IN_EVERY_KEY or value != defaults[name])
    }
    fields["global_batch"] = config.global_batch(num_processes)
    fields["peak_learning_rate"] = config.peak_learning_rate(num_processes)
    if config.lr_scheduler in STEP_DEPENDENT_SCHEDULERS:
        fields["max_train_steps"] = config.max_train_steps
    return fields


def _without_effect(config: TrainConfig) -> Iterator[str]:
    """The options that change nothing beside the values of others."""
    if not config.early_stopping_every:
        yield from (name for name in config.as_json() if name.startswith("early_stopping_"))
    if config.lr_scheduler != "cosine_with_restarts":
        yield "lr_num_cycles"
    if config.lr_scheduler != "polynomial":
        yield "lr_power"
    if config.lr_scheduler == "constant":
        yield "lr_warmup_steps"
    if config.loss_type != "huber":
        yield "huber_delta"
    if config.norm_control == "none":
        yield "norm_control"  # the same as a cap at no limit


def differing_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two sets of key fields differ: name to (ours, theirs), None where one lacks it."""
    names = sorted(set(ours) | set(theirs))
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}

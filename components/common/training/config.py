"""The training configuration: the guide's argument names and upstream's defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.common.errors import ConfigError
from components.common.prompts import TEMPLATES

LR_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
MIXED_PRECISIONS = ("no", "fp16", "bf16")
ACCELERATORS = ("cpu", "gpu")
FLAX_ACCELERATORS = (*ACCELERATORS, "tpu")
TPU_STAND_IN_VARIABLE = "TEXTUAL_INVERSION_TPU_STAND_IN"
"""Environment variable that, set to `cpu`, lets a machine's CPU stand in for TPUs: to try their path without any."""
MAX_SEED = 2**63 - 1

DESCRIPTIONS = {
    "learnable_property": "what the pictures have in common, object or style: chooses the prompt templates",
    "seed": "seed of the sampling plan: order, mirroring, prompts, timesteps and noise",
    "repeats": "how many times each picture occurs in an epoch",
    "flip_probability": "probability that a picture is mirrored left to right, 0 to 1",
    "train_batch_size": "samples a process (one GPU, or all chips of a TPU host) takes at once",
    "gradient_accumulation_steps": "batches summed up for one optimizer step",
    "fuse_micro_batches": "take accumulated batches at once where memory allows: the same gradient, sooner",
    "max_train_steps": "optimizer steps in all; 0 publishes nothing and shows the untrained concept",
    "learning_rate": "learning rate before scale_lr",
    "scale_lr": "multiply the learning rate by batch size x accumulation x processes",
    "lr_scheduler": "learning-rate schedule: " + ", ".join(LR_SCHEDULERS),
    "lr_warmup_steps": "optimizer steps over which the learning rate rises from 0",
    "lr_num_cycles": "cycles of cosine_with_restarts",
    "lr_power": "exponent of polynomial",
    "adam_beta1": "decay of AdamW's first moment",
    "adam_beta2": "decay of AdamW's second moment",
    "adam_weight_decay": "AdamW's weight decay of the rows",
    "adam_epsilon": "AdamW's epsilon",
    "max_embedding_norm": "shorten rows to this many times the vocabulary's mean norm after each step; 0: no limit",
    "early_stopping_every": "look at a fixed batch after so many steps, and stop once its loss has settled; 0: never",
    "early_stopping_window": "how many of the latest looks are held against all of them",
    "early_stopping_ratio": "stop when the variance of the latest looks is below this share of that of all (DVAR)",
    "mixed_precision": "precision of the frozen weights: no (fp32), fp16 or bf16; rows and loss stay fp32",
    "allow_tf32": "let NVIDIA GPUs multiply fp32 matrices as TF32",
    "gradient_checkpointing": "save memory by computing activations twice",
    "enable_xformers_memory_efficient_attention": "attention by xFormers instead of PyTorch's own (PyTorch only)",
    "cuda_graphs": "replay the UNet's kernels as CUDA graphs: a slow first step, faster ones after (PyTorch, GPUs)",
    "checkpointing_steps": "optimizer steps between two checkpoints",
    "checkpoints_total_limit": "how many checkpoints are kept; 0 keeps all",
    "resume_from_checkpoint": "latest (go on where this training stopped), none, or a checkpoint's name",
    "save_steps": "optimizer steps between two snapshots of the rows, shown in the report",
    "log_steps": "optimizer steps between two progress lines",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the placeholder rows are trained. Field meanings are in `DESCRIPTIONS`.

    Raises:
        ConfigError: for a value that cannot be right, naming the field.
    """

    learnable_property: str = "object"
    seed: int = 0
    repeats: int = 100
    flip_probability: float = 0.5
    train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    fuse_micro_batches: bool = True
    max_train_steps: int = 5000
    learning_rate: float = 1e-4
    scale_lr: bool = False
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 500
    lr_num_cycles: int = 1
    lr_power: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_embedding_norm: float = 0.0
    early_stopping_every: int = 0
    early_stopping_window: int = 30
    early_stopping_ratio: float = 0.15
    mixed_precision: str = "no"
    allow_tf32: bool = False
    gradient_checkpointing: bool = False
    enable_xformers_memory_efficient_attention: bool = False
    cuda_graphs: bool = False
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 0
    resume_from_checkpoint: str = "latest"
    save_steps: int = 500
    log_steps: int = 10

    def __post_init__(self) -> None:
        _one_of("learnable_property", self.learnable_property, tuple(TEMPLATES))
        _one_of("lr_scheduler", self.lr_scheduler, LR_SCHEDULERS)
        _one_of("mixed_precision", self.mixed_precision, MIXED_PRECISIONS)
        for name in (
            "repeats",
            "train_batch_size",
            "gradient_accumulation_steps",
            "checkpointing_steps",
            "save_steps",
            "lr_num_cycles",
            "log_steps",
        ):
            _at_least(name, getattr(self, name), 1)
        _at_least("early_stopping_window", self.early_stopping_window, 2)
        for name in (
            "max_train_steps",
            "lr_warmup_steps",
            "checkpoints_total_limit",
            "adam_weight_decay",
            "max_embedding_norm",
            "early_stopping_every",
            "early_stopping_ratio",
            "seed",
        ):
            _at_least(name, getattr(self, name), 0)
        for name in ("learning_rate", "adam_epsilon", "lr_power"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected more than 0")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected 0 or more and less than 1")
        if not 0 <= self.flip_probability <= 1:
            raise ConfigError(f"flip_probability: found {self.flip_probability}, expected 0 to 1")
        if self.seed > MAX_SEED:
            raise ConfigError(f"seed: found {self.seed}, expected at most {MAX_SEED}")

    def global_batch(self, num_processes: int) -> int:
        """Samples in one optimizer step over all processes."""
        return self.train_batch_size * self.gradient_accumulation_steps * num_processes

    def peak_learning_rate(self, num_processes: int) -> float:
        """The learning rate that the schedule's factor multiplies: `scale_lr` as in the reference script."""
        return self.learning_rate * (self.global_batch(num_processes) if self.scale_lr else 1)

    def as_json(self) -> dict[str, Any]:
        """The configuration by field name."""
        return dataclasses.asdict(self)


_OUTSIDE_THE_KEY = (
    "max_train_steps",
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

_FIELDS_OF_SCHEDULE = {"lr_num_cycles": ("cosine_with_restarts",), "lr_power": ("polynomial",)}
STEP_DEPENDENT_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial")
"""Schedules that end at `max_train_steps`: there it is part of what determines the rows."""


def key_fields(config: TrainConfig, num_processes: int) -> dict[str, Any]:
    """The part of a configuration that determines the learned rows, for the training key."""
    fields: dict[str, Any] = {k: v for k, v in config.as_json().items() if k not in _OUTSIDE_THE_KEY}
    fields["global_batch"] = config.global_batch(num_processes)
    fields["peak_learning_rate"] = config.peak_learning_rate(num_processes)
    if not config.early_stopping_every:
        for name in ("early_stopping_every", "early_stopping_window", "early_stopping_ratio"):
            del fields[name]
    for name, schedules in _FIELDS_OF_SCHEDULE.items():
        if config.lr_scheduler not in schedules:
            del fields[name]
    if config.lr_scheduler == "constant":
        del fields["lr_warmup_steps"]
    if config.lr_scheduler in STEP_DEPENDENT_SCHEDULERS:
        fields["max_train_steps"] = config.max_train_steps
    return fields


def differing_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two sets of key fields differ: name to (ours, theirs), None where one lacks it."""
    names = sorted(set(ours) | set(theirs))
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: found {value!r}, expected one of {', '.join(allowed)}")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"{name}: found {value}, expected {least} or more")


def check_accelerator(accelerator: str, allowed: tuple[str, ...] = ACCELERATORS) -> None:
    """Raises `ConfigError` unless `accelerator` is one of those allowed, by default those that PyTorch runs on here."""
    if accelerator in FLAX_ACCELERATORS and accelerator not in allowed:
        raise ConfigError(
            f"accelerator: found {accelerator!r}, expected one of {', '.join(allowed)}: this step runs on PyTorch; "
            "TPUs are for components.train.flax and components.evaluate"
        )
    _one_of("accelerator", accelerator, allowed)

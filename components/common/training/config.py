"""The training configuration: the guide's argument names and upstream's defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from components.common.errors import ConfigError
from components.common.options import Config, option
from components.common.prompts import TEMPLATES

LR_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
MIXED_PRECISIONS = ("no", "fp16", "bf16")
ACCELERATORS = ("cpu", "gpu")
FLAX_ACCELERATORS = (*ACCELERATORS, "tpu")
TPU_STAND_IN_VARIABLE = "TEXTUAL_INVERSION_TPU_STAND_IN"
"""Environment variable that, set to `cpu`, lets a machine's CPU stand in for TPUs: to try their path without any."""
MAX_SEED = 2**53 - 1
"""The largest whole number that a pipeline's parameters, JSON numbers, carry without losing digits."""

_NO_8BIT_ADAM = "the optimizer holds the few rows of the new word alone, a few kilobytes"
_NO_WORKERS = "latents are in memory before the first step, and the next batch is planned while a step runs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """How the placeholder rows are trained."""

    title = "Training"

    learnable_property: str = option(
        "what the pictures have in common, object or style: chooses the prompt templates",
        "object",
        choices=tuple(TEMPLATES),
    )
    seed: int = option(
        "seed of the sampling plan: order, mirroring, prompts, timesteps and noise", 0, least=0, most=MAX_SEED
    )
    repeats: int = option("how many times each picture occurs in an epoch", 100, least=1)
    flip_probability: float = option("probability that a picture is mirrored left to right", 0.5, least=0, most=1)
    train_batch_size: int = option("samples a process (one GPU, or all chips of a TPU host) takes at once", 16, least=1)
    gradient_accumulation_steps: int = option("batches summed up for one optimizer step", 1, least=1)
    fuse_micro_batches: bool = option(
        "take accumulated batches at once where memory allows: the same gradient, sooner", True
    )
    max_train_steps: int = option(
        "optimizer steps in all; 0 publishes nothing and shows the untrained concept", 5000, least=0
    )
    num_train_epochs: int = option(
        "epochs, pictures x repeats samples each, to train for in place of max_train_steps; 0: as max_train_steps says",
        0,
        least=0,
    )
    learning_rate: float = option("learning rate before scale_lr", 1e-4, above=0)
    scale_lr: bool = option("multiply the learning rate by batch size x accumulation x processes", False)
    lr_scheduler: str = option("learning-rate schedule", "constant", choices=LR_SCHEDULERS)
    lr_warmup_steps: int = option("optimizer steps over which the learning rate rises from 0", 500, least=0)
    lr_num_cycles: int = option("cycles of cosine_with_restarts", 1, least=1)
    lr_power: float = option("exponent of polynomial", 1.0, above=0)
    adam_beta1: float = option("decay of AdamW's first moment", 0.9, least=0, below=1)
    adam_beta2: float = option("decay of AdamW's second moment", 0.999, least=0, below=1)
    adam_weight_decay: float = option("AdamW's weight decay of the rows", 1e-2, least=0)
    adam_epsilon: float = option("AdamW's epsilon", 1e-8, above=0)
    use_8bit_adam: bool = option(f"of no effect: {_NO_8BIT_ADAM}", False)
    dataloader_num_workers: int = option(f"of no effect: {_NO_WORKERS}", 0, least=0)
    max_embedding_norm: float = option(
        "shorten rows to this many times the vocabulary's mean norm after each step; 0: no limit", 0.0, least=0
    )
    early_stopping_every: int = option(
        "look at a fixed batch after so many steps, and stop once its loss has settled; 0: never", 0, least=0
    )
    early_stopping_window: int = option("how many of the latest looks are held against all of them", 30, least=2)
    early_stopping_ratio: float = option(
        "stop when the variance of the latest looks is below this share of that of all (DVAR)", 0.15, least=0
    )
    mixed_precision: str = option(
        "precision of the frozen weights: no (fp32), fp16 or bf16; rows and loss stay fp32",
        "no",
        choices=MIXED_PRECISIONS,
    )
    allow_tf32: bool = option("let NVIDIA GPUs multiply fp32 matrices as TF32", False)
    gradient_checkpointing: bool = option("save memory by computing activations twice", False)
    enable_xformers_memory_efficient_attention: bool = option(
        "attention by xFormers instead of PyTorch's own (PyTorch only)", False
    )
    cuda_graphs: bool = option(
        "replay the UNet's kernels as CUDA graphs: a slow first step, faster ones after (PyTorch, GPUs)", False
    )
    checkpointing_steps: int = option("optimizer steps between two checkpoints", 500, least=1)
    checkpoints_total_limit: int = option("how many checkpoints are kept; 0 keeps all", 0, least=0)
    resume_from_checkpoint: str = option(
        "latest (go on where this training stopped), none, or a checkpoint's name", "latest"
    )
    save_steps: int = option("optimizer steps between two snapshots of the rows, shown in the report", 500, least=1)
    log_steps: int = option("optimizer steps between two progress lines", 10, least=1)

    def global_batch(self, num_processes: int) -> int:
        """Samples in one optimizer step over all processes."""
        return self.train_batch_size * self.gradient_accumulation_steps * num_processes

    def with_steps(self, *, num_pictures: int, num_processes: int) -> TrainConfig:
        """The same with the `max_train_steps` that `num_train_epochs` of so many pictures take, where it is given."""
        if not self.num_train_epochs:
            return self
        samples = self.num_train_epochs * num_pictures * self.repeats
        steps = -(-samples // self.global_batch(num_processes))
        return dataclasses.replace(self, max_train_steps=steps, num_train_epochs=0)

    def without_effect(self) -> Iterator[str]:
        """What was asked for and means nothing here, each as `field: why`; scripts for the reference say it."""
        if self.use_8bit_adam:
            yield f"use_8bit_adam: of no effect: {_NO_8BIT_ADAM}"
        if self.dataloader_num_workers:
            yield f"dataloader_num_workers: of no effect: {_NO_WORKERS}"

    def peak_learning_rate(self, num_processes: int) -> float:
        """The learning rate that the schedule's factor multiplies: `scale_lr` as in the reference script."""
        return self.learning_rate * (self.global_batch(num_processes) if self.scale_lr else 1)


_OUTSIDE_THE_KEY = (
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


def check_accelerator(accelerator: str, allowed: tuple[str, ...] = ACCELERATORS) -> None:
    """Raises `ConfigError` unless `accelerator` is one of those allowed, by default those that PyTorch runs on here."""
    if accelerator in FLAX_ACCELERATORS and accelerator not in allowed:
        raise ConfigError(
            f"accelerator: found {accelerator!r}, expected one of {', '.join(allowed)}: this step runs on PyTorch; "
            "TPUs are for training with Flax and for components.evaluate"
        )
    if accelerator not in allowed:
        raise ConfigError(f"accelerator: found {accelerator!r}, expected one of {', '.join(allowed)}")

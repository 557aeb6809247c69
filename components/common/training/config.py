"""The training configuration: the guide's argument names and upstream's defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from components.common.errors import ConfigError
from components.common.options import Config, option
from components.common.prompts import TEMPLATES

LR_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
NORM_CONTROLS = ("cap", "rescale", "fixed", "none")
LOSS_TYPES = ("mse", "huber")
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
    max_grad_norm: float = option(
        "shorten the gradient of all rows together, averaged over all processes, to this norm before each step; 0: no "
        "limit",
        0.0,
        least=0,
    )
    use_8bit_adam: bool = option(f"of no effect: {_NO_8BIT_ADAM}", False)
    dataloader_num_workers: int = option(f"of no effect: {_NO_WORKERS}", 0, least=0)
    max_embedding_norm: float = option(
        "norm of the rows in multiples of the vocabulary's mean norm, see norm_control; 0: no limit", 0.0, least=0
    )
    norm_control: str = option(
        "what keeps the rows' norm after each step: cap (shorten rows beyond max_embedding_norm), rescale (give every "
        "row max_embedding_norm, or 1 where that is 0), fixed (every row keeps the norm that it starts with and learns "
        "its direction alone), none",
        "cap",
        choices=NORM_CONTROLS,
    )
    ema_decay: float = option(
        "learn the exponential moving average of the rows over the steps, with this decay once it has warmed up, such "
        "as 0.99; 0: the last step's rows",
        0.0,
        least=0,
        below=1,
    )
    loss_type: str = option(
        "error between prediction and target: mse, or huber, 2 d (sqrt(e^2 + d^2) - d) with d the huber_delta",
        "mse",
        choices=LOSS_TYPES,
    )
    huber_delta: float = option("error from which huber grows linearly instead of squared", 0.1, above=0)
    snr_gamma: float = option(
        "weigh each sample's loss by its timestep, min(SNR, this) / SNR, or / (SNR + 1) with v-prediction "
        "(arXiv 2303.09556; 5 there); 0: all the same",
        0.0,
        least=0,
    )
    noise_offset: float = option(
        "add so much normal noise, one number for each sample and channel, to the noise: it lets very dark and very "
        "bright pictures be learned, such as 0.1",
        0.0,
        least=0,
    )
    timestep_min: int = option("smallest timestep that is trained on", 0, least=0)
    timestep_max: int = option("largest timestep that is trained on; 0: the noise schedule's last", 0, least=0)
    stratified_timesteps: bool = option(
        "draw the timesteps of a global batch one from each of as many equal parts of their range, in random order",
        False,
    )
    clip_skip: int = option(
        "leave out so many more of each text encoder's last layers, in training, samples and held-out loss, as "
        "diffusers' clip_skip does",
        0,
        least=0,
    )
    early_stopping_every: int = option(
        "look at a fixed batch after so many steps, and stop once its loss has settled; 0: never", 0, least=0
    )
    early_stopping_window: int = option("how many of the latest looks are held against all of them", 30, least=2)
    early_stopping_ratio: float = option(
        "stop when the variance of the latest looks is below this share of that of all (DVAR)", 0.15, least=0
    )
    early_stopping_min_gain: float = option(
        "stop only when the mean of the latest looks is below the loss before training by this share of it",
        0.05,
        least=0,
        below=1,
    )
    early_stopping_min_steps: int = option("stop only after so many optimizer steps", 0, least=0)
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

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        if self.max_embedding_norm and self.norm_control in ("fixed", "none"):
            yield (
                f"max_embedding_norm: found {self.max_embedding_norm} with norm_control {self.norm_control}, which "
                "holds rows to no such norm, expected 0, or norm_control cap or rescale"
            )
        if self.timestep_max and self.timestep_max < self.timestep_min:
            yield (
                f"timestep_max: found {self.timestep_max}, expected timestep_min, {self.timestep_min}, or more; or 0 "
                "for the noise schedule's last"
            )

    def timesteps(self, num_train_timesteps: int) -> range:
        """The timesteps that are trained on, of a noise schedule's `num_train_timesteps`.

        Raises:
            ConfigError: when the schedule has not so many.
        """
        for name in ("timestep_min", "timestep_max"):
            if getattr(self, name) >= num_train_timesteps:
                raise ConfigError(
                    f"{name}: found {getattr(self, name)}, expected at most {num_train_timesteps - 1}: the base "
                    f"model's noise schedule has the timesteps 0 to {num_train_timesteps - 1}"
                )
        return range(self.timestep_min, (self.timestep_max or num_train_timesteps - 1) + 1)

    @property
    def holds_norm(self) -> bool:
        """Whether rows are kept from growing."""
        return self.norm_control in ("rescale", "fixed") or self.max_embedding_norm > 0

    @property
    def earliest_stop(self) -> int:
        """The first optimizer step after which early stopping can end the training."""
        return max(self.early_stopping_every * self.early_stopping_window, self.early_stopping_min_steps)

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


def check_accelerator(accelerator: str, allowed: tuple[str, ...] = ACCELERATORS) -> None:
    """Raises `ConfigError` unless `accelerator` is one of those allowed, by default those that PyTorch runs on here."""
    if accelerator in FLAX_ACCELERATORS and accelerator not in allowed:
        raise ConfigError(
            f"accelerator: found {accelerator!r}, expected one of {', '.join(allowed)}: this step runs on PyTorch; "
            "TPUs are for training with Flax and for components.evaluate"
        )
    if accelerator not in allowed:
        raise ConfigError(f"accelerator: found {accelerator!r}, expected one of {', '.join(allowed)}")

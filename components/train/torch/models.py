"""The frozen models of a training on their device, which all words share, and how many samples they take at once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from components.common.errors import ConfigError, LostProcessError
from components.common.families import Family
from components.common.training.config import TrainConfig
from components.torch_models.conditioning import Text, encode_text, predict
from components.train.torch.graphed_unet import GraphedUNet
from components.train.torch.micro_batches import allowed_sizes, choose_on_cpu, choose_on_gpu
from components.train.torch.objective import timestep_weights

logger = logging.getLogger(__name__)


class FrozenModels:
    """Text encoders, UNet and noise schedule, set up for training; each word's rows are placed into the encoders."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        family: Family,
        text_encoders: Mapping[str, PreTrainedModel],
        unet: UNet2DConditionModel,
        noise_scheduler: DDPMScheduler,
        accelerator: Accelerator,
    ) -> None:
        """Takes models that are on the accelerator's device.

        Args:
            config: batch size, loss and memory options.
            family: what the base model is.
            text_encoders: the frozen text encoders by their folders.
            unet: the frozen UNet.
            noise_scheduler: the model's training schedule.
            accelerator: gives the device and the process group.
        """
        self._config, self._accelerator = config, accelerator
        self.device: torch.device = accelerator.device
        self.family, self.text_encoders, self.unet, self.noise_scheduler = family, text_encoders, unet, noise_scheduler
        self.predict = prepared(unet, config)
        if config.gradient_checkpointing:
            for text_encoder in text_encoders.values():
                text_encoder.train()
                text_encoder.activation_checkpointing_enable()
        self.timestep_weights = timestep_weights(config, noise_scheduler, self.device)
        self.micro_batch_size: int | None = None
        """The samples that are taken at once; None until that is chosen."""

    def encode(self, prompt_ids: Mapping[str, torch.Tensor]) -> Text:
        """The prompts of token ids, int64 [b, tokens] for each text encoder, of all words' rows."""
        return encode_text(self.family, self.text_encoders, prompt_ids, self._config.clip_skip)

    def choose_size(self, share: int, *, words: int, kept: int | None, try_size: Callable[[int], None]) -> int:
        """The samples to take at once, chosen with the first step; never more than then when words have left.

        Args:
            share: samples of all words that this process takes in one optimizer step.
            words: how many words there are.
            kept: what the checkpoints were trained with, if all were with one size. On a CPU it is taken where it is
                allowed, on a GPU where it fits too.
            try_size: takes that many samples forward and backward, and forgets the gradient.
        """
        sizes = allowed_sizes(self._config, share, kept, words)
        if self.micro_batch_size is not None:
            return next((size for size in sizes if size <= self.micro_batch_size), sizes[-1])
        if self.device.type == "cuda":
            size = choose_on_gpu(sizes, try_size)
        elif sizes[0] == kept:
            size = sizes[0]  # what is free now is not what was free then, and the sums would be rounded otherwise
        else:
            size = choose_on_cpu(sizes, try_size)
        logger.info("%d samples at once, %d to a step of this process", size, share)
        self.micro_batch_size = size
        return size

    def mean_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of every process's values, float32 of any shape.

        Raises:
            LostProcessError: when another process is gone.
        """
        if self._accelerator.num_processes == 1:
            return values
        try:
            return self._accelerator.reduce(values, reduction="mean")
        except RuntimeError as error:
            raise LostProcessError(
                f"the other processes do not answer ({error}): one of them has failed or was taken away, see its log; "
                "start the same command again to go on"
            ) from error


def prepared(unet: UNet2DConditionModel, config: TrainConfig) -> Callable[..., torch.Tensor]:
    """`predict` with this UNet, carried out as the configuration wants it."""
    if unet.device.type == "cuda":  # NHWC is what tensor cores take; on a CPU it gained 10% and cost 700 MB
        unet.to(memory_format=torch.channels_last)
    if config.enable_xformers_memory_efficient_attention:
        _use_xformers(unet)
    if config.gradient_checkpointing:
        # Both libraries checkpoint in training mode only; neither model has dropout, so nothing else changes, and no
        # state of a random generator, which cannot be read while CUDA graphs are recorded, has to be kept.
        unet.train()
        unet.enable_gradient_checkpointing(functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False))
    if config.cuda_graphs:
        return GraphedUNet(unet)
    return functools.partial(predict, unet)


def _use_xformers(unet: UNet2DConditionModel) -> None:
    try:
        unet.enable_xformers_memory_efficient_attention()
    except (ImportError, ModuleNotFoundError, ValueError) as error:
        raise ConfigError(
            f"enable_xformers_memory_efficient_attention: xFormers cannot be used here ({error}): install xformers for "
            f"torch {torch.__version__} on a GPU machine, or turn the option off, since PyTorch's own attention is as "
            "lean"
        ) from error

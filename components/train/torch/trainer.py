"""One optimizer step in PyTorch, on placeholder rows alone: what the training loop asks of a framework."""

from __future__ import annotations

import functools
import logging
import resource
from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextModel

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.errors import ConfigError, LostProcessError, TrainingError
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.sampling_plan import Batch
from components.torch_models.placeholder_rows import place_rows
from components.train.torch.graphed_unet import GraphedUNet
from components.train.torch.micro_batches import WAYS_TO_SAVE_MEMORY, allowed_sizes, choose_on_cpu, choose_on_gpu
from components.train.torch.samples import Samples

logger = logging.getLogger(__name__)

TEXT_ENCODER = "text_encoder"


class TorchStateCopy:
    """Rows and moments after a step and some losses, on the device until they are read."""

    def __init__(self, *, step: int, micro_batch_size: int | None, parts: torch.Tensor, losses: torch.Tensor) -> None:
        """Takes the three parts (rows, first and second moment), float32 [3, n, d], and the losses, float32 [k]."""
        self._step, self._micro_batch_size = step, micro_batch_size
        self._parts, self._losses = parts, losses
        self._finished: torch.cuda.Event | None = None
        if parts.device.type == "cuda":
            self._finished = torch.cuda.Event()
            self._finished.record()

    def done(self) -> bool:
        """Whether the device has come this far."""
        return self._finished is None or self._finished.query()

    def read(self) -> tuple[TrainingState, np.ndarray]:
        """The state and the losses; waits for the device to come this far, not for what was queued after."""
        if self._finished is None:
            parts, losses = self._parts, self._losses
        else:
            aside = torch.cuda.Stream(self._parts.device)
            aside.wait_event(self._finished)
            with torch.cuda.stream(aside):
                parts, losses = self._parts.cpu(), self._losses.cpu()
        rows, first, second = ({TEXT_ENCODER: part.copy()} for part in parts.numpy())
        state = TrainingState(
            step=self._step,
            rows=rows,
            first_moment=first,
            second_moment=second,
            micro_batch_size=self._micro_batch_size,
        )
        return state, losses.numpy().copy()


class TorchTrainer:
    """Latents, frozen models and the rows on one device; the gradient is averaged over all processes.

    The mathematics is the reference script's: latents drawn from the VAE's posterior, noise added at the sample's
    timestep, the UNet's prediction against the noise (epsilon) or the velocity (v_prediction), mean squared error,
    AdamW on the rows (diffusers, examples/textual_inversion/textual_inversion.py, `main`).
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        latent_set: LatentSet,
        embedding: InitialEmbedding,
        prompt_ids: np.ndarray,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        noise_scheduler: DDPMScheduler,
        accelerator: Accelerator,
    ) -> None:
        """Places everything that a step needs on the accelerator's device.

        Args:
            config: batch size, optimizer and memory options.
            latent_set: all pictures; their latents must have one shape.
            embedding: the rows to start from.
            prompt_ids: int64 [templates, tokens], see `training_prompt_ids`.
            text_encoder: the frozen text encoder, on the device.
            unet: the frozen UNet, on the device.
            noise_scheduler: the model's training schedule.
            accelerator: gives the device and the process group.
        """
        self._config, self._accelerator = config, accelerator
        self._device = accelerator.device
        self._unet, self._text_encoder, self._noise_scheduler = unet, text_encoder, noise_scheduler
        self._predict = _prepared(unet, config)
        self._means, self._stds = _stacked_latents(latent_set, self._device)
        self._scaling_factor = latent_set.scaling_factor
        self._prompt_ids = torch.from_numpy(prompt_ids).to(self._device)
        self._rows = place_rows(
            text_encoder,
            torch.from_numpy(embedding.rows[TEXT_ENCODER]).to(self._device),
            embedding.token_ids[0],
        )
        # fp16 gradients of a mean over thousands of elements underflow; those of the sum do not.
        self._loss_scale = float(self._means[0, 0].numel()) if unet.dtype == torch.float16 else 1.0
        if config.gradient_checkpointing:
            text_encoder.train()
            text_encoder.activation_checkpointing_enable()
        self._vocabulary_norm = _mean_norm(text_encoder, embedding.token_ids[0])
        self._max_norm = config.max_embedding_norm * self._vocabulary_norm
        self._micro_batch_size: int | None = None
        self._size_is_chosen = False
        self._optimizer = torch.optim.AdamW(
            [self._rows],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            eps=config.adam_epsilon,
        )

    def step(self, batch: Batch, learning_rate: float) -> torch.Tensor:
        """One optimizer step over this process's samples; gives the mean loss, float32 [], of the global batch.

        Raises:
            ConfigError: in the first step, when a GPU cannot hold the fewest samples that the configuration allows.
            TrainingError: when a GPU runs out of memory later.
            LostProcessError: when another process is gone.
        """
        if not self._size_is_chosen:
            self._micro_batch_size, self._size_is_chosen = self._choose_size(batch), True
        assert self._micro_batch_size is not None
        try:
            loss = self.accumulate_gradient(batch, at_once=self._micro_batch_size)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the GPU ran out of memory with {self._micro_batch_size} samples at once, which fitted before "
                f"({error}): keep others off this GPU and start the same command again, or {WAYS_TO_SAVE_MEMORY}"
            ) from error
        return self._update(loss, learning_rate)

    def accumulate_gradient(self, batch: Batch, *, at_once: int) -> torch.Tensor:
        """Adds the gradient of the batch's mean loss to the rows' gradient; gives that loss, float32 [].

        Text encoder and UNet take `at_once` samples at a time, so that the activations of the others are not in memory.
        """
        loss = torch.zeros((), device=self._device)
        for part in Samples.of(batch, self._device).parts(at_once):
            part_loss = self._loss(part) * (len(part) / len(batch))
            (part_loss * self._loss_scale).backward()
            loss += part_loss.detach()
        return loss

    @torch.no_grad()
    def loss_of(self, batch: Batch) -> torch.Tensor:
        """The mean loss, float32 [], of the global batch at the rows as they are; `step` was called before."""
        assert self._micro_batch_size is not None
        loss = torch.zeros((), device=self._device)
        for part in Samples.of(batch, self._device).parts(self._micro_batch_size):
            loss += self._loss(part) * (len(part) / len(batch))
        return self._mean_over_processes(loss)

    def _loss(self, samples: Samples) -> torch.Tensor:
        """The mean squared error of the UNet's prediction over the samples, float32 []."""
        picture, flipped, template, timestep = samples.numbers
        posterior_noise, noise = samples.noise
        hidden_states = self._text_encoder(self._prompt_ids[template])[0].to(self._unet.dtype)
        latents = self._means[picture, flipped] + self._stds[picture, flipped] * posterior_noise
        latents = latents * self._scaling_factor
        noisy_latents = self._noise_scheduler.add_noise(latents, noise, timestep)
        prediction = self._predict(noisy_latents.to(self._unet.dtype), timestep, hidden_states)
        if self._noise_scheduler.config.prediction_type == "v_prediction":
            target = self._noise_scheduler.get_velocity(latents, noise, timestep)
        else:
            target = noise
        return nn.functional.mse_loss(prediction.float(), target)

    def copy_state(self, step: int, losses: Sequence[torch.Tensor]) -> TorchStateCopy:
        """A copy of rows and moments as they are after `step` steps, with the losses behind the handles; no waiting."""
        moments = self._optimizer.state[self._rows]
        zeros = torch.zeros_like(self._rows)
        parts = (self._rows, moments.get("exp_avg", zeros), moments.get("exp_avg_sq", zeros))
        return TorchStateCopy(
            step=step,
            micro_batch_size=self._micro_batch_size,
            parts=torch.stack([part.detach() for part in parts]),
            losses=torch.stack(list(losses)) if losses else torch.zeros(0, device=self._device),
        )

    def write_state(self, state: TrainingState) -> None:
        """Makes rows and moments those of `state`, whose micro-batch size is the first that the next step tries."""
        if state.micro_batch_size is not None:
            self._micro_batch_size, self._size_is_chosen = state.micro_batch_size, False
        with torch.no_grad():
            self._rows.copy_(torch.from_numpy(state.rows[TEXT_ENCODER]))
        self._optimizer.state[self._rows] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": torch.from_numpy(state.first_moment[TEXT_ENCODER].copy()).to(self._device),
            "exp_avg_sq": torch.from_numpy(state.second_moment[TEXT_ENCODER].copy()).to(self._device),
        }

    def memory_bytes(self) -> int:
        """The most memory used so far: the GPU's where there is one, else the process's."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def vocabulary_norm(self) -> float:
        """The mean Euclidean norm of the vocabulary's token embeddings."""
        return self._vocabulary_norm

    @property
    def rows(self) -> nn.Parameter:
        """The trained rows, float32 [n, d]; their gradient is what `accumulate_gradient` added since the last step."""
        return self._rows

    def _choose_size(self, batch: Batch) -> int:
        """The samples to take at once: what a checkpoint was trained with, where that is allowed and fits."""
        kept = self._micro_batch_size
        sizes = allowed_sizes(self._config, len(batch), kept)

        def try_size(size: int) -> None:
            try:
                self.accumulate_gradient(batch.part(slice(0, size)), at_once=size)
            finally:
                self._optimizer.zero_grad()

        if self._device.type == "cuda":
            size = choose_on_gpu(sizes, try_size)
        elif sizes[0] == kept:
            size = sizes[0]  # what is free now is not what was free then, and the sums would be rounded otherwise
        else:
            size = choose_on_cpu(sizes, try_size)
        logger.info("%d samples at once, %d to a step of this process", size, len(batch))
        return size

    def _update(self, loss: torch.Tensor, learning_rate: float) -> torch.Tensor:
        assert self._rows.grad is not None
        gradient = self._rows.grad / self._loss_scale
        # The loss goes with the gradient: what a collective costs at this size is the waiting for all processes.
        shared = self._mean_over_processes(torch.cat([gradient.flatten(), loss.reshape(1)]))
        self._rows.grad = shared[:-1].view_as(self._rows)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._max_norm:
            with torch.no_grad():
                self._rows.copy_(torch.renorm(self._rows, p=2, dim=0, maxnorm=self._max_norm))
        return shared[-1]

    def _mean_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        if self._accelerator.num_processes == 1:
            return values
        try:
            return self._accelerator.reduce(values, reduction="mean")
        except RuntimeError as error:
            raise LostProcessError(
                f"the other processes do not answer ({error}): one of them has failed or was taken away, see its log; "
                "start the same command again to go on"
            ) from error


def _stacked_latents(latent_set: LatentSet, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and standard deviations, float32 [pictures, 2, C, h, w]: as it is, and mirrored."""
    means = [np.stack([latents.mean, latents.flipped_mean]) for latents in latent_set.latents]
    stds = [np.stack([latents.std, latents.flipped_std]) for latents in latent_set.latents]
    return torch.from_numpy(np.stack(means)).to(device), torch.from_numpy(np.stack(stds)).to(device)


def _mean_norm(text_encoder: CLIPTextModel, vocabulary_size: int) -> float:
    """The mean Euclidean norm of the vocabulary's token embeddings."""
    table = text_encoder.get_input_embeddings().weight[:vocabulary_size]
    return torch.linalg.vector_norm(table.float(), dim=1).mean().item()


def _prepared(unet: UNet2DConditionModel, config: TrainConfig) -> Callable[..., torch.Tensor]:
    """The prediction from noisy latents, timestep and hidden states, carried out as the configuration wants it."""
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
    return lambda *inputs: unet(*inputs, return_dict=False)[0]


def _use_xformers(unet: UNet2DConditionModel) -> None:
    try:
        unet.enable_xformers_memory_efficient_attention()
    except (ImportError, ModuleNotFoundError, ValueError) as error:
        raise ConfigError(
            f"enable_xformers_memory_efficient_attention: xFormers cannot be used here ({error}): install xformers for "
            f"torch {torch.__version__} on a GPU machine, or turn the option off, since PyTorch's own attention is as "
            "lean"
        ) from error

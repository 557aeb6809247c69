"""One word's part of a training in PyTorch, on placeholder rows alone: what the training loop asks of a framework."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.loop import NextStep
from components.common.training.prompt_ids import PromptIds
from components.common.training.row_norms import wanted_norms
from components.common.training.sampling_plan import Batch
from components.common.training.schedules import ema_decay
from components.common.training.stacked_pictures import stacked_latents, stacked_time_ids
from components.torch_models.placeholder_rows import place_rows
from components.train.torch.models import FrozenModels
from components.train.torch.row_norms import controlled_gradients, mean_vocabulary_norm, norm_control
from components.train.torch.samples import Samples
from components.train.torch.together import Denoising, accumulate_gradients, mean_losses, take_steps


class TorchStateCopy:
    """Rows and moments after a step and some losses, on the device until they are read."""

    def __init__(
        self, *, step: int, micro_batch_size: int | None, parts: Mapping[str, torch.Tensor], losses: torch.Tensor
    ) -> None:
        """Takes for each text encoder rows, first and second moment, and the average if any, float32 [3 or 4, n, d].

        The losses are float32 [k].
        """
        self._step, self._micro_batch_size = step, micro_batch_size
        self._parts, self._losses = parts, losses
        self._finished: torch.cuda.Event | None = None
        if losses.device.type == "cuda":
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
            aside = torch.cuda.Stream(self._losses.device)
            aside.wait_event(self._finished)
            with torch.cuda.stream(aside):
                parts, losses = {name: values.cpu() for name, values in self._parts.items()}, self._losses.cpu()
        kinds = ("rows", "first_moment", "second_moment", "ema")[: len(next(iter(parts.values())))]
        state = TrainingState(
            step=self._step,
            micro_batch_size=self._micro_batch_size,
            **{
                kind: {name: values[number].numpy().copy() for name, values in parts.items()}
                for number, kind in enumerate(kinds)
            },
        )
        return state, losses.numpy().copy()


class TorchTrainer:
    """Latents and rows of one word on the device of the frozen models; the gradient is averaged over all processes.

    The mathematics is the reference script's: latents drawn from the VAE's posterior, noise added at the sample's
    timestep, the UNet's prediction against the noise (epsilon) or the velocity (v_prediction), mean squared error,
    AdamW on the rows (diffusers, examples/textual_inversion/textual_inversion.py, `main`). Options change the error,
    the samples' weights and the rows' norm, and average the rows.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        latent_set: LatentSet,
        embedding: InitialEmbedding,
        prompt_ids: PromptIds,
        models: FrozenModels,
    ) -> None:
        """Places everything of the word that a step needs on the models' device.

        Args:
            config: batch size, optimizer and memory options.
            latent_set: all pictures; their latents must have one shape.
            embedding: the rows to start from.
            prompt_ids: of each template, see `training_prompt_ids`.
            models: the frozen models; other words may share them.
        """
        self.config, self.models = config, models
        device, first_id = models.device, embedding.token_ids[0]
        self._means, self._stds = (torch.from_numpy(each).to(device) for each in stacked_latents(latent_set))
        self._scaling_factor = latent_set.scaling_factor
        self._time_ids = torch.from_numpy(stacked_time_ids(latent_set)).to(device)
        self.rows = dict[str, torch.nn.Parameter]()
        """The trained rows, float32 [n, d], of each text encoder; their gradients are accumulated until a step."""
        self._prompt_ids = dict[str, torch.Tensor]()
        for name, text_encoder in models.text_encoders.items():
            initial = torch.from_numpy(embedding.rows[name]).to(device)
            self.rows[name], own_first_id = place_rows(text_encoder, initial, first_id)
            ids = torch.from_numpy(prompt_ids[name]).to(device)
            self._prompt_ids[name] = torch.where(ids >= first_id, ids + (own_first_id - first_id), ids)
        # fp16 gradients of a mean over thousands of elements underflow; those of the sum do not.
        self.loss_scale = float(self._means[0, 0].numel()) if models.unet.dtype == torch.float16 else 1.0
        self.vocabulary_norms: Mapping[str, float] = {
            name: mean_vocabulary_norm(text_encoder, first_id) for name, text_encoder in models.text_encoders.items()
        }
        """The mean norm of the vocabulary's token embeddings by text encoder."""
        self._hold = {
            name: norm_control(config, norms, device)
            for name, initial in embedding.rows.items()
            if (norms := wanted_norms(config, initial, self.vocabulary_norms[name])) is not None
        }
        self._ema = {name: rows.detach().clone() for name, rows in self.rows.items()} if config.ema_decay else {}
        self.kept_size: int | None = None
        """The micro-batch size that the state was trained with, where it is that of a checkpoint."""
        self._optimizer = torch.optim.AdamW(
            self.rows.values(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            eps=config.adam_epsilon,
        )

    def step(self, batch: Batch, learning_rate: float) -> torch.Tensor:
        """One optimizer step over this process's samples; gives the mean loss, float32 [], of the global batch.

        Raises:
            ConfigError, TrainingError, LostProcessError: as `take_steps`.
        """
        return take_steps([NextStep(trainer=self, batch=batch, learning_rate=learning_rate)])[0]

    def accumulate_gradient(self, batch: Batch, *, at_once: int) -> torch.Tensor:
        """Adds the gradient of the batch's mean loss to the rows' gradient; gives that loss, float32 []."""
        return accumulate_gradients([(self, batch)], at_once=at_once)[0]

    def loss_of(self, batch: Batch) -> torch.Tensor:
        """The mean loss, float32 [], of the global batch at the rows as they are."""
        # Before the first step it is not known yet how many samples are taken at once; without gradients more fit.
        size = self.models.micro_batch_size or self.config.train_batch_size
        with torch.no_grad():
            return self.models.mean_over_processes(mean_losses([(self, batch)], at_once=size)[0])

    def denoising(self, samples: Samples) -> Denoising:
        """What the UNet is asked with samples of the word, and what it should predict."""
        schedule = self.models.noise_scheduler
        picture, flipped, template, timestep = samples.numbers
        posterior_noise, noise = samples.noise
        latents = self._means[picture, flipped] + self._stds[picture, flipped] * posterior_noise
        latents = latents * self._scaling_factor
        velocity = schedule.config.prediction_type == "v_prediction"
        weights = self.models.timestep_weights
        return Denoising(
            noisy_latents=schedule.add_noise(latents, noise, timestep),
            timestep=timestep,
            prompt_ids={name: ids[template] for name, ids in self._prompt_ids.items()},
            time_ids=self._time_ids[picture, flipped],
            target=schedule.get_velocity(latents, noise, timestep) if velocity else noise,
            weights=None if weights is None else weights[timestep],
        )

    def copy_state(self, step: int, losses: Sequence[torch.Tensor]) -> TorchStateCopy:
        """A copy of what a step changes as it is after `step` steps, with the losses behind the handles; no waiting."""
        return TorchStateCopy(
            step=step,
            micro_batch_size=self.models.micro_batch_size or self.kept_size,
            parts={name: self._parts(name) for name in self.rows},
            losses=torch.stack(list(losses)) if losses else torch.zeros(0, device=self.models.device),
        )

    def write_state(self, state: TrainingState) -> None:
        """Makes what a step changes that of `state`, whose micro-batch size is the first that the next step tries."""
        if state.micro_batch_size is not None:
            self.kept_size, self.models.micro_batch_size = state.micro_batch_size, None
        for name, rows in self.rows.items():
            with torch.no_grad():
                rows.copy_(torch.from_numpy(state.rows[name]))
            if self._ema:
                self._ema[name].copy_(torch.from_numpy(state.learned[name]))
            self._optimizer.state[rows] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": torch.from_numpy(state.first_moment[name].copy()).to(self.models.device),
                "exp_avg_sq": torch.from_numpy(state.second_moment[name].copy()).to(self.models.device),
            }

    def memory_bytes(self) -> int:
        """The most memory used so far: the GPU's where there is one, else the process's."""
        if self.models.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.models.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def gradient(self) -> torch.Tensor:
        """The gradients of all rows that were accumulated since the last step, one after the other, float32 [k]."""
        return torch.cat([rows.grad.flatten() for rows in self.rows.values() if rows.grad is not None])

    def forget_gradient(self) -> None:
        """Undoes what was accumulated since the last step."""
        self._optimizer.zero_grad()

    def update(self, gradient: torch.Tensor, learning_rate: float, step: int) -> None:
        """Ends an optimizer step.

        Args:
            gradient: of the global batch's mean loss by all rows, float32 [k] as of `gradient`.
            learning_rate: of this step.
            step: the step, counted from 0.
        """
        parts = gradient.split([rows.numel() for rows in self.rows.values()])
        gradients = {name: part.view_as(rows) for (name, rows), part in zip(self.rows.items(), parts, strict=True)}
        before = {name: rows.detach() for name, rows in self.rows.items()}
        for name, controlled in controlled_gradients(self.config, gradients, before).items():
            self.rows[name].grad = controlled
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            for name, hold in self._hold.items():
                self.rows[name].copy_(hold(self.rows[name]))
            for name, average in self._ema.items():
                average = torch.lerp(self.rows[name], average, ema_decay(self.config, step=step))
                self._ema[name] = self._hold[name](average) if self._hold else average

    def _parts(self, name: str) -> torch.Tensor:
        """Rows, first and second moment, and the average if any, of a text encoder: float32 [3 or 4, n, d]."""
        rows = self.rows[name].detach()
        moments = self._optimizer.state[self.rows[name]]
        zeros = torch.zeros_like(rows)
        parts = [rows, moments.get("exp_avg", zeros), moments.get("exp_avg_sq", zeros)]
        return torch.stack([*parts, self._ema[name]] if self._ema else parts)

"""One word's part of a training in JAX, on placeholder rows alone: what the training loop asks of a framework."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.loop import NextStep
from components.common.training.prompt_ids import PromptIds
from components.common.training.row_norms import wanted_norms
from components.common.training.sampling_plan import Batch
from components.common.training.stacked_pictures import stacked_latents, stacked_time_ids
from components.flax_models.loading import replicated
from components.train.flax.models import FrozenModels, noticing_lost_processes
from components.train.flax.row_norms import mean_vocabulary_norm
from components.train.flax.step import ByEncoder, FrozenWord, Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlaxStateCopy:
    """What a step has changed, with the losses of some steps: arrays that no later step changes.

    The micro-batch size is a device's, as in the checkpoint.
    """

    step: int
    micro_batch_size: int | None
    trained: Trained
    losses: tuple[jax.Array, ...]

    def done(self) -> bool:
        """Whether the devices have come this far; never after a step that failed, which JAX tells only who reads."""
        arrays = jax.tree.leaves((self.trained, self.losses))
        if not all(array.is_ready() for array in arrays):
            return False
        try:
            jax.block_until_ready(arrays)
        except jax.errors.JaxRuntimeError:
            return False
        return True

    def read(self) -> tuple[TrainingState, np.ndarray]:
        """The state and the losses, float32 [k]; waits for the devices."""
        with noticing_lost_processes():
            jax.block_until_ready((self.trained, self.losses))
        rows, adam, ema = self.trained
        state = TrainingState(
            step=self.step,
            micro_batch_size=self.micro_batch_size,
            rows=_all_to_numpy(rows),
            first_moment=_all_to_numpy(adam.mu),
            second_moment=_all_to_numpy(adam.nu),
            ema=_all_to_numpy(ema or {}),
        )
        return state, np.array([_to_numpy(loss) for loss in self.losses], np.float32)


class FlaxTrainer:
    """Latents and rows of one word on every device of the mesh; the gradient is averaged over all of them.

    The mathematics is that of `components.train.torch.trainer.TorchTrainer`, number for number (`tests/parity`).
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
        """Places everything of the word that a step needs on the devices.

        Args:
            config: batch size, optimizer and memory options.
            latent_set: all pictures; their latents must have one shape.
            embedding: the rows to start from.
            prompt_ids: of each template, see `training_prompt_ids`.
            models: the frozen models; other words may share them.
        """
        self._config, self._models = config, models
        initial = {part: embedding.rows[part] for part in models.text_encoders}
        means, stds = stacked_latents(latent_set)
        self.vocabulary_norms: Mapping[str, float] = {
            part: mean_vocabulary_norm(encoder, embedding.token_ids[0])
            for part, encoder in models.text_encoders.items()
        }
        """The mean norm of the vocabulary's token embeddings by text encoder."""
        host = FrozenWord(
            means=means,
            stds=stds,
            prompt_ids={part: prompt_ids[part].astype(np.int32) for part in initial},
            norms=self._held_norms(initial),
            time_ids=stacked_time_ids(latent_set) if models.family.time_ids else None,
        )
        self.frozen: FrozenWord = replicated(host, models.mesh)
        """What no step changes of the word."""
        self.trained: Trained = replicated(models.function.initial(initial), models.mesh)
        """What a step changes of the word."""
        self.kept_size: int | None = None
        """The micro-batch size that the state was trained with, where it is that of a checkpoint."""

    def step(self, batch: Batch, learning_rate: float) -> jax.Array:
        """One optimizer step over this process's samples; gives the mean loss, float32 [], of the global batch."""
        return self._models.take_steps([NextStep(trainer=self, batch=batch, learning_rate=learning_rate)])[0]

    def loss_of(self, batch: Batch) -> jax.Array:
        """The mean loss, float32 [], of the global batch at the rows as they are."""
        return self._models.loss_of(self, batch)

    def copy_state(self, step: int, losses: Sequence[jax.Array]) -> FlaxStateCopy:
        """What a step changes as it is after `step` steps, with the losses behind the handles; no waiting."""
        return FlaxStateCopy(
            step=step,
            micro_batch_size=self._models.micro_batch_size or self.kept_size,
            trained=self.trained,
            losses=tuple(losses),
        )

    def write_state(self, state: TrainingState) -> None:
        """Makes what a step changes that of `state`, whose micro-batch size is the first that the next step tries."""
        if state.micro_batch_size is not None:
            self.kept_size = state.micro_batch_size
            self._models.forget_compiled()
        adam = optax.ScaleByAdamState(
            count=np.int32(state.step),
            mu=dict(state.first_moment),
            nu=dict(state.second_moment),
        )
        ema = dict(state.learned) if self._config.ema_decay else None
        self.trained = replicated(Trained(rows=dict(state.rows), adam=adam, ema=ema), self._models.mesh)

    def memory_bytes(self) -> int:
        """The most memory used so far: the first device's where it can tell, else the process's."""
        stats = self._models.mesh.local_devices[0].memory_stats()
        if stats and "peak_bytes_in_use" in stats:
            return int(stats["peak_bytes_in_use"])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def compiled(self) -> jax.stages.Compiled | None:
        """The compiled step, once there was one: its text, memory and cost can be read."""
        return self._models.compiled

    def _held_norms(self, initial: ByEncoder) -> ByEncoder | None:
        """The norms that rows are held to, float32 [n, 1] by text encoder; None where they are left alone."""
        norms = {part: wanted_norms(self._config, rows, self.vocabulary_norms[part]) for part, rows in initial.items()}
        held = {part: values.astype(np.float32) for part, values in norms.items() if values is not None}
        return held or None


def _all_to_numpy(arrays: ByEncoder) -> dict[str, np.ndarray]:
    return {part: _to_numpy(array) for part, array in arrays.items()}


def _to_numpy(array: jax.Array) -> np.ndarray:
    return np.array(array.addressable_data(0), np.float32)

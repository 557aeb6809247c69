"""One optimizer step in JAX, on placeholder rows alone: what the training loop asks of a framework."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import resource
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.errors import LostProcessError
from components.common.training.checkpoints import TrainingState
from components.common.training.config import TrainConfig
from components.common.training.sampling_plan import Batch
from components.flax_models.clip_text import ClipTextEncoder
from components.flax_models.devices import DATA
from components.flax_models.loading import Loaded, replicated
from components.flax_models.noise_schedule import NoiseSchedule
from components.flax_models.unet import UNet
from components.train.flax.micro_batches import OUT_OF_MEMORY, compiled_that_fits, memory_limit, sizes_that_fit
from components.train.flax.step import Frozen, Samples, StepFunction, Trained

logger = logging.getLogger(__name__)

TEXT_ENCODER = "text_encoder"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlaxStateCopy:
    """Rows and moments after a step, with the losses of some steps: arrays that no later step changes.

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
        rows, adam = self.trained
        state = TrainingState(
            step=self.step,
            micro_batch_size=self.micro_batch_size,
            rows={TEXT_ENCODER: _to_numpy(rows)},
            first_moment={TEXT_ENCODER: _to_numpy(adam.mu)},
            second_moment={TEXT_ENCODER: _to_numpy(adam.nu)},
        )
        return state, np.array([_to_numpy(loss) for loss in self.losses], np.float32)


@contextlib.contextmanager
def noticing_lost_processes() -> Iterator[None]:
    """Runs what the processes do together: a failure that can come from another process is a `LostProcessError`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or OUT_OF_MEMORY in str(error):
            raise
        raise LostProcessError(
            f"the other processes do not answer ({error}): one of them has failed or was taken away, see its log; "
            "start the same command again to go on"
        ) from error


class FlaxTrainer:
    """Latents, frozen models and the rows on every device of the mesh; the gradient is averaged over all of them.

    The mathematics is that of `components.train.torch.trainer.TorchTrainer`, number for number (`tests/parity`). The
    step is compiled once, when the first batch comes; the frozen weights are its arguments, not its constants.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        latent_set: LatentSet,
        embedding: InitialEmbedding,
        prompt_ids: np.ndarray,
        text_encoder: Loaded[ClipTextEncoder],
        unet: Loaded[UNet],
        noise_schedule: NoiseSchedule,
        mesh: Mesh,
        compile_lowered: Callable[[jax.stages.Lowered], jax.stages.Compiled] = jax.stages.Lowered.compile,
    ) -> None:
        """Places everything that a step needs on the devices.

        Args:
            config: batch size, optimizer and memory options.
            latent_set: all pictures; their latents must have one shape.
            embedding: the rows to start from.
            prompt_ids: int64 [templates, tokens], see `training_prompt_ids`.
            text_encoder: the frozen text encoder.
            unet: the frozen UNet.
            noise_schedule: the model's training schedule.
            mesh: the devices of all processes.
            compile_lowered: compiles the step, or finds it compiled.

        Raises:
            ConfigError: when the batch cannot be shared equally among the devices.
        """
        self._config, self._mesh, self._compile_lowered = config, mesh, compile_lowered
        self._sizes = sizes_that_fit(config, len(mesh.local_devices))
        means, stds = _stacked_latents(latent_set)
        host = Frozen(
            text_encoder=text_encoder.weights,
            unet=unet.weights,
            means=means,
            stds=stds,
            prompt_ids=prompt_ids.astype(np.int32),
            alphas_cumprod=noise_schedule.alphas_cumprod,
        )
        self._frozen: Frozen = replicated(host, mesh)
        self._vocabulary_norm = _mean_norm(text_encoder, embedding.token_ids[0])
        self._function = StepFunction(
            config=config,
            mesh=mesh,
            text_encoder=text_encoder,
            unet=unet,
            first_id=embedding.token_ids[0],
            scaling_factor=latent_set.scaling_factor,
            v_prediction=noise_schedule.prediction_type == "v_prediction",
            max_norm=config.max_embedding_norm * self._vocabulary_norm,
        )
        self._trained: Trained = replicated(self._function.initial(embedding.rows[TEXT_ENCODER]), mesh)
        self._micro_batch_size: int | None = None
        self._compiled: jax.stages.Compiled | None = None
        self._compiled_loss: jax.stages.Compiled | None = None

    def step(self, batch: Batch, learning_rate: float) -> jax.Array:
        """One optimizer step over this process's samples; gives the mean loss, float32 [], of the global batch."""
        if self._compiled is None:
            self._compile(batch)
        assert self._compiled is not None and self._micro_batch_size is not None
        with noticing_lost_processes():
            samples = self._placed(batch, self._micro_batch_size)
            rate = replicated(np.float32(learning_rate), self._mesh)
            self._trained, loss = self._compiled(self._frozen, self._trained, samples, rate)
        return loss

    def loss_of(self, batch: Batch) -> jax.Array:
        """The mean loss, float32 [], of the global batch at the rows as they are; `step` was called before."""
        assert self._micro_batch_size is not None
        samples = self._placed(batch, self._micro_batch_size)
        if self._compiled_loss is None:
            lowered = self._function.lower_loss(self._frozen, self._trained, samples)
            self._compiled_loss = self._compile_lowered(lowered)
        loss: jax.Array = self._compiled_loss(self._frozen, self._trained, samples)
        return loss

    def copy_state(self, step: int, losses: Sequence[jax.Array]) -> FlaxStateCopy:
        """Rows and moments as they are after `step` steps, with the losses behind the handles; no waiting."""
        return FlaxStateCopy(
            step=step,
            micro_batch_size=self._micro_batch_size and self._micro_batch_size // len(self._mesh.local_devices),
            trained=self._trained,
            losses=tuple(losses),
        )

    def write_state(self, state: TrainingState) -> None:
        """Makes rows and moments those of `state`, whose micro-batch size is the first that the next step tries."""
        kept = (state.micro_batch_size or 0) * len(self._mesh.local_devices)
        if kept in self._sizes:
            self._sizes = self._sizes[self._sizes.index(kept) :]
            self._compiled = None
        adam = optax.ScaleByAdamState(
            count=np.int32(state.step),
            mu=state.first_moment[TEXT_ENCODER],
            nu=state.second_moment[TEXT_ENCODER],
        )
        self._trained = replicated(Trained(rows=state.rows[TEXT_ENCODER], adam=adam), self._mesh)

    def memory_bytes(self) -> int:
        """The most memory used so far: the first device's where it can tell, else the process's."""
        stats = self._mesh.local_devices[0].memory_stats()
        if stats and "peak_bytes_in_use" in stats:
            return int(stats["peak_bytes_in_use"])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def vocabulary_norm(self) -> float:
        """The mean Euclidean norm of the vocabulary's token embeddings."""
        return self._vocabulary_norm

    @property
    def compiled(self) -> jax.stages.Compiled | None:
        """The compiled step, once there was one: its text, memory and cost can be read."""
        return self._compiled

    def _compile(self, batch: Batch) -> None:
        def compile_size(size: int) -> jax.stages.Compiled:
            samples = self._placed(batch, size)
            return self._compile_lowered(self._function.lower(self._frozen, self._trained, samples))

        limit = memory_limit(self._mesh)
        self._micro_batch_size, self._compiled = compiled_that_fits(self._sizes, compile_size, limit)
        logger.info("%d samples to a step of this process", len(batch))

    def _placed(self, batch: Batch, size: int) -> Samples:
        """This process's samples as its part of the global arrays [micro-batches, samples, ...]."""
        sharding = NamedSharding(self._mesh, P(None, DATA))

        def place(values: np.ndarray) -> jax.Array:
            parts = values.reshape(-1, size, *values.shape[1:])
            return jax.make_array_from_process_local_data(sharding, parts)

        return Samples(
            picture=place(batch.picture.astype(np.int32)),
            flipped=place(batch.flipped.astype(np.int32)),
            template=place(batch.template.astype(np.int32)),
            timestep=place(batch.timestep.astype(np.int32)),
            posterior_noise=place(batch.posterior_noise),
            diffusion_noise=place(batch.diffusion_noise),
        )


def _stacked_latents(latent_set: LatentSet) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations, float32 [pictures, 2, C, h, w]: as it is, and mirrored."""
    means = [np.stack([latents.mean, latents.flipped_mean]) for latents in latent_set.latents]
    stds = [np.stack([latents.std, latents.flipped_std]) for latents in latent_set.latents]
    return np.stack(means), np.stack(stds)


def _mean_norm(text_encoder: Loaded[ClipTextEncoder], vocabulary_size: int) -> float:
    """The mean Euclidean norm of the vocabulary's token embeddings."""
    table = text_encoder.module(text_encoder.weights).embeddings.token_embedding.embedding.get_value()
    return float(np.linalg.norm(np.asarray(table[:vocabulary_size], np.float32), axis=1).mean())


def _to_numpy(array: jax.Array) -> np.ndarray:
    return np.array(array.addressable_data(0), np.float32)

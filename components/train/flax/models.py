"""The frozen models of a training on all its devices, which all words share, and the compiled steps."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.errors import LostProcessError
from components.common.families import Family
from components.common.training.config import TrainConfig
from components.common.training.loop import NextStep
from components.common.training.sampling_plan import Batch
from components.common.training.schedules import ema_decay
from components.flax_models.clip_text import ClipTextEncoder
from components.flax_models.devices import DATA
from components.flax_models.loading import Loaded, replicated
from components.flax_models.noise_schedule import NoiseSchedule
from components.flax_models.unet import UNet
from components.train.flax.micro_batches import OUT_OF_MEMORY, compiled_that_fits, memory_limit, sizes_that_fit
from components.train.flax.objective import timestep_weights
from components.train.flax.step import Frozen, Rates, Samples, StepFunction

if TYPE_CHECKING:
    from components.train.flax.trainer import FlaxTrainer

logger = logging.getLogger(__name__)

Work = Sequence[tuple["FlaxTrainer", Batch]]
"""This process's samples of some words."""


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


class FrozenModels:
    """Text encoders, UNet and noise schedule on every device of the mesh; weights are arguments of what is compiled.

    A step is compiled when the first batch comes, and anew for fewer words when one has ended.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        family: Family,
        text_encoders: Mapping[str, Loaded[ClipTextEncoder]],
        unet: Loaded[UNet],
        noise_schedule: NoiseSchedule,
        mesh: Mesh,
        first_id: int,
        scaling_factor: float,
        compile_lowered: Callable[[jax.stages.Lowered], jax.stages.Compiled] = jax.stages.Lowered.compile,
    ) -> None:
        """Places the models on the devices.

        Args:
            config: batch size, loss, optimizer and memory options.
            family: what the base model is.
            text_encoders: the frozen text encoders, in the family's order.
            unet: the frozen UNet.
            noise_schedule: the model's training schedule.
            mesh: the devices of all processes.
            first_id: the first placeholder id, with which each word's prompts were made.
            scaling_factor: of the latents.
            compile_lowered: compiles a step, or finds it compiled.

        Raises:
            ConfigError: when the batch cannot be shared equally among the devices.
        """
        self.family, self.text_encoders, self.mesh = family, text_encoders, mesh
        self._config, self._compile_lowered = config, compile_lowered
        self._all_sizes = self._sizes = sizes_that_fit(config, len(mesh.local_devices))
        host = Frozen(
            text_encoders={part: each.weights for part, each in text_encoders.items()},
            unet=unet.weights,
            alphas_cumprod=noise_schedule.alphas_cumprod,
            timestep_weights=timestep_weights(config, noise_schedule),
        )
        self._frozen: Frozen = replicated(host, mesh)
        self.function = StepFunction(
            config=config,
            mesh=mesh,
            text_encoders=text_encoders,
            unet=unet,
            first_id=first_id,
            scaling_factor=scaling_factor,
            v_prediction=noise_schedule.prediction_type == "v_prediction",
        )
        self._words_at_once: tuple[FlaxTrainer, ...] = ()
        self._losses: dict[Any, jax.stages.Compiled] = {}
        self.compiled: jax.stages.Compiled | None = None
        """The compiled step, once there was one: its text, memory and cost can be read."""

    @property
    def micro_batch_size(self) -> int | None:
        """The samples of all words that each device takes at once; None until that is chosen."""
        return self._sizes[0] * len(self._words_at_once) // len(self.mesh.local_devices) if self.compiled else None

    def take_steps(self, steps: Sequence[NextStep]) -> list[jax.Array]:
        """One optimizer step with each of some trainers; gives the mean losses of their global batches, float32 []."""
        work = [(step.trainer, step.batch) for step in steps]
        words = tuple(step.trainer for step in steps)
        if self.compiled is None or words != self._words_at_once:
            self._compile(work)
        assert self.compiled is not None
        with noticing_lost_processes():
            rates = replicated(tuple(self._rates(step) for step in steps), self.mesh)
            trained, losses = self.compiled(self._frozen, *self._placed(work, self._sizes[0]), rates)
        for word, state in zip(words, trained, strict=True):
            word.trained = state
        return list(losses)

    def loss_of(self, trainer: FlaxTrainer, batch: Batch) -> jax.Array:
        """The mean loss, float32 [], of a word's global batch at its rows as they are."""
        # Before the first step it is not known yet how many samples are taken at once; without gradients more fit.
        size = next((size for size in self._all_sizes if size <= self._config.train_batch_size), self._all_sizes[-1])
        arguments = self._placed([(trainer, batch)], size)
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(arguments))
        if shapes not in self._losses:
            self._losses[shapes] = self._compile_lowered(self.function.lower_loss(self._frozen, *arguments))
        loss: jax.Array = self._losses[shapes](self._frozen, *arguments)[0]
        return loss

    def forget_compiled(self) -> None:
        """Has the size chosen and the step compiled again, as a state was written."""
        self.compiled, self._sizes = None, self._all_sizes

    def _rates(self, step: NextStep) -> Rates:
        average = np.float32(ema_decay(self._config, step=step.batch.step)) if self._config.ema_decay else None
        return Rates(learning_rate=np.float32(step.learning_rate), ema_decay=average)

    def _compile(self, work: Work) -> None:
        words = tuple(trainer for trainer, _ in work)
        kept = {word.kept_size for word in words}
        if self.compiled is None and len(kept) == 1 and (size := kept.pop()):
            size = size * len(self.mesh.local_devices) // len(words)
            self._sizes = self._sizes[self._sizes.index(size) :] if size in self._sizes else self._sizes

        def compile_size(size: int) -> jax.stages.Compiled:
            return self._compile_lowered(self.function.lower(self._frozen, *self._placed(work, size)))

        size, self.compiled = compiled_that_fits(self._sizes, compile_size, memory_limit(self.mesh))
        self._words_at_once, self._sizes = words, self._sizes[self._sizes.index(size) :]
        logger.info("%d samples to a step of this process", sum(len(batch) for _, batch in work))

    def _placed(self, work: Work, size: int) -> tuple[Any, Any, Any]:
        """What a step is given of the words: frozen, trained, and samples, `size` of each at once."""
        return (
            tuple(trainer.frozen for trainer, _ in work),
            tuple(trainer.trained for trainer, _ in work),
            tuple(self._placed_samples(batch, size) for _, batch in work),
        )

    def _placed_samples(self, batch: Batch, size: int) -> Samples:
        """This process's samples as its part of the global arrays [micro-batches, samples, ...]."""
        sharding = NamedSharding(self.mesh, P(None, DATA))

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

"""One optimizer step as one compiled function: every device takes its samples, one sum goes around, AdamW follows.

Words that are trained together share every pass of the models. A word's rows do not enter the others' losses, so that
the gradient of the sum of the words' losses is each one's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.training.config import TrainConfig
from components.flax_models.clip_text import ClipTextEncoder
from components.flax_models.conditioning import Conditioning, conditioning
from components.flax_models.devices import DATA
from components.flax_models.loading import Loaded
from components.flax_models.noise_schedule import add_noise, velocity
from components.flax_models.unet import UNet
from components.train.flax.objective import mean_loss
from components.train.flax.row_norms import controlled_gradients, norm_control

Array = Any
"""A numpy array on the host before a run, a JAX array on the devices, or traced."""
ByEncoder = Mapping[str, Array]
"""An array for each text encoder."""


class Frozen(NamedTuple):
    """What no step changes and all words share; the same on every device. The modules' weights are pytrees."""

    text_encoders: Mapping[str, Any]
    unet: Any
    alphas_cumprod: Array  # float32 [timesteps]
    timestep_weights: Array | None = None  # float32 [timesteps], where they differ


class FrozenWord(NamedTuple):
    """What no step changes of one word; the same on every device.

    P pictures as they are and mirrored, latents [C, h, w].
    """

    means: Array  # float32 [P, 2, C, h, w]
    stds: Array  # float32 [P, 2, C, h, w]
    prompt_ids: ByEncoder  # int32 [templates, t]
    norms: ByEncoder | None = None  # float32 [n, 1], where rows are held to them
    time_ids: Array | None = None  # float32 [P, 2, 6], where the UNet takes them


class Samples(NamedTuple):
    """The samples of one word in one step as [micro-batches, samples, ...], cut along the samples."""

    picture: Array
    flipped: Array
    template: Array
    timestep: Array
    posterior_noise: Array
    diffusion_noise: Array


class Trained(NamedTuple):
    """What a step changes of one word: the rows, float32 [n, d], AdamW's state, and the rows' average if asked for.

    The same on every device.
    """

    rows: ByEncoder
    adam: optax.ScaleByAdamState
    ema: ByEncoder | None = None


class Rates(NamedTuple):
    """What changes from step to step of one word beside the samples, float32 []."""

    learning_rate: Array
    ema_decay: Array | None


@dataclasses.dataclass(frozen=True)
class StepFunction:
    """The mathematics of a step; `words`, `trained`, `samples` and `rates` are tuples of the same words, in one order.

    Attributes:
        config: the loss, AdamW's betas, epsilon and decay, and what is done to gradient and rows.
        mesh: the devices.
        text_encoders: the modules' definitions, in the family's order.
        unet: the module's definition.
        first_id: the first placeholder id.
        scaling_factor: of the latents.
        v_prediction: whether the UNet predicts the velocity instead of the noise.
    """

    config: TrainConfig
    mesh: Mesh
    text_encoders: Mapping[str, Loaded[ClipTextEncoder]]
    unet: Loaded[UNet]
    first_id: int
    scaling_factor: float
    v_prediction: bool

    def lower(self, frozen: Any, words: Any, trained: Any, samples: Any) -> jax.stages.Lowered:
        """The step lowered for the shapes of its arguments, which may be abstract."""
        return self.traced(frozen, words, trained, samples).lower()

    def traced(self, frozen: Any, words: Any, trained: Any, samples: Any) -> jax.stages.Traced:
        """The step traced for the shapes of its arguments, which may be abstract."""
        rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(self.mesh, P()))
        rates = Rates(learning_rate=rate, ema_decay=rate if self.config.ema_decay else None)
        return self._traced(self._step, frozen, words, trained, samples, (rates,) * len(words))

    def lower_loss(self, frozen: Any, words: Any, trained: Any, samples: Any) -> jax.stages.Lowered:
        """The losses alone lowered for the shapes of their arguments: each word's global batch's mean, float32 []."""
        return self._traced(self._mean_losses, frozen, words, trained, samples).lower()

    def initial(self, rows: Any) -> Trained:
        """The state of a word before the first step."""
        return Trained(rows=rows, adam=self._adam().init(rows), ema=rows if self.config.ema_decay else None)

    def _step(
        self,
        frozen: Frozen,
        words: tuple[FrozenWord, ...],
        trained: tuple[Trained, ...],
        samples: tuple[Samples, ...],
        rates: tuple[Rates, ...],
    ) -> tuple[tuple[Trained, ...], tuple[jax.Array, ...]]:
        """The state of each word after the step, and its global batch's mean loss, float32 []."""
        learn = jax.grad(self.losses, has_aux=True)
        rows = tuple(each.rows for each in trained)
        gradients, losses = self._mean_over_devices(learn, frozen, words, rows, samples)
        updated = zip(words, trained, gradients, rates, strict=True)
        return tuple(self._updated(*each) for each in updated), losses

    def _updated(self, word: FrozenWord, trained: Trained, gradients: ByEncoder, rates: Rates) -> Trained:
        """The state of a word after the step that has found `gradients`, float32 [n, d] each."""
        config = self.config
        directions, adam = self._adam().update(controlled_gradients(config, gradients, trained.rows), trained.adam)
        rows = jax.tree.map(
            lambda before, direction: before - rates.learning_rate * (direction + config.adam_weight_decay * before),
            trained.rows,
            directions,
        )
        if word.norms is not None:
            rows = norm_control(config, word.norms, rows)
        ema = None
        if config.ema_decay:
            ema = jax.tree.map(lambda new, average: new + rates.ema_decay * (average - new), rows, trained.ema)
            ema = ema if word.norms is None else norm_control(config, word.norms, ema)
        return Trained(rows=rows, adam=adam, ema=ema)

    def _mean_losses(
        self,
        frozen: Frozen,
        words: tuple[FrozenWord, ...],
        trained: tuple[Trained, ...],
        samples: tuple[Samples, ...],
    ) -> tuple[jax.Array, ...]:
        def only_losses(*arguments: Any) -> Any:
            return self.losses(*arguments)[1]

        rows = tuple(each.rows for each in trained)
        means: tuple[jax.Array, ...] = self._mean_over_devices(only_losses, frozen, words, rows, samples)
        return means

    def _mean_over_devices(
        self,
        function: Callable[..., Any],
        frozen: Frozen,
        words: tuple[FrozenWord, ...],
        rows: tuple[ByEncoder, ...],
        samples: tuple[Samples, ...],
    ) -> Any:
        """The mean of ``function(rows, frozen, words, micro-batch)``, over all micro-batches of all devices."""

        def mean_here(
            frozen: Frozen, words: tuple[FrozenWord, ...], rows: tuple[ByEncoder, ...], samples: tuple[Samples, ...]
        ) -> Any:
            def add(sums: Any, part: tuple[Samples, ...]) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, sums, function(rows, frozen, words, part)), None

            first = jax.tree.map(lambda x: x[0], samples)
            count = len(samples[0].picture)
            if count == 1:
                sums = function(rows, frozen, words, first)  # XLA for CPUs takes 1.6 times as long within a loop
            else:
                shapes = jax.eval_shape(function, rows, frozen, words, first)
                sums, _ = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), samples)
            # The one thing that devices tell each other.
            return jax.lax.pmean(jax.tree.map(lambda x: x / count, sums), DATA)

        in_specs = (P(), P(), P(), P(None, DATA))
        return jax.shard_map(mean_here, mesh=self.mesh, in_specs=in_specs, out_specs=P(), check_vma=False)(
            frozen, words, rows, samples
        )

    def losses(
        self,
        rows: tuple[ByEncoder, ...],
        frozen: Frozen,
        words: tuple[FrozenWord, ...],
        samples: tuple[Samples, ...],
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """The sum of the words' losses and each of them, float32 []: the mean error over its samples, [b, ...]."""
        asked = [self._denoising(frozen, *each) for each in zip(words, samples, strict=True)]
        timestep = jnp.concatenate([each.timestep for each in samples])
        told = self._conditioning(rows, frozen, words, samples)
        unet = self.unet.module(frozen.unet)
        prediction = unet(jnp.concatenate([noisy for noisy, _ in asked]), timestep, *told)
        losses, start = [], 0
        for (noisy, target), drawn in zip(asked, samples, strict=True):
            own = prediction[start : start + len(noisy)]
            start += len(noisy)
            weights = None if frozen.timestep_weights is None else frozen.timestep_weights[drawn.timestep]
            losses.append(mean_loss(self.config, own, target, weights))
        return sum(losses[1:], losses[0]), tuple(losses)

    def _denoising(self, frozen: Frozen, word: FrozenWord, samples: Samples) -> tuple[jax.Array, jax.Array]:
        """Noisy latents of a word's samples, and what the UNet should predict of them, float32 [b, h, w, C]."""
        drawn = (samples.picture, samples.flipped)
        latents = word.means[drawn] + word.stds[drawn] * samples.posterior_noise
        latents = _channels_last(latents * self.scaling_factor)
        noise, alpha = _channels_last(samples.diffusion_noise), frozen.alphas_cumprod[samples.timestep]
        target = velocity(latents, noise, alpha) if self.v_prediction else noise
        return add_noise(latents, noise, alpha), target

    def _conditioning(
        self,
        rows: tuple[ByEncoder, ...],
        frozen: Frozen,
        words: tuple[FrozenWord, ...],
        samples: tuple[Samples, ...],
    ) -> Conditioning:
        """What the UNet is told of all samples."""
        modules = {part: self.text_encoders[part].module(frozen.text_encoders[part]) for part in self.text_encoders}
        prompt_ids = {part: self._prompt_ids(part, rows, words, samples) for part in modules}
        all_rows = {part: jnp.concatenate([own[part] for own in rows]) for part in modules}
        time_ids = [
            word.time_ids[drawn.picture, drawn.flipped]
            for word, drawn in zip(words, samples, strict=True)
            if word.time_ids is not None
        ]
        return conditioning(
            modules,
            prompt_ids,
            all_rows,
            self.first_id,
            clip_skip=self.config.clip_skip,
            time_ids=jnp.concatenate(time_ids) if time_ids else None,
        )

    def _prompt_ids(
        self, part: str, rows: tuple[ByEncoder, ...], words: tuple[FrozenWord, ...], samples: tuple[Samples, ...]
    ) -> jax.Array:
        """The prompts of all samples, int32 [b, t], in which each word has the ids of its own rows among all rows."""
        prompts, before = [], 0
        for own_rows, word, drawn in zip(rows, words, samples, strict=True):
            ids = word.prompt_ids[part][drawn.template]
            prompts.append(jnp.where(ids >= self.first_id, ids + before, ids) if before else ids)
            before += len(own_rows[part])
        return jnp.concatenate(prompts)

    def _traced(self, function: Callable[..., Any], *arguments: Any) -> jax.stages.Traced:
        # Else TPUs multiply float32 by one pass of bfloat16, and GPUs as TF32.
        exact = self.config.mixed_precision == "no" and not self.config.allow_tf32
        with jax.default_matmul_precision("highest" if exact else "default"):
            return jax.jit(function).trace(*arguments)

    def _adam(self) -> optax.GradientTransformation:
        config = self.config
        return optax.scale_by_adam(b1=config.adam_beta1, b2=config.adam_beta2, eps=config.adam_epsilon)


def _channels_last(latents: jax.Array) -> jax.Array:
    return latents.transpose(0, 2, 3, 1)

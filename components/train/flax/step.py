"""One optimizer step as one compiled function: every device takes its samples, one sum goes around, AdamW follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.training.config import TrainConfig
from components.flax_models.clip_text import ClipTextEncoder
from components.flax_models.devices import DATA
from components.flax_models.loading import Loaded
from components.flax_models.noise_schedule import add_noise, velocity
from components.flax_models.unet import UNet
from components.train.flax.objective import mean_loss
from components.train.flax.row_norms import controlled_gradient, norm_control

Array = Any
"""A numpy array on the host before a run, a JAX array on the devices, or traced."""


class Frozen(NamedTuple):
    """What no step changes; the same on every device.

    P pictures as they are and mirrored, latents [C, h, w]; the modules' weights are pytrees.
    """

    text_encoder: Any
    unet: Any
    means: Array  # float32 [P, 2, C, h, w]
    stds: Array  # float32 [P, 2, C, h, w]
    prompt_ids: Array  # int32 [templates, t]
    alphas_cumprod: Array  # float32 [timesteps]
    timestep_weights: Array | None = None  # float32 [timesteps], where they differ
    norms: Array | None = None  # float32 [n, 1], where rows are held to them


class Samples(NamedTuple):
    """The samples of one step as [micro-batches, samples, ...], cut along the samples."""

    picture: Array
    flipped: Array
    template: Array
    timestep: Array
    posterior_noise: Array
    diffusion_noise: Array


class Trained(NamedTuple):
    """What a step changes: the rows, float32 [n, d], AdamW's state, and the rows' average if it is asked for.

    The same on every device.
    """

    rows: Array
    adam: optax.ScaleByAdamState
    ema: Array | None = None


class Rates(NamedTuple):
    """What changes from step to step beside the samples, float32 []."""

    learning_rate: Array
    ema_decay: Array | None


@dataclasses.dataclass(frozen=True)
class StepFunction:
    """The mathematics of a step.

    Attributes:
        config: the loss, AdamW's betas, epsilon and decay, and what is done to gradient and rows.
        mesh: the devices.
        text_encoder, unet: the modules' definitions.
        first_id: the first placeholder id.
        scaling_factor: of the latents.
        v_prediction: whether the UNet predicts the velocity instead of the noise.
    """

    config: TrainConfig
    mesh: Mesh
    text_encoder: Loaded[ClipTextEncoder]
    unet: Loaded[UNet]
    first_id: int
    scaling_factor: float
    v_prediction: bool

    def lower(self, frozen: Any, trained: Any, samples: Any) -> jax.stages.Lowered:
        """The step lowered for the shapes of its arguments, which may be abstract."""
        rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(self.mesh, P()))
        rates = Rates(learning_rate=rate, ema_decay=rate if self.config.ema_decay else None)
        return self._lowered(self._step, frozen, trained, samples, rates)

    def lower_loss(self, frozen: Any, trained: Any, samples: Any) -> jax.stages.Lowered:
        """The loss alone lowered for the shapes of its arguments: the global batch's mean, float32 []."""
        return self._lowered(self._mean_loss, frozen, trained, samples)

    def initial(self, rows: Any) -> Trained:
        """The state before the first step."""
        return Trained(rows=rows, adam=self._adam().init(rows), ema=rows if self.config.ema_decay else None)

    def _step(self, frozen: Frozen, trained: Trained, samples: Samples, rates: Rates) -> tuple[Trained, jax.Array]:
        """The state after the step and the global batch's mean loss, float32 []."""
        config = self.config
        loss, gradient = self._mean_over_devices(jax.value_and_grad(self.loss), frozen, trained.rows, samples)
        gradient = controlled_gradient(config, gradient, trained.rows)
        direction, adam = self._adam().update(gradient, trained.adam)
        rows = trained.rows - rates.learning_rate * (direction + config.adam_weight_decay * trained.rows)
        if frozen.norms is not None:
            rows = norm_control(config, frozen.norms, rows)
        ema = None
        if config.ema_decay:
            ema = rows + rates.ema_decay * (trained.ema - rows)
            ema = ema if frozen.norms is None else norm_control(config, frozen.norms, ema)
        return Trained(rows=rows, adam=adam, ema=ema), loss

    def _mean_loss(self, frozen: Frozen, trained: Trained, samples: Samples) -> jax.Array:
        mean: jax.Array = self._mean_over_devices(self.loss, frozen, trained.rows, samples)
        return mean

    def _mean_over_devices(
        self, function: Callable[..., Any], frozen: Frozen, rows: jax.Array, samples: Samples
    ) -> Any:
        """The mean of ``function(rows, frozen, micro-batch)``, a pytree, over all micro-batches of all devices."""

        def mean_here(frozen: Frozen, rows: jax.Array, samples: Samples) -> Any:
            def add(sums: Any, part: Samples) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, sums, function(rows, frozen, part)), None

            first = jax.tree.map(lambda x: x[0], samples)
            if len(samples.picture) == 1:
                sums = function(rows, frozen, first)  # XLA for CPUs takes 1.6 times as long within a loop
            else:
                shapes = jax.eval_shape(function, rows, frozen, first)
                sums, _ = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), samples)
            # The one thing that devices tell each other.
            return jax.lax.pmean(jax.tree.map(lambda x: x / len(samples.picture), sums), DATA)

        in_specs = (P(), P(), P(None, DATA))
        return jax.shard_map(mean_here, mesh=self.mesh, in_specs=in_specs, out_specs=P(), check_vma=False)(
            frozen, rows, samples
        )

    def loss(self, rows: jax.Array, frozen: Frozen, samples: Samples) -> jax.Array:
        """The mean error of the UNet's prediction over samples [b, ...], float32 []."""
        drawn = (samples.picture, samples.flipped)
        latents = frozen.means[drawn] + frozen.stds[drawn] * samples.posterior_noise
        latents = _channels_last(latents * self.scaling_factor)
        noise, alpha = _channels_last(samples.diffusion_noise), frozen.alphas_cumprod[samples.timestep]
        text_encoder, unet = self.text_encoder.module(frozen.text_encoder), self.unet.module(frozen.unet)
        prompt_ids = frozen.prompt_ids[samples.template]
        prompt = text_encoder(prompt_ids, rows, self.first_id, clip_skip=self.config.clip_skip)
        prediction = unet(add_noise(latents, noise, alpha), samples.timestep, prompt)
        target = velocity(latents, noise, alpha) if self.v_prediction else noise
        weights = None if frozen.timestep_weights is None else frozen.timestep_weights[samples.timestep]
        return mean_loss(self.config, prediction, target, weights)

    def _lowered(self, function: Callable[..., Any], *arguments: Any) -> jax.stages.Lowered:
        # Else TPUs multiply float32 by one pass of bfloat16, and GPUs as TF32.
        exact = self.config.mixed_precision == "no" and not self.config.allow_tf32
        with jax.default_matmul_precision("highest" if exact else "default"):
            return jax.jit(function).lower(*arguments)

    def _adam(self) -> optax.GradientTransformation:
        config = self.config
        return optax.scale_by_adam(b1=config.adam_beta1, b2=config.adam_beta2, eps=config.adam_epsilon)


def _channels_last(latents: jax.Array) -> jax.Array:
    return latents.transpose(0, 2, 3, 1)

"""The loss of a batch from what the UNet predicts and should have predicted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from components.common.training.config import TrainConfig
from components.common.training.loss_weights import min_snr_weights
from components.flax_models.noise_schedule import NoiseSchedule


def mean_loss(config: TrainConfig, prediction: jax.Array, target: jax.Array, weights: jax.Array | None) -> jax.Array:
    """The mean over samples of their mean error, float32 [].

    Args:
        config: says which error: squared, or the pseudo-Huber loss 2 d (sqrt(e^2 + d^2) - d), which is e^2 where e is
            small beside d (diffusers, examples/research_projects/scheduled_huber_loss_training, `conditional_loss`).
        prediction: [b, h, w, C].
        target: float32 [b, h, w, C].
        weights: of the samples, float32 [b]; None where all weigh the same.
    """
    errors = jnp.square(prediction - target)
    if config.loss_type == "huber":
        delta = config.huber_delta
        errors = 2 * delta * (jnp.sqrt(errors + delta**2) - delta)
    return errors.mean() if weights is None else (weights * errors.mean(axis=(1, 2, 3))).mean()


def timestep_weights(config: TrainConfig, noise_schedule: NoiseSchedule) -> np.ndarray | None:
    """How much a sample of each timestep weighs, float32 [timesteps]; None where all weigh the same."""
    if not config.snr_gamma:
        return None
    v_prediction = noise_schedule.prediction_type == "v_prediction"
    return min_snr_weights(noise_schedule.alphas_cumprod, gamma=config.snr_gamma, v_prediction=v_prediction)

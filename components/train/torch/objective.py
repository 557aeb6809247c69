"""The loss of a batch from what the UNet predicts and should have predicted."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import nn

from components.common.training.config import TrainConfig
from components.common.training.loss_weights import min_snr_weights


def mean_loss(
    config: TrainConfig, prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """The mean over samples of their mean error, float32 [].

    Args:
        config: says which error: squared, or the pseudo-Huber loss 2 d (sqrt(e^2 + d^2) - d), which is e^2 where e is
            small beside d (diffusers, examples/research_projects/scheduled_huber_loss_training, `conditional_loss`).
        prediction: [b, C, h, w].
        target: float32 [b, C, h, w].
        weights: of the samples, float32 [b]; None where all weigh the same.
    """
    if config.loss_type == "mse" and weights is None:
        return nn.functional.mse_loss(prediction.float(), target)
    errors = torch.square(prediction.float() - target)
    if config.loss_type == "huber":
        delta = config.huber_delta
        errors = 2 * delta * (torch.sqrt(errors + delta**2) - delta)
    by_sample = errors.mean(dim=(1, 2, 3))
    return by_sample.mean() if weights is None else (weights * by_sample).mean()


def timestep_weights(config: TrainConfig, noise_scheduler: DDPMScheduler, device: torch.device) -> torch.Tensor | None:
    """How much a sample of each timestep weighs, float32 [timesteps]; None where all weigh the same."""
    if not config.snr_gamma:
        return None
    v_prediction = noise_scheduler.config.prediction_type == "v_prediction"
    alphas = noise_scheduler.alphas_cumprod.numpy()
    return torch.from_numpy(min_snr_weights(alphas, gamma=config.snr_gamma, v_prediction=v_prediction)).to(device)

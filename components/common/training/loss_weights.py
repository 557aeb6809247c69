"""How much the samples of each timestep weigh in the loss."""

from __future__ import annotations

import numpy as np


def min_snr_weights(alphas_cumprod: np.ndarray, *, gamma: float, v_prediction: bool) -> np.ndarray:
    """The weight of each timestep by min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556), float32 [timesteps].

    With the signal-to-noise ratio `diffusers.training_utils.compute_snr` it is min(SNR, gamma) / SNR where the noise is
    predicted, and min(SNR, gamma) / (SNR + 1) where the velocity is.

    Args:
        alphas_cumprod: float32 [timesteps], the share of the signal's variance that is left.
        gamma: the ratio up to which the weights are those of predicting the picture.
        v_prediction: whether the velocity is predicted.
    """
    signal = np.asarray(alphas_cumprod, np.float64)
    ratio = signal / (1.0 - signal)
    if v_prediction:
        return (np.minimum(ratio, gamma) / (ratio + 1.0)).astype(np.float32)
    # min(SNR, gamma) / SNR, and 1 where no signal is left
    return (gamma / np.maximum(ratio, gamma)).astype(np.float32)

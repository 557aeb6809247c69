"""The weights of timesteps are those that diffusers' training scripts make of its signal-to-noise ratio."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from components.common.training.loss_weights import min_snr_weights


@pytest.mark.parametrize("gamma", [0.5, 5.0])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("v_prediction", [False, True])
def test_weights_are_those_of_diffusers(gamma: float, zero_snr: bool, v_prediction: bool) -> None:
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=zero_snr)
    ratio = compute_snr(scheduler, torch.arange(1000))
    smaller = ratio.clamp(max=gamma)
    expected = (smaller / (ratio + 1) if v_prediction else smaller / ratio).numpy()
    if zero_snr and not v_prediction:
        assert np.isnan(expected[-1])
        expected[-1] = 1.0  # the limit, as diffusers' scripts have it
    found = min_snr_weights(scheduler.alphas_cumprod.numpy(), gamma=gamma, v_prediction=v_prediction)
    assert found.dtype == np.float32 and np.ptp(found) > 0.1
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-7)

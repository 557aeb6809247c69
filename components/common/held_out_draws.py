"""At which timesteps and with which noise the held-out loss is measured: the same for every prompt and framework."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STRATA = 20
"""Timesteps for each picture, one in the middle of each equal part of the noise schedule."""

SAMPLES_AT_ONCE = 10
"""Samples that go through the UNet together."""

_NOISE_SEED = 0


class HeldOutDraws(NamedTuple):
    """Timesteps, int64 [strata], and the noise at each, float32 [strata, pictures, C, h, w]."""

    timesteps: np.ndarray
    noise: np.ndarray


def held_out_draws(latents_shape: tuple[int, ...], num_train_timesteps: int, strata: int = STRATA) -> HeldOutDraws:
    """The draws for latents of the shape [pictures, C, h, w] and a schedule of that many timesteps."""
    middles = (np.arange(strata) + 0.5) * num_train_timesteps / strata
    generator = np.random.Generator(np.random.Philox(_NOISE_SEED))
    noise = generator.standard_normal((strata, *latents_shape), dtype=np.float32)
    return HeldOutDraws(timesteps=middles.astype(np.int64), noise=noise)

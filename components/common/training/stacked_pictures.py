"""All pictures of a training as arrays, each as it is and mirrored, for either framework."""

from __future__ import annotations

import numpy as np

from components.common.artifacts import LatentSet
from components.common.time_ids import time_ids


def stacked_latents(latent_set: LatentSet) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations, float32 [pictures, 2, C, h, w]: as it is, and mirrored.

    The latents must have one shape.
    """
    means = [np.stack([latents.mean, latents.flipped_mean]) for latents in latent_set.latents]
    stds = [np.stack([latents.std, latents.flipped_std]) for latents in latent_set.latents]
    return np.stack(means), np.stack(stds)


def stacked_time_ids(latent_set: LatentSet) -> np.ndarray:
    """The time ids, float32 [pictures, 2, 6]: as it is, and mirrored; see `time_ids`."""
    told = [[time_ids(latents.picture, mirrored=each) for each in (False, True)] for latents in latent_set.latents]
    return np.array(told, np.float32)

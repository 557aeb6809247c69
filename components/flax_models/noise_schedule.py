"""The noise schedule of a base model: how much signal is left at each timestep (Ho et al. 2020)."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.common.errors import BaseModelError
from components.common.sources.checks import read_object
from components.common.sources.model_documents import scheduler_problems

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """What training and sampling need of a model's `scheduler_config.json`.

    Attributes:
        alphas_cumprod: float32 [timesteps], the share of the signal's variance that is left.
        prediction_type: `epsilon` or `v_prediction`.
    """

    alphas_cumprod: np.ndarray
    prediction_type: str

    @property
    def num_train_timesteps(self) -> int:
        """The number of timesteps."""
        return len(self.alphas_cumprod)


def load_noise_schedule(model: Path) -> NoiseSchedule:
    """The schedule in the model's folder `scheduler`, the same for whichever sampler the folder names.

    Raises:
        BaseModelError: when it cannot be right, or is of a kind that is not implemented.
    """
    folder = model / "scheduler"
    given = read_object(folder / "scheduler_config.json")
    if problems := scheduler_problems(given, str(folder / "scheduler_config.json")):
        raise BaseModelError(*problems)
    if given.get("thresholding"):
        raise BaseModelError(
            f"{folder} asks for thresholding, which the Flax modules do not compute: train with PyTorch"
        )
    betas = given.get("trained_betas")
    if betas is None:
        betas = _betas(
            given.get("beta_schedule", "linear"),
            given.get("beta_start", 0.0001),
            given.get("beta_end", 0.02),
            given.get("num_train_timesteps", 1000),
            folder,
        )
    betas = np.asarray(betas, np.float32)
    if given.get("rescale_betas_zero_snr"):
        betas = _without_terminal_signal(betas)
    return NoiseSchedule(alphas_cumprod=_left_of_signal(betas), prediction_type=given.get("prediction_type", "epsilon"))


def _left_of_signal(betas: np.ndarray) -> np.ndarray:
    # As PyTorch does: multiplied up in float64. In float32 the share of noise at the first timesteps was off by 1e-4.
    return np.cumprod(1.0 - betas, dtype=np.float64).astype(np.float32)


def _without_terminal_signal(betas: np.ndarray) -> np.ndarray:
    """The betas of a schedule that ends with noise alone (Lin et al. 2023, arXiv 2305.08891, algorithm 1), float32."""
    roots = np.sqrt(_left_of_signal(betas))
    shifted = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    left = np.square(shifted)
    return 1.0 - np.concatenate([left[:1], left[1:] / left[:-1]])


def _betas(schedule: str, start: float, end: float, count: int, folder: Path) -> np.ndarray:
    match schedule:
        case "linear":
            return np.linspace(start, end, count, dtype=np.float32)
        case "scaled_linear":
            return np.linspace(start**0.5, end**0.5, count, dtype=np.float32) ** 2
        case "squaredcos_cap_v2":
            left = [math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)]
            return np.array([min(1 - left[i + 1] / left[i], 0.999) for i in range(count)], np.float32)
    raise BaseModelError(
        f"beta_schedule is {schedule!r} in {folder}, expected linear, scaled_linear or squaredcos_cap_v2"
    )


def add_noise(latents: jax.Array, noise: jax.Array, alpha: jax.Array) -> jax.Array:
    """Noisy latents [b, h, w, c] at timesteps whose `alphas_cumprod` are `alpha`, float32 [b]."""
    signal, rest = _roots(alpha)
    return signal * latents + rest * noise


def velocity(latents: jax.Array, noise: jax.Array, alpha: jax.Array) -> jax.Array:
    """The target of v-prediction (Salimans & Ho 2022), arguments as of `add_noise`."""
    signal, rest = _roots(alpha)
    return signal * noise - rest * latents


def _roots(alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
    each = alpha[:, None, None, None]
    return each**0.5, (1.0 - each) ** 0.5

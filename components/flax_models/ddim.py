"""DDIM (Song et al. 2021) without noise on the way: the sampler that the Flax modules draw with when none is named."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from components.common.errors import BaseModelError, ConfigError
from components.common.sources.checks import read_object
from components.flax_models.noise_schedule import NoiseSchedule, load_noise_schedule

if TYPE_CHECKING:
    import jax

logger = logging.getLogger(__name__)

_REPLACED = (
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
)
"""Samplers of the same noise schedule, for which DDIM stands in."""


Array = Any
"""A numpy array on the host, or traced."""


class Steps(NamedTuple):
    """The denoising steps, [steps] each.

    Attributes:
        timestep: what the UNet is told, int32 or float32.
        alpha, alpha_after: the signal's share of variance before and after, float32.
        bend: how much the change of the predicted picture since the step before counts, float32; 0 in DDIM.
    """

    timestep: Array
    alpha: Array
    alpha_after: Array
    bend: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ddim:
    """A model's schedule, as DDIM walks it.

    Attributes:
        schedule: the noise schedule.
        spacing: how timesteps are chosen: `leading`, `trailing` or `linspace`.
        offset: added to leading timesteps.
        final_alpha: the signal's share of variance after the last step.
        clip: whether predicted pictures are clipped to -1 to 1, wrong for latents, but some files ask for it.
    """

    schedule: NoiseSchedule
    spacing: str
    offset: int
    final_alpha: float
    clip: bool

    def steps(self, count: int) -> Steps:
        """The denoising steps of a picture.

        Raises:
            ConfigError: when there are more than timesteps.
            BaseModelError: when a step begins without any signal, and the noise is predicted: that tells no picture.
        """
        total = self.schedule.num_train_timesteps
        if not 1 <= count <= total:
            raise ConfigError(f"num_inference_steps: found {count}, expected 1 to {total}")
        match self.spacing:
            case "leading":
                chosen = np.arange(count)[::-1] * (total // count) + float(self.offset)
            case "trailing":
                chosen = np.round(np.arange(total, 0, -total / count)) - 1
            case _:
                chosen = np.round(np.linspace(0, total - 1, count))[::-1]
        timesteps = chosen.astype(np.int32)
        alphas, after = self.schedule.alphas_cumprod, timesteps - total // count
        self.check_signal(timesteps)
        alpha_after = np.where(after >= 0, alphas[np.maximum(after, 0)], np.float32(self.final_alpha))
        return Steps(
            timestep=timesteps,
            alpha=alphas[timesteps],
            alpha_after=alpha_after.astype(np.float32),
            bend=np.zeros(count, np.float32),
        )

    def check_signal(self, timesteps: np.ndarray) -> None:
        """Raises `BaseModelError` when a step begins without any signal, and the noise is predicted."""
        if self.schedule.prediction_type == "epsilon" and not self.schedule.alphas_cumprod[timesteps].all():
            raise BaseModelError(
                f"prediction_type is epsilon where the schedule leaves no signal at timestep {timesteps[0]}, expected "
                "v_prediction, as rescale_betas_zero_snr needs it: choose another base model"
            )

    def noise_scale(self, steps: Steps) -> float:
        """The standard deviation of the noise that pictures begin with."""
        return 1.0

    def denoise(
        self, latents: jax.Array, predicted: jax.Array, before: jax.Array, step: Steps
    ) -> tuple[jax.Array, jax.Array]:
        """The latents after one step (equation 12 with sigma 0), and the predicted picture.

        Args:
            latents: the latents before it.
            predicted: the UNet's prediction for them.
            before: the picture that the step before predicted.
            step: one of `steps`.
        """
        signal, rest = step.alpha**0.5, (1 - step.alpha) ** 0.5
        if self.schedule.prediction_type == "v_prediction":
            clean, noise = signal * latents - rest * predicted, signal * predicted + rest * latents
        else:
            clean, noise = (latents - rest * predicted) / signal, predicted
        if self.clip:
            clean = clean.clip(-1.0, 1.0)
        after: jax.Array = step.alpha_after**0.5 * clean + (1 - step.alpha_after) ** 0.5 * noise
        return after + step.bend * (clean - before), clean


def load_ddim(model: Path, *, is_asked_for: bool = False) -> Ddim:
    """DDIM with the schedule in the model's folder `scheduler`.

    Args:
        model: a diffusers folder.
        is_asked_for: whether a person chose the sampler; else it is said when the folder names another one.

    Raises:
        BaseModelError: when the folder's sampler has another kind of schedule.
    """
    schedule, given = load_noise_schedule(model), read_object(model / "scheduler" / "scheduler_config.json")
    named, spacing = given.get("_class_name", "DDIMScheduler"), given.get("timestep_spacing", "leading")
    is_ddim = named == "DDIMScheduler"
    if not is_ddim and named not in _REPLACED:
        raise BaseModelError(
            f"{model / 'scheduler'} names the sampler {named}, expected DDIMScheduler or one of "
            f"{', '.join(_REPLACED)}: sample with PyTorch"
        )
    if spacing not in ("leading", "trailing", "linspace"):
        raise BaseModelError(f"timestep_spacing is {spacing!r} in {model / 'scheduler'}: sample with PyTorch")
    if not is_ddim and not is_asked_for:
        logger.info("the base model names %s: drawing with DDIM, the sampler that is implemented in JAX", named)
    to_one = given.get("set_alpha_to_one", is_ddim)
    return Ddim(
        schedule=schedule,
        spacing=spacing,
        offset=given.get("steps_offset", 0),
        final_alpha=1.0 if to_one else float(schedule.alphas_cumprod[0]),
        clip=bool(given.get("clip_sample", True)) and is_ddim,
    )

"""Samplers of diffusers by name, each with the noise schedule of the model's own one."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from components.common.errors import BaseModelError
from components.common.storage.retries import one_line

_SCHEDULE = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type"),
    *("timestep_spacing", "steps_offset", "rescale_betas_zero_snr"),
)
"""Fields of a scheduler's configuration that are the model's; all others are a sampler's own."""

_SAMPLERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "dpm-solver++": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}
"""By the names of `drawing.SAMPLERS`."""


def sampler_for(own: Any, name: str) -> Any:
    """The scheduler of that name (`drawing.SAMPLERS`) with the schedule of `own`, a model's; `own` itself for `auto`.

    It walks the model's betas and timesteps, from noise alone where the model was trained to, and takes the UNet's
    prediction for what it is: the noise, or the velocity. DDIM clips predicted pictures only where the model's own one
    does: latents may well lie beyond -1 and 1.

    Raises:
        BaseModelError: when diffusers does not compute the schedule for this sampler.
    """
    if name == "auto" or type(own) is _SAMPLERS[name] is DDIMScheduler:
        return own
    fields = {field: own.config[field] for field in _SCHEDULE if field in own.config}
    if name == "ddim":
        fields |= {"clip_sample": False, "set_alpha_to_one": own.config.get("set_alpha_to_one", False)}
    try:
        return _SAMPLERS[name](**fields)
    except Exception as error:  # a constructor, given fields of somebody else
        raise BaseModelError(
            f"the base model's schedule cannot be walked by the sampler {name} ({one_line(error)}): draw with auto"
        ) from error

"""Whether the Flax modules compute a base model: said from its JSON files, before anything expensive, without JAX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from components.common.errors import BaseModelError, InputError
from components.flax_models.model_config import read_text_config, read_unet_config, read_vae_config
from components.flax_models.samplers import load_sampler

CONFIG_FILES = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
)
"""What `check_model` reads of a model's folder."""


def check_model(model: Path, *, num_inference_steps: int, sampler: str = "auto") -> None:
    """Raises `BaseModelError`, with all that is not implemented, unless the model can be trained and drawn with.

    Args:
        model: a folder with `CONFIG_FILES` in it.
        num_inference_steps: denoising steps of a picture, which the schedule must have.
        sampler: what takes them, one of `drawing.SAMPLERS`.
    """
    checks: tuple[Callable[[], object], ...] = (
        lambda: load_sampler(model, sampler).steps(num_inference_steps),
        lambda: read_text_config(model / "text_encoder"),
        lambda: read_unet_config(model / "unet"),
        lambda: read_vae_config(model / "vae"),
    )
    problems = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise BaseModelError("; ".join(problems))

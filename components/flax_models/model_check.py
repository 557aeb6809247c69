"""Whether the Flax modules compute a base model: said from its JSON files, before anything expensive, without JAX."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from pathlib import Path

from components.common.errors import BaseModelError, InputError
from components.common.families import text_encoders_of
from components.flax_models.model_config import read_text_config, read_unet_config, read_vae_config
from components.flax_models.samplers import load_sampler


def config_files(parts: Collection[str]) -> tuple[str, ...]:
    """What `check_model` reads of the folder of a model that has these parts.

    Raises:
        BaseModelError: see `text_encoders_of`.
    """
    encoders = (f"{each.part}/config.json" for each in text_encoders_of(parts))
    return ("scheduler/scheduler_config.json", *encoders, "unet/config.json", "vae/config.json")


def check_model(model: Path, *, num_inference_steps: int, sampler: str = "auto") -> None:
    """Raises `BaseModelError`, with all that is not implemented, unless the model can be trained and drawn with.

    Args:
        model: a folder with `config_files` in it.
        num_inference_steps: denoising steps of a picture, which the schedule must have.
        sampler: what takes them, one of `drawing.SAMPLERS`.
    """
    text_encoders = text_encoders_of([part.name for part in model.iterdir()])
    checks: list[Callable[[], object]] = [
        lambda: load_sampler(model, sampler).steps(num_inference_steps),
        *(functools.partial(read_text_config, model / each.part, each.class_name) for each in text_encoders),
        lambda: read_unet_config(model / "unet"),
        lambda: read_vae_config(model / "vae"),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise BaseModelError("; ".join(problems))

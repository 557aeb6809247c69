"""What a run takes of a model, told from its listing and its few JSON files before a file of weights is read."""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError, ConfigError
from components.common.families import Family, TextEncoder, check_clip_skip, conditioning_layers, family_of
from components.common.sources.checks import read_json
from components.common.sources.models import ModelSource
from components.common.sources.selection import select_files
from components.common.training.config import TrainConfig

logger = logging.getLogger(__name__)

_FAR = 4 / 3
"""How many times as large or as small as a model's own pictures others have to be to be warned of."""

_FEW_STEPS = re.compile(r"turbo|lightning|hyper|lcm", re.IGNORECASE)
"""What models are called by that were distilled to a few steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """What a run takes of a model.

    Attributes:
        weights: bytes of all weights.
        text_encoders: those of a diffusion model.
    """

    weights: int
    text_encoders: tuple[TextEncoder, ...] = ()


def check_model_files(
    address: str,
    source: ModelSource,
    *,
    kind: str,
    variant: str = "",
    resolution: int = 0,
    training: TrainConfig | None = None,
) -> ModelFiles:
    """What a run takes of a model; the family of a diffusion model is told in the log.

    Args:
        address: where the model is, for messages.
        source: the model as it is now.
        kind: one of `MODEL_KINDS`.
        variant: such as `fp16`; empty for the plain weights.
        resolution: side of the pictures in pixels that a diffusion model is to learn from.
        training: how it is to learn from them.

    Raises:
        BaseModelError: naming everything for which it is no model of that kind, or cannot learn from such pictures in
            such a way.
        StorageError: when its files cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:

        def read(name: str) -> Any:
            return read_json(source.fetch(name, Path(scratch)), f"{address}/{name}")

        selected = select_files(address, source.files, kind=kind, variant=variant, read_json=read)
        weights = sum(source.files[name].size for name in selected.values() if name.endswith(".safetensors"))
        if kind != "diffusion":
            return ModelFiles(weights=weights)
        unet, vae = (read(selected[f"{part}/config.json"]) for part in ("unet", "vae"))
        family = family_of({name.partition("/")[0] for name in selected}, unet)
        problems = [*_resolution_problems(vae, resolution)]
        if training:
            texts = {each.part: read(selected[f"{each.part}/config.json"]) for each in family.text_encoders}
            layers = conditioning_layers(family.text_encoders, texts)
            scheduler = read(selected["scheduler/scheduler_config.json"])
            problems += _training_problems(training, layers, scheduler)
        if problems:
            raise BaseModelError(*problems)
        logger.info("base_model: %s", family.title)
        if _FEW_STEPS.search(address.rstrip("/").rpartition("/")[2]):
            logger.warning(
                "base_model: %s is by its name distilled to a few steps, while words are learned at all timesteps and "
                "samples drawn with guidance: choose the model that it was made from, and use the word with either",
                address,
            )
        _tell_of_resolution(family, unet, vae, resolution)
        return ModelFiles(weights=weights, text_encoders=family.text_encoders)


def _resolution_problems(vae: dict[str, Any], resolution: int) -> Iterable[str]:
    if resolution % (factor := _shrinks_by(vae)):
        yield f"resolution: found {resolution}, expected a multiple of {factor}: so much the VAE shrinks pictures"


def _shrinks_by(vae: dict[str, Any]) -> int:
    levels = vae.get("block_out_channels")
    return 2 ** (len(levels) - 1) if isinstance(levels, list) and levels else 1


def _tell_of_resolution(family: Family, unet: dict[str, Any], vae: dict[str, Any], resolution: int) -> None:
    latents = unet.get("sample_size")
    usual = latents * _shrinks_by(vae) if isinstance(latents, int) else family.usual_resolution
    if resolution * _FAR < usual:
        expected = "from smaller ones it learns less, and the word may look blurred or cut off in samples"
    elif resolution > usual * _FAR:
        expected = "larger ones make every step slower, and it knows little of how they look as a whole"
    else:
        return
    logger.warning(
        "resolution: found %d, while the base model (%s) draws pictures of %d pixels: %s; %d suits it",
        *(resolution, family.title, usual, expected, usual),
    )


def _training_problems(training: TrainConfig, layers: int, scheduler: dict[str, Any]) -> Iterable[str]:
    """What a training asks of a model that does not have it; the numbers are the libraries' where a file has none.

    Args:
        training: how it is to learn.
        layers: the model's `conditioning_layers`.
        scheduler: the content of its configuration.
    """
    for check in (
        lambda: check_clip_skip(training.clip_skip, layers),
        lambda: training.timesteps(scheduler.get("num_train_timesteps", 1000)),
    ):
        try:
            check()
        except ConfigError as error:
            yield from error.mistakes

"""What a run takes of a model, told from its listing and its few JSON files before a file of weights is read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError, ConfigError
from components.common.families import family_of
from components.common.sources.checks import read_json
from components.common.sources.models import ModelSource
from components.common.sources.selection import select_files
from components.common.training.config import TrainConfig


def check_model_files(
    address: str,
    source: ModelSource,
    *,
    kind: str,
    variant: str = "",
    resolution: int = 0,
    training: TrainConfig | None = None,
) -> int:
    """The size in bytes of the weights that a run takes of a model.

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
        if kind == "diffusion":
            vae = read(selected["vae/config.json"])
            family_of({name.partition("/")[0] for name in selected}, read(selected["unet/config.json"]))
            problems = [*_resolution_problems(vae, resolution)]
            if training:
                text_encoder, scheduler = "text_encoder/config.json", "scheduler/scheduler_config.json"
                problems += _training_problems(training, read(selected[text_encoder]), read(selected[scheduler]))
            if problems:
                raise BaseModelError(*problems)
    weights = [name for name in selected.values() if name.endswith(".safetensors")]
    return sum(source.files[name].size for name in weights)


def _resolution_problems(vae: dict[str, Any], resolution: int) -> Iterable[str]:
    levels = vae.get("block_out_channels")
    factor = 2 ** (len(levels) - 1) if isinstance(levels, list) and levels else 1
    if resolution % factor:
        yield f"resolution: found {resolution}, expected a multiple of {factor}: so much the VAE shrinks pictures"


def _training_problems(training: TrainConfig, text_encoder: dict[str, Any], scheduler: dict[str, Any]) -> Iterable[str]:
    """What a training asks of a model that does not have it; the numbers are the libraries' where a file has none."""
    for check in (
        lambda: training.check_clip_skip(text_encoder.get("num_hidden_layers", 12)),
        lambda: training.timesteps(scheduler.get("num_train_timesteps", 1000)),
    ):
        try:
            check()
        except ConfigError as error:
            yield from error.mistakes

"""What a run takes of a model, told from its listing and its few JSON files before a file of weights is read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from components.common.errors import BaseModelError
from components.common.sources.checks import read_json
from components.common.sources.models import ModelSource
from components.common.sources.selection import select_files
from components.common.training.run_artifacts import text_encoder_problem


def check_model_files(address: str, source: ModelSource, *, kind: str, variant: str = "", resolution: int = 0) -> int:
    """The size in bytes of the weights that a run takes of a model.

    Args:
        address: where the model is, for messages.
        source: the model as it is now.
        kind: `diffusion` or `clip`.
        variant: such as `fp16`; empty for the plain weights.
        resolution: side of the pictures in pixels that a diffusion model is to learn from.

    Raises:
        BaseModelError: naming everything for which it is no model of that kind, or cannot learn from such pictures.
        StorageError: when its files cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:

        def read(name: str) -> Any:
            return read_json(source.fetch(name, Path(scratch)), f"{address}/{name}")

        selected = select_files(address, source.files, kind=kind, variant=variant, read_json=read)
        if kind == "diffusion":
            vae = read(selected["vae/config.json"])
            encoders = {name.partition("/")[0] for name in selected if name.startswith("text_encoder")}
            if problem := text_encoder_problem(encoders):
                raise BaseModelError(problem)
            if problem := _resolution_problem(vae, resolution):
                raise BaseModelError(problem)
    weights = [name for name in selected.values() if name.endswith(".safetensors")]
    return sum(source.files[name].size for name in weights)


def _resolution_problem(vae: dict[str, Any], resolution: int) -> str:
    levels = vae.get("block_out_channels")
    factor = 2 ** (len(levels) - 1) if isinstance(levels, list) and levels else 1
    if resolution % factor:
        return f"resolution: found {resolution}, expected a multiple of {factor}: so much the VAE shrinks pictures"
    return ""

"""Whether JAX can train and draw with a base model, told from the few JSON files that say what it is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from components.common.errors import BaseModelError
from components.common.sources.models import ModelSource
from components.flax_models.model_check import check_model, config_files


def check_that_flax_computes(
    address: str, source: ModelSource, *, accelerator: str, num_inference_steps: int, sampler: str
) -> None:
    """Returns when the Flax modules compute all of a base model.

    Args:
        address: where the model is, for messages.
        source: the model as it is now.
        accelerator: where it is to be trained, for messages.
        num_inference_steps: denoising steps of the evaluation's pictures.
        sampler: what draws them, one of `drawing.SAMPLERS`.

    Raises:
        BaseModelError: naming everything that they do not compute.
        StorageError: when the files cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        for name in config_files({name.partition("/")[0] for name in source.files}):
            (model / name).parent.mkdir(parents=True)
            shutil.copyfile(source.fetch(name, Path(scratch) / "fetched"), model / name)
        try:
            check_model(model, num_inference_steps=num_inference_steps, sampler=sampler)
        except BaseModelError as error:
            told = str(error).replace(str(model), address.rstrip("/"))
            raise BaseModelError(f"with Flax on accelerator {accelerator}: {told}") from error

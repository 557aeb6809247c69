"""Whether a base model can be trained on TPUs, told from the few JSON files that say what it is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from components.common.errors import BaseModelError
from components.common.sources.models import open_source
from components.flax_models.model_check import CONFIG_FILES, check_model


def check_that_flax_computes(address: str, *, num_inference_steps: int) -> str:
    """The model's revision, when the Flax modules compute all of it.

    Args:
        address: the base model: `hf://`, `gs://`, `s3://` or a folder.
        num_inference_steps: denoising steps of the evaluation's pictures.

    Raises:
        BaseModelError: naming everything that they do not compute.
        StorageError: when the files cannot be read.
    """
    source = open_source(address)
    if missing := [name for name in CONFIG_FILES if name not in source.files]:
        raise BaseModelError(
            f"{address} lacks {', '.join(missing)}, expected a Stable Diffusion model in the folders of diffusers"
        )
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        for name in CONFIG_FILES:
            (model / name).parent.mkdir(parents=True)
            shutil.copyfile(source.fetch(name, Path(scratch) / "fetched"), model / name)
        try:
            check_model(model, num_inference_steps=num_inference_steps)
        except BaseModelError as error:
            told = str(error).replace(str(model), address.rstrip("/"))
            raise BaseModelError(f"accelerator tpu: {told}") from error
    return source.revision

"""Unit embeddings of pictures by a DINO (arXiv 2104.14294) or DINOv2 (arXiv 2304.07193) model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BitImageProcessorPil, Dinov2Model, ViTImageProcessorPil, ViTModel

from components.common.errors import BaseModelError
from components.common.sources.checks import read_object
from components.common.storage.retries import one_line
from components.torch_models.loading import load_module
from components.torch_models.unit_vectors import unit_vectors

logger = logging.getLogger(__name__)

_BATCH = 32

_KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dinov2": (Dinov2Model, BitImageProcessorPil, {}),
    # DINO was trained without the layer that pools for classifiers.
    "vit": (ViTModel, ViTImageProcessorPil, {"add_pooling_layer": False}),
}
"""The model, the preparation of pictures in Pillow, and what the model is told, by the `model_type` of config.json."""


class DinoScorer:
    """A DINO or DINOv2 model with its own picture preparation, always in float32."""

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        """Loads the folder of a `Dinov2Model`, or of a `ViTModel` that DINO trained.

        Raises:
            BaseModelError: when a file is missing or is of another model, or weights are not all there, as of
                `load_module`.
        """
        try:
            name = read_object(folder / "config.json").get("model_type")
            if name not in _KINDS:
                raise BaseModelError(f"config.json is of a {name!r}, expected {' or '.join(_KINDS)}")
            kind, processor, told = _KINDS[name]
            self._model: Any = load_module(kind, folder, dtype=torch.float32, **told).to(device)
            self._processor = processor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the processor's constructor raises whatever it runs into
            found = error if isinstance(error, BaseModelError) else one_line(error)
            raise BaseModelError(
                f"{folder} is no folder of a DINO model with image processor ({found}): import it again, from a "
                "repository such as facebook/dinov2-base"
            ) from error
        self._device, self._folder = device, folder
        logger.info("loaded DINO from %s", folder)

    def embed_pictures(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Unit embeddings, float32 [n, d], of n pictures, uint8 [H, W, 3] each and of any sizes: of the class token.

        Raises:
            BaseModelError: when one is not finite, as of `unit_vectors`.
        """
        found = []
        for start in range(0, len(pictures), _BATCH):
            batch = [Image.fromarray(picture) for picture in pictures[start : start + _BATCH]]
            pixels = self._processor(images=batch, return_tensors="pt").pixel_values.to(self._device)
            with torch.inference_mode():
                found.append(unit_vectors(self._model(pixel_values=pixels).last_hidden_state[:, 0], self._folder))
        return np.concatenate(found)

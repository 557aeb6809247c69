"""Unit embeddings of pictures and texts in the shared space of a CLIP model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel

from components.common.errors import BaseModelError
from components.common.storage.retries import one_line
from components.common.vocabulary import load_tokenizer
from components.torch_models.loading import load_module
from components.torch_models.unit_vectors import unit_vectors

logger = logging.getLogger(__name__)

_BATCH = 32
_TEXTS_AT_ONCE = 256


class ClipScorer:
    """A CLIP model (arXiv 2103.00020) with its own tokenizer and picture preparation, always in float32."""

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        """Loads the folder of a `CLIPModel`.

        Raises:
            BaseModelError: when a file is missing or is of another model, or weights are not all there, as of
                `load_module`.
        """
        try:
            model = load_module(CLIPModel, folder, dtype=torch.float32)
            self._tokenizer = load_tokenizer(folder)
            # The preparation in Pillow: the other one needs torchvision, and resizes a little differently.
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the processor's constructor raises whatever it runs into
            told = error if isinstance(error, BaseModelError) else one_line(error)
            raise BaseModelError(
                f"{folder} is no folder of a CLIP model with tokenizer and image processor ({told}): "
                "import the scorer again, from a repository such as openai/clip-vit-large-patch14"
            ) from error
        self._model = model.to(device)
        self._device, self._folder = device, folder
        text_config: Any = model.config.text_config
        self._max_tokens = min(self._tokenizer.model_max_length, text_config.max_position_embeddings)
        logger.info("loaded the scorer from %s", folder)

    def embed_pictures(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Unit embeddings, float32 [n, d], of n pictures, uint8 [H, W, 3] each and of any sizes.

        Raises:
            BaseModelError: when one is not finite, as of `embed_texts`.
        """
        found = []
        for start in range(0, len(pictures), _BATCH):
            batch = [Image.fromarray(picture) for picture in pictures[start : start + _BATCH]]
            pixels = self._processor(images=batch, return_tensors="pt").pixel_values.to(self._device)
            with torch.inference_mode():
                pooled = self._model.vision_model(pixel_values=pixels).pooler_output
                found.append(unit_vectors(self._model.visual_projection(pooled), self._folder))
        return np.concatenate(found)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit embeddings, float32 [n, d], of n texts, each cut off at the model's number of tokens.

        Raises:
            BaseModelError: when one is not finite, as of `unit_vectors`.
        """
        found = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = self._tokenizer(
                list(texts[start : start + _TEXTS_AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                pooled = self._model.text_model(
                    input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
                ).pooler_output
                found.append(unit_vectors(self._model.text_projection(pooled), self._folder))
        return np.concatenate(found)

"""Which pictures the safety checker of a Stable Diffusion model objects to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessorPil

from components.common.errors import BaseModelError
from components.common.storage.retries import one_line
from components.torch_models.loading import load_module

logger = logging.getLogger(__name__)

_BATCH = 32


class SafetyChecker:
    """A `StableDiffusionSafetyChecker` with its feature extractor, in float32."""

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        """Loads the folders `safety_checker` and `feature_extractor` below `folder`.

        Raises:
            BaseModelError: when a file is missing or is of another model, or weights are not all there, as of
                `load_module`.
        """
        try:
            checker = load_module(StableDiffusionSafetyChecker, folder / "safety_checker", dtype=torch.float32)
            self._processor = CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor", local_files_only=True)
        except Exception as error:  # the processor's constructor raises whatever it runs into
            told = error if isinstance(error, BaseModelError) else one_line(error)
            raise BaseModelError(
                f"{folder} has no safety checker that can be loaded ({told}): evaluate with safety_checker off, or "
                "choose a base model that brings one"
            ) from error
        self._checker, self._device = checker.to(device), device

    def objects_to(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Whether it objects to each of n pictures (uint8 [H, W, 3]), bool [n]; the pictures stay as they are."""
        found: list[bool] = []
        for start in range(0, len(pictures), _BATCH):
            batch = [Image.fromarray(picture) for picture in pictures[start : start + _BATCH]]
            pixels = self._processor(images=batch, return_tensors="pt").pixel_values.to(self._device)
            # It blackens what it is given as pictures: here it is given nothing of ours.
            found += self._checker(clip_input=pixels, images=np.zeros((len(batch), 1)))[1]
        return np.array(found, bool)

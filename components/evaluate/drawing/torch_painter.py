"""Pictures and errors by PyTorch and diffusers, with the scheduler that the base model names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from components.common.artifacts import Rows, read_clip_skip
from components.common.logs import versions
from components.evaluate.config import EvaluateOptions
from components.evaluate.scoring.health import Vocabulary
from components.torch_models.denoising_loss import held_out_loss
from components.torch_models.loading import describe_device
from components.torch_models.sampling import (
    TOKENIZERS,
    SamplingConfig,
    load_concept,
    load_pipeline,
    sample,
    write_rows,
)

logger = logging.getLogger(__name__)


class TorchPainter:
    """A `Painter`: float32 on CPUs, float16 on GPUs."""

    def __init__(self, model: Path, *, device: torch.device) -> None:
        """Loads a local diffusers folder.

        Raises:
            BaseModelError: when a part is missing or cannot be loaded.
        """
        self._device = device
        logger.info("%s on %s", versions(["torch", "diffusers", "transformers"]), describe_device(device))
        dtype = torch.float32 if device.type == "cpu" else torch.float16
        self._pipeline = load_pipeline(model, device=device, dtype=dtype)
        self._tokens, self._clip_skip = tuple[str, ...](), 0

    @property
    def settings(self) -> Mapping[str, str]:
        """See `Painter`."""
        return {
            "framework": "torch",
            "devices": describe_device(self._device),
            "scheduler": type(self._pipeline.scheduler).__name__,
            "precision": str(self._pipeline.unet.dtype).removeprefix("torch."),
        }

    def vocabulary(self, encoder: str) -> Vocabulary:
        """See `Painter`."""
        table = getattr(self._pipeline, encoder).get_input_embeddings().weight.float().cpu().numpy()
        tokenizer = getattr(self._pipeline, TOKENIZERS[encoder])
        size = min(len(tokenizer), len(table))
        return Vocabulary(tokens=tokenizer.convert_ids_to_tokens(list(range(size))), table=table[:size].copy())

    def load_concept(self, file: Path) -> None:
        """See `Painter`; the concept enters as its users load it."""
        self._tokens, self._clip_skip = load_concept(self._pipeline, file), read_clip_skip(file)

    def write_rows(self, rows: Rows) -> None:
        """See `Painter`."""
        write_rows(self._pipeline, self._tokens, rows)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], config: EvaluateOptions, *, label: str
    ) -> list[np.ndarray]:
        """See `Painter`."""
        sampling = SamplingConfig(
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.sampling_batch_size,
            clip_skip=self._clip_skip,
        )
        return sample(self._pipeline, prompts, seeds, sampling, negative_prompt=config.negative_prompt, label=label)

    def held_out_loss(self, pictures: Sequence[np.ndarray], prompt: str) -> float:
        """See `Painter`."""
        return held_out_loss(self._pipeline, pictures, prompt, clip_skip=self._clip_skip)

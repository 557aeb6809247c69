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
    drawing_dtype,
    load_concept,
    load_pipeline,
    sample,
    write_rows,
)

logger = logging.getLogger(__name__)


class TorchPainter:
    """A `Painter`."""

    def __init__(self, model: Path, *, device: torch.device, sampler: str = "auto", precision: str = "auto") -> None:
        """Loads a local diffusers folder.

        Args:
            model: the folder.
            device: where it draws.
            sampler: one of `drawing.SAMPLERS`.
            precision: one of `drawing.PRECISIONS`; `auto` is float32 on CPUs and float16 on GPUs.

        Raises:
            BaseModelError: when a part is missing or cannot be loaded.
        """
        self._model, self._device, self._sampler = model, device, sampler
        logger.info("%s on %s", versions(["torch", "diffusers", "transformers"]), describe_device(device))
        self._load(drawing_dtype(precision, device))

    def _load(self, dtype: torch.dtype) -> None:
        self._pipeline = load_pipeline(self._model, device=self._device, dtype=dtype, sampler=self._sampler)
        self._tokens, self._clip_skip = tuple[str, ...](), 0

    def widen(self) -> bool:
        """See `Painter`."""
        if self._pipeline.unet.dtype == torch.float32:
            return False
        del self._pipeline  # two of them may not fit into memory
        self._load(torch.float32)
        return True

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

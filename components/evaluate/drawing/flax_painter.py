"""Pictures and errors by JAX and Flax on all devices of a process, from the noise that PyTorch would begin with."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jax.sharding import Mesh

from components.common.artifacts import Rows
from components.common.drawing import picture_bytes, progress_line
from components.common.logs import versions
from components.evaluate.config import EvaluateOptions
from components.evaluate.scoring.health import Vocabulary
from components.flax_models.denoising_loss import FlaxHeldOutLoss
from components.flax_models.devices import describe_devices
from components.flax_models.pipeline import FlaxPipeline
from components.flax_models.samplers import SCHEDULERS
from components.flax_models.sampling import FlaxSampler

logger = logging.getLogger(__name__)


class FlaxPainter:
    """A `Painter`."""

    def __init__(self, model: Path, *, mesh: Mesh, sampler: str = "auto", precision: str = "auto") -> None:
        """Loads a local diffusers folder.

        Args:
            model: the folder.
            mesh: the devices.
            sampler: one of `drawing.SAMPLERS`.
            precision: one of `drawing.PRECISIONS` but fp16; `auto` is bfloat16 on TPUs, float32 on what stands in for
                them.

        Raises:
            BaseModelError: when a part is missing or not implemented.
        """
        self._mesh, self._devices = mesh, describe_devices(mesh, "tpu")
        logger.info("%s on %s", versions(["jax", "flax", "transformers"]), self._devices)
        is_tpu = mesh.devices.flat[0].platform == "tpu"
        self._model, self._named_sampler = model, sampler
        self._load(is_narrow=precision == "bf16" or (precision == "auto" and is_tpu))

    def _load(self, *, is_narrow: bool) -> None:
        self._is_narrow, precision = is_narrow, "bf16" if is_narrow else "no"
        self._pipeline = FlaxPipeline(
            self._model, mesh=self._mesh, mixed_precision=precision, sampler=self._named_sampler
        )
        self._sampler, self._loss = FlaxSampler(self._pipeline), FlaxHeldOutLoss(self._pipeline)

    def widen(self) -> bool:
        """See `Painter`."""
        if not self._is_narrow:
            return False
        del self._pipeline, self._sampler, self._loss  # two of them may not fit into memory
        self._load(is_narrow=False)
        return True

    @property
    def settings(self) -> Mapping[str, str]:
        """See `Painter`."""
        return {
            "framework": "flax",
            "devices": self._devices,
            "scheduler": SCHEDULERS[type(self._pipeline.sampler)],
            "precision": "bfloat16" if self._is_narrow else "float32",
        }

    def vocabulary(self, encoder: str) -> Vocabulary:
        """See `Painter`."""
        tokens, table = self._pipeline.vocabulary(encoder)
        return Vocabulary(tokens=tokens, table=table)

    def load_concept(self, file: Path) -> None:
        """See `Painter`."""
        self._pipeline.load_concept(file)

    def write_rows(self, rows: Rows) -> None:
        """See `Painter`."""
        self._pipeline.write_rows(rows)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], config: EvaluateOptions, *, label: str
    ) -> list[np.ndarray]:
        """See `Painter`. As many are drawn at once as the configuration says, or a few more to use every device."""
        size = -(-config.sampling_batch_size // self._mesh.size) * self._mesh.size
        pictures: list[np.ndarray] = []
        started = time.monotonic()
        while len(pictures) < len(prompts):
            # The last batch is filled up with its last picture: another size would be compiled anew.
            chosen = np.minimum(np.arange(len(pictures), len(pictures) + size), len(prompts) - 1)
            drawn = self._sampler.sample(
                [prompts[index] for index in chosen],
                starting_noise([seeds[index] for index in chosen], self._pipeline.latents_shape),
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
                negative_prompt=config.negative_prompt,
            )
            pictures += [picture_bytes(picture) for picture in drawn[: len(prompts) - len(pictures)]]
            if label:
                logger.info("%s", progress_line(label, len(pictures), len(prompts), time.monotonic() - started))
        return pictures

    def held_out_loss(self, pictures: Sequence[np.ndarray], prompt: str) -> float:
        """See `Painter`."""
        return self._loss.measure(pictures, prompt)


def starting_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
    """Standard normal float32 [pictures, *shape]: what diffusers begins with in float32, each from its own seed."""
    return np.stack([torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)).numpy() for s in seeds])

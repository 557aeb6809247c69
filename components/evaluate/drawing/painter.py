"""What the evaluation asks of a framework: pictures and errors of one base model, with the rows that it is told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from components.common.artifacts import Rows
from components.common.training.config import FLAX_ACCELERATORS, check_accelerator
from components.evaluate.config import EvaluateOptions
from components.evaluate.scoring.health import Vocabulary


class Painter(Protocol):
    """A base model, and at most one concept."""

    @property
    def settings(self) -> Mapping[str, str]:
        """For the record: `framework`, `devices`, `scheduler` and `precision`."""

    def vocabulary(self, encoder: str) -> Vocabulary:
        """A text encoder's table without the concept."""

    def load_concept(self, file: Path) -> None:
        """Loads a learned-embedding file; from then on prompts may hold its placeholder.

        All prompts are then read without the last layers of the text encoder that the concept was learned without.
        """

    def write_rows(self, rows: Rows) -> None:
        """Puts other rows, float32 [n, d] by text encoder, under the concept's tokens."""

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], config: EvaluateOptions, *, label: str
    ) -> list[np.ndarray]:
        """One picture, uint8 [H, W, 3], for each prompt and its seed; progress lines begin with `label`, if any."""

    def widen(self) -> bool:
        """Loads the base model again to compute in float32, without the concept; False where it does already."""

    def held_out_loss(self, pictures: Sequence[np.ndarray], prompt: str) -> float:
        """The denoising loss over pictures (uint8 [H, W, 3] each, of one size), given `prompt`."""


def painter_for(accelerator: str, *, sampler: str = "auto", precision: str = "auto") -> Callable[[Path], Painter]:
    """What makes a painter of a local diffusers folder: in JAX on TPUs, in PyTorch on GPUs and CPUs.

    Args:
        accelerator: `cpu`, `gpu` or `tpu`.
        sampler: one of `drawing.SAMPLERS`.
        precision: one of `drawing.PRECISIONS`.

    Raises:
        ConfigError: when the accelerator is unknown or absent.
    """
    check_accelerator(accelerator, FLAX_ACCELERATORS)
    if accelerator == "tpu":
        from components.evaluate.drawing.flax_painter import FlaxPainter
        from components.flax_models.devices import mesh_for

        return functools.partial(FlaxPainter, mesh=mesh_for(accelerator), sampler=sampler, precision=precision)
    from components.evaluate.drawing.torch_painter import TorchPainter
    from components.torch_models.loading import device_for

    return functools.partial(TorchPainter, device=device_for(accelerator), sampler=sampler, precision=precision)

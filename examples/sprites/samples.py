"""Pictures drawn by a base model from captions, and sheets of pictures to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from examples.sprites.world import SIZE, Pictures

STEPS = 20
GUIDANCE = 2.5
_BATCH = 48


def load_pipeline(folder: Path) -> DiffusionPipeline:
    """A base model in fp32, without a progress bar."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_samples(
    pipeline: DiffusionPipeline, captions: Sequence[str], *, seed: int, **conditions: tuple[int, int]
) -> Pictures:
    """One sample uint8 ``(N, 32, 32, 3)`` of each caption: DDIM, 20 steps, guidance 2.5.

    Each has a noise of its own that follows from the seed and its position, so a longer list begins with the same.
    `conditions` are Stable Diffusion XL's `original_size`, `crops_coords_top_left` and `target_size`.
    """
    samples = []
    for start in range(0, len(captions), _BATCH):
        batch = list(captions[start : start + _BATCH])
        generators = [torch.Generator().manual_seed(seed * 100_000 + start + i) for i in range(len(batch))]
        images = pipeline(
            batch,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=SIZE,
            width=SIZE,
            generator=generators,
            output_type="np",
            **conditions,
        ).images
        samples.append((images * 255).round().astype(np.uint8))
    return np.concatenate(samples)


def sheet_of(pictures: Pictures, *, columns: int, scale: int = 1, gap: int = 1) -> Image.Image:
    """The pictures row by row on white."""
    size = SIZE * scale + gap
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * size + gap, columns * size + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (gap + size * step for step in divmod(index, columns))
        large = picture.repeat(scale, 0).repeat(scale, 1)
        sheet[top : top + SIZE * scale, left : left + SIZE * scale] = large
    return Image.fromarray(sheet)

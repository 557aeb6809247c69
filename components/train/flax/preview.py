"""Draws a preview with JAX and Flax: `python -m components.train.flax.preview`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from components.common.drawing import picture_bytes
from components.flax_models.devices import mesh_for
from components.flax_models.pipeline import FlaxPipeline
from components.flax_models.sampling import FlaxSampler
from components.train.preview import GUIDANCE_SCALE, INFERENCE_STEPS, PreviewConfig, run_preview


def draw(config: PreviewConfig) -> list[np.ndarray]:
    """The pictures, uint8 [H, W, 3]: float32 on CPUs, bfloat16 on GPUs; one at a time on each device."""
    precision = "no" if config.accelerator == "cpu" else "bf16"
    pipeline = FlaxPipeline(Path(config.model), mesh=mesh_for(config.accelerator), mixed_precision=precision)
    pipeline.load_concept(Path(config.concept))
    sampler, pictures = FlaxSampler(pipeline), list[np.ndarray]()
    for start in range(0, config.num_images, pipeline.mesh.size):
        seeds = config.seeds[start : start + pipeline.mesh.size]
        drawn = sampler.sample(
            [config.prompt] * len(seeds),
            np.stack([_starting_noise(seed, pipeline.latents_shape) for seed in seeds]),
            num_inference_steps=INFERENCE_STEPS,
            guidance_scale=GUIDANCE_SCALE,
        )
        pictures += map(picture_bytes, drawn)
    return pictures


def _starting_noise(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Standard normal float32 of the shape, drawn on the host; PyTorch, which is not here, would draw others."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)


if __name__ == "__main__":
    run_preview(draw)

"""Draws a preview with PyTorch and diffusers: `python -m components.train.torch.preview`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from components.common.artifacts import read_clip_skip
from components.torch_models.loading import device_for
from components.torch_models.sampling import SamplingConfig, load_concept, load_pipeline, sample
from components.train.preview import GUIDANCE_SCALE, INFERENCE_STEPS, PreviewConfig, run_preview


def draw(config: PreviewConfig) -> list[np.ndarray]:
    """The pictures, uint8 [H, W, 3]: float32 on CPUs, float16 on GPUs; one at a time, beside a training."""
    device = device_for(config.accelerator)
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    pipeline = load_pipeline(Path(config.model), device=device, dtype=dtype)
    load_concept(pipeline, Path(config.concept))
    sampling = SamplingConfig(
        num_inference_steps=INFERENCE_STEPS,
        guidance_scale=GUIDANCE_SCALE,
        batch_size=1,
        clip_skip=read_clip_skip(Path(config.concept)),
    )
    return sample(pipeline, [config.prompt] * config.num_images, list(config.seeds), sampling, label="")


if __name__ == "__main__":
    run_preview(draw)

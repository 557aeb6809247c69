"""The committed tiny world."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPModel, CLIPTokenizer

from examples.sprites.make import FOLDER
from examples.sprites.samples import load_pipeline


@pytest.fixture(scope="session")
def sprites() -> Path:
    """The folder of the tiny world."""
    return FOLDER


@pytest.fixture(scope="session")
def base_model(sprites: Path) -> StableDiffusionPipeline:
    """The committed base model, in fp32."""
    return load_pipeline(sprites / "base_model")


@pytest.fixture(scope="session")
def base_model_xl(sprites: Path) -> StableDiffusionXLPipeline:
    """The committed Stable Diffusion XL, in fp32."""
    return load_pipeline(sprites / "base_model_xl")


@pytest.fixture(scope="session")
def clip(sprites: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """The committed CLIP, in fp32, with its tokenizer."""
    model = CLIPModel.from_pretrained(sprites / "clip", dtype=torch.float32).eval()
    return model, CLIPTokenizer.from_pretrained(sprites / "clip")

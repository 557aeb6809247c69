"""A preview: pictures of the new word at some step, drawn by a process of its own that ends with the trainer."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from components.common.cli import add_config_flags, config_from_flags
from components.common.options import Config, option
from components.common.storage import open_store
from components.common.training.config import FLAX_ACCELERATORS

INFERENCE_STEPS = 25
"""Denoising steps of each picture, as in the reference script's `log_validation`."""
GUIDANCE_SCALE = 7.5
_NICENESS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreviewConfig(Config):
    """What is drawn, from what, and where it goes."""

    model: str = option("diffusers folder with the parts of the base model that draw")
    concept: str = option("learned-embedding file")
    accelerator: str = option("where to draw", choices=FLAX_ACCELERATORS)
    prompt: str = option("the prompt, with the placeholder in it", free_text=True)
    num_images: int = option("how many pictures", least=1)
    seed: int = option("seed of the first picture; the others have the next ones", least=0)
    folder: str = option("folder here that gets the pictures as 0.png, 1.png, ...")
    uri: str = option("where the pictures are kept: a folder or gs:// or s3:// address")

    @property
    def seeds(self) -> range:
        """The seed of each picture: the same at every step, so that the pictures can be compared."""
        return range(self.seed, self.seed + self.num_images)


def run_preview(draw: Callable[[PreviewConfig], Sequence[np.ndarray]]) -> None:
    """Parses the flags, draws with `draw`, which gives uint8 [H, W, 3] pictures, and writes them."""
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    os.nice(_NICENESS)  # where both run on a CPU, the training goes first
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_flags(parser, PreviewConfig)
    config = config_from_flags(PreviewConfig, parser.parse_args())
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(draw(config)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    open_store(config.uri).upload_folder(folder, "")


def _end_with_the_trainer() -> None:
    """Ends the process when its standard input does, which the trainer holds open for as long as it lives."""
    sys.stdin.read()
    os._exit(1)

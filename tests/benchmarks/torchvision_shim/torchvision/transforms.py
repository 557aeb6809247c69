"""The one transform that the reference script uses."""

from __future__ import annotations

import random

from PIL import Image


class RandomHorizontalFlip:
    """Mirrors a picture left to right with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        """Takes the probability."""
        self.p = p

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture, or its mirror image."""
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.p else picture

"""Runs the reference script, unmodified, where no torchvision fits the installed torch.

    python -m tests.benchmarks.without_torchvision textual_inversion.py --flag ...

The scripts need few transforms of torchvision; transformers and diffusers must go on without the rest, so they look for
torchvision before there is this stand-in.
"""

from __future__ import annotations

import random
import runpy
import sys
import types

import diffusers  # noqa: F401 - looks for torchvision now
from PIL import Image
from transformers.utils import is_torchvision_available


class RandomHorizontalFlip:
    """Mirrors a picture left to right with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        """Takes the probability."""
        self.p = p

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture, or its mirror image."""
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.p else picture


class RandomCrop:
    """Says where a part of a picture is cut out."""

    def __init__(self, side: int) -> None:
        """Takes the side of the part, which the script gives again with each picture."""

    @staticmethod
    def get_params(picture: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, height and width of a part of `size`, which is height and width."""
        height, width = size
        return random.randint(0, picture.height - height), random.randint(0, picture.width - width), height, width


def crop(picture: Image.Image, top: int, left: int, height: int, width: int) -> Image.Image:
    """That part of the picture."""
    return picture.crop((left, top, left + width, top + height))


def stand_in_for_torchvision() -> None:
    """Puts the transforms where scripts look for torchvision."""
    assert not is_torchvision_available()
    torchvision, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    functional = types.SimpleNamespace(crop=crop)
    vars(transforms).update(RandomHorizontalFlip=RandomHorizontalFlip, RandomCrop=RandomCrop, functional=functional)
    torchvision.transforms = transforms  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": torchvision, "torchvision.transforms": transforms}


def main() -> None:
    """Runs the script with the rest of the command line."""
    stand_in_for_torchvision()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()

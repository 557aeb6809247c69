"""The names of the container images: the one place from which components, pipelines and manifests take them.

`python -m components.common.images` lists the names, `python -m components.common.images NAME` gives its reference.
"""

from __future__ import annotations

import os
import sys

from components import __version__
from components.common.errors import ConfigError

IMAGE_NAMES = (
    "dataset",
    "tokenizer",
    "train-torch",
    "train-flax",
    "train-flax-gpu",
    "evaluate",
    "publish",
    "launcher",
)
"""One image for each folder of `containers/`, which says in `requirements.in` what the image is for."""

REGISTRY = os.environ.get("TEXTUAL_INVERSION_REGISTRY", "ghcr.io/textual-inversion-pipelines")
VERSION = os.environ.get("TEXTUAL_INVERSION_VERSION", __version__)
"""Registry and tag are read when a pipeline is compiled: `make compile REGISTRY=... VERSION=...`."""


def image(name: str) -> str:
    """The full reference `registry/name:version` of the container image `name`.

    Raises:
        ConfigError: when no such image is built.
    """
    if name not in IMAGE_NAMES:
        raise ConfigError(f"found container image {name!r}, expected one of {', '.join(IMAGE_NAMES)}")
    return f"{REGISTRY}/{name}:{VERSION}"


TRAINING_IMAGES = ("train-torch", "train-flax", "train-flax-gpu", "launcher")
"""What may run in the training step."""


def training_image(trained_by: str, accelerator: str = "") -> str:
    """The name of the training step's image: of a framework on an accelerator, or of what launches several `nodes`."""
    if trained_by == "flax":
        return "train-flax-gpu" if accelerator == "gpu" else "train-flax"
    return {"torch": "train-torch", "nodes": "launcher"}[trained_by]


if __name__ == "__main__":
    print("\n".join([image(name) for name in sys.argv[1:]] or IMAGE_NAMES))

"""What a run is about: where its inputs come from, where its results go, and on which hardware it runs."""

from __future__ import annotations

import dataclasses
import re

from components.common.errors import ConfigError
from components.common.training.config import check_accelerator

DESCRIPTIONS = {
    "storage_uri": "folder for everything that a run keeps beside its artifacts, gs://..., s3://... or a local one: "
    "base models, checkpoints and the registry",
    "images_uri": "the 3 to 5 pictures of the concept: hf://datasets/owner/name, gs://..., s3://... or a local folder",
    "scoring_images_uri": "pictures of the concept to score against; empty takes those of images_uri",
    "base_model": "the diffusers model to teach: hf://owner/name, hf://owner/name@revision, gs://..., s3://... "
    "or a local folder",
    "base_model_variant": "variant of the base model's weight files, such as fp16; empty takes the plain ones",
    "scorer": "the CLIP model that compares samples with pictures and prompts, as for base_model",
    "accelerator": "where latents are encoded, rows trained and samples drawn: cpu or gpu",
    "accelerator_resource": "Kubernetes resource of the accelerator",
    "accelerator_count": "accelerators of each of these steps, as text; 0 for cpu",
}

_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Sources, storage and hardware of a run. Field meanings are in `DESCRIPTIONS`.

    Raises:
        ConfigError: for a value that cannot be right, naming the field.
    """

    storage_uri: str
    images_uri: str = "hf://datasets/diffusers/cat_toy_example"
    scoring_images_uri: str = ""
    base_model: str = "hf://stable-diffusion-v1-5/stable-diffusion-v1-5"
    base_model_variant: str = ""
    scorer: str = "hf://openai/clip-vit-large-patch14"
    accelerator: str = "gpu"
    accelerator_resource: str = "nvidia.com/gpu"
    accelerator_count: str = "1"

    def __post_init__(self) -> None:
        for name in ("storage_uri", "images_uri", "base_model", "scorer"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name}: found nothing, expected {DESCRIPTIONS[name]}")
        check_accelerator(self.accelerator)
        if not self.accelerator_count.isdecimal():
            raise ConfigError(f"accelerator_count: found {self.accelerator_count!r}, expected a number such as 1")
        if (self.accelerator == "cpu") != (int(self.accelerator_count) == 0):
            raise ConfigError(
                f"accelerator_count: found {self.accelerator_count} with accelerator {self.accelerator}, "
                "expected 0 with cpu and 1 or more with gpu"
            )
        if not _RESOURCE.fullmatch(self.accelerator_resource):
            raise ConfigError(
                f"accelerator_resource: found {self.accelerator_resource!r}, expected a name such as nvidia.com/gpu"
            )

    @property
    def models_uri(self) -> str:
        """Where base models are kept, by what is in them."""
        return self._below("models")

    @property
    def checkpoints_uri(self) -> str:
        """Where training keeps its checkpoints, by what determines them."""
        return self._below("checkpoints")

    @property
    def registry_uri(self) -> str:
        """Where concepts are published."""
        return self._below("registry")

    def _below(self, name: str) -> str:
        return f"{self.storage_uri.rstrip('/')}/{name}"

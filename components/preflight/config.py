"""What a run is about: where its inputs come from, where its results go, and on which hardware it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from components.common.accelerators import RESOURCES, TPU_TOPOLOGY, TPU_TYPE, PodAccelerators
from components.common.errors import ConfigError
from components.common.training.config import FLAX_ACCELERATORS, check_accelerator

DESCRIPTIONS = {
    "storage_uri": "folder for everything that a run keeps beside its artifacts, gs://..., s3://... or a local one: "
    "base models, checkpoints and the registry",
    "images_uri": "the 3 to 5 pictures of the concept: hf://datasets/owner/name, gs://..., s3://... or a local folder",
    "scoring_images_uri": "pictures of the concept to score against; empty takes those of images_uri",
    "base_model": "the diffusers model to teach: hf://owner/name, hf://owner/name@revision, gs://..., s3://... "
    "or a local folder",
    "base_model_variant": "variant of the base model's weight files, such as fp16; empty takes the plain ones",
    "scorer": "the CLIP model that compares samples with pictures and prompts, as for base_model",
    "accelerator": "where rows are trained and samples drawn: cpu and gpu by PyTorch, tpu by JAX; pictures are encoded "
    "there too, but with tpu on a CPU",
    "accelerator_resource": "Kubernetes resource of the accelerator; empty takes " + " or ".join(RESOURCES.values()),
    "accelerator_count": "accelerators of each of these steps, as text; 0 for cpu; with tpu all chips of a node",
    "accelerator_node_selector": "labels of the nodes to use, as JSON; on Google Cloud tpu needs "
    f'{{"{TPU_TYPE}": "tpu-v5-lite-podslice", "{TPU_TOPOLOGY}": "2x2"}}',
    "accelerator_tolerations": "Kubernetes tolerations for those nodes, as JSON, beyond those for the accelerator "
    "itself and for spot nodes of Google Cloud",
}


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
    accelerator_resource: str = ""
    accelerator_count: str = "1"
    accelerator_node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    accelerator_tolerations: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        for name in ("storage_uri", "images_uri", "base_model", "scorer"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name}: found nothing, expected {DESCRIPTIONS[name]}")
        check_accelerator(self.accelerator, FLAX_ACCELERATORS)
        if not self.accelerator_count.isdecimal():
            raise ConfigError(f"accelerator_count: found {self.accelerator_count!r}, expected a number such as 1")
        self.pod.check_nodes(1)

    @property
    def pod(self) -> PodAccelerators:
        """What the pod of each of these steps asks for."""
        return PodAccelerators(
            kind=self.accelerator,
            count=self.accelerators,
            resource=self.accelerator_resource,
            node_selector=self.accelerator_node_selector,
            tolerations=self.accelerator_tolerations,
        )

    @property
    def accelerators(self) -> int:
        """How many accelerators each step gets."""
        return int(self.accelerator_count)

    @property
    def kubernetes_resource(self) -> str:
        """The Kubernetes resource of the accelerator; with cpu one that is asked for zero times."""
        return self.accelerator_resource or RESOURCES.get(self.accelerator, RESOURCES["gpu"])

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

"""What a run is about: where its inputs come from, where its results go, and on which hardware it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from components.common.accelerators import RESOURCES, TPU_TOPOLOGY, TPU_TYPE, PodAccelerators, check_node_selector
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
    "accelerator_count": "accelerators of each node that trains, as text; 0 for cpu; with tpu all chips of a node; "
    "pictures are encoded and samples drawn on one GPU, or on all chips of one node",
    "accelerator_node_selector": "labels of the nodes to use, as JSON; on Google Cloud tpu needs "
    f'{{"{TPU_TYPE}": "tpu-v5-lite-podslice", "{TPU_TOPOLOGY}": "2x2"}}',
    "accelerator_tolerations": "Kubernetes tolerations for those nodes, as JSON, beyond those for the accelerator "
    "itself and for spot nodes of Google Cloud",
    "evaluation_node_selector": "labels of the nodes to draw samples on, as JSON; empty takes those of training; with "
    "tpu and several nodes those of a slice of one node, for no pod gets one node of a larger slice",
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
    evaluation_node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("storage_uri", "images_uri", "base_model", "scorer"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name}: found nothing, expected {DESCRIPTIONS[name]}")
        check_accelerator(self.accelerator, FLAX_ACCELERATORS)
        if not self.accelerator_count.isdecimal():
            raise ConfigError(f"accelerator_count: found {self.accelerator_count!r}, expected a number such as 1")
        check_node_selector("evaluation_node_selector", self.evaluation_node_selector)
        self.evaluation_pod.check_nodes(1)  # as it is built from that of training, both are checked

    @property
    def training_pod(self) -> PodAccelerators:
        """What each pod asks for that trains."""
        return PodAccelerators(
            kind=self.accelerator,
            count=int(self.accelerator_count),
            resource=self.accelerator_resource,
            node_selector=self.accelerator_node_selector,
            tolerations=self.accelerator_tolerations,
        )

    @property
    def encoding_pod(self) -> PodAccelerators:
        """What the pod asks for that encodes the pictures: one GPU or none; so few are not worth the TPUs' time."""
        if self.accelerator == "tpu":
            return PodAccelerators(kind="cpu", count=0)
        return dataclasses.replace(self.training_pod, count=min(1, self.training_pod.count))

    @property
    def evaluation_pod(self) -> PodAccelerators:
        """What the pod asks for that draws samples: one GPU or none, or a whole TPU slice of one node."""
        selector = self.evaluation_node_selector or self.accelerator_node_selector
        pod = dataclasses.replace(self.training_pod, node_selector=selector)
        count = pod.chips_of_slice or pod.count if self.accelerator == "tpu" else min(1, pod.count)
        return dataclasses.replace(pod, count=count)

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

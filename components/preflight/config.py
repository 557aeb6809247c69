"""What a run is about: where its inputs come from, where its results go, and on which hardware it runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

from components.common import run_storage
from components.common.accelerators import (
    NODE_SELECTOR_MEANING,
    RESOURCE_MEANING,
    TOLERATIONS_MEANING,
    PodAccelerators,
)
from components.common.errors import ConfigError
from components.common.families import TITLES
from components.common.options import Config, option
from components.common.sources.selection import VARIANT
from components.common.training.config import FLAX_ACCELERATORS
from components.train.frameworks import AUTO, FRAMEWORK_CHOICES, FRAMEWORK_MEANING
from components.train.nodes.config import mistakes_of_quantity

ALWAYS, CHANGED = "always", "changed"

STORAGE_VARIABLE = "TEXTUAL_INVERSION_STORAGE_URI"
"""Environment variable of the steps that says where a namespace keeps what its runs share."""

_BY_SIZE = "in Kubernetes' notation; empty: by the model's size"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Config):
    """Sources, storage and hardware of a run."""

    title = "Sources, storage and hardware"

    storage_uri: str = option(
        "folder for everything that a run keeps beside its artifacts, gs://..., s3://... or a local one: base models, "
        "checkpoints and the registry; empty takes that of the namespace",
        "",
    )
    images_uri: str = option(
        "the 3 to 5 pictures of the concept: hf://datasets/owner/name, gs://..., s3://... or a local folder",
        "hf://datasets/diffusers/cat_toy_example",
    )
    scoring_images_uri: str = option("pictures of the concept to score against; empty takes those of images_uri", "")
    base_model: str = option(
        f"the diffusers model to teach, of {TITLES}: hf://owner/name, hf://owner/name@revision, gs://..., s3://... or "
        "a local folder",
        "hf://stable-diffusion-v1-5/stable-diffusion-v1-5",
    )
    base_model_variant: str = option(
        "variant of the base model's weight files, such as fp16; empty takes the plain ones", ""
    )
    scorer: str = option(
        "the CLIP model that compares samples with pictures and prompts, as for base_model",
        "hf://openai/clip-vit-large-patch14",
    )
    dino: str = option(
        "a DINO or DINOv2 model that compares samples with pictures beside the scorer, as for base_model, such as "
        "hf://facebook/dinov2-base; empty: none does",
        "",
    )
    retrain_if: str = option(
        "when a run trains: always; changed, if its pictures, its base model or an option that determines the rows "
        "differ from what the version was learned from that registry_alias points at: else it ends after its first "
        "step, and has succeeded",
        ALWAYS,
        choices=(ALWAYS, CHANGED),
    )
    accelerator: str = option(
        "where rows are trained and samples drawn; pictures are encoded there too, but with tpu on a CPU",
        "gpu",
        choices=FLAX_ACCELERATORS,
    )
    framework: str = option(FRAMEWORK_MEANING, AUTO, choices=FRAMEWORK_CHOICES)
    accelerator_resource: str = option(RESOURCE_MEANING, "")
    accelerator_count: int = option(
        "accelerators of each node that trains; of no effect with cpu; with tpu all chips of a node; pictures are "
        "encoded and samples drawn on one GPU, or on all chips of one node",
        1,
        least=0,
    )
    accelerator_node_selector: Mapping[str, str] = option(NODE_SELECTOR_MEANING, {})
    accelerator_tolerations: tuple[Mapping[str, Any], ...] = option(TOLERATIONS_MEANING, ())
    evaluation_node_selector: Mapping[str, str] = option(
        "labels of the nodes to draw samples on, as JSON; empty takes those of training; with tpu and several nodes "
        "those of a slice of one node, for no pod gets one node of a larger slice",
        {},
    )
    cpu_per_node: str = option(f"processors of each node that trains, such as 8, {_BY_SIZE}", "")
    memory_per_node: str = option(
        f"memory of each node that trains, such as 32Gi, {_BY_SIZE}; /dev/shm counts against it", ""
    )
    encoding_cpu: str = option(f"processors of the pod that encodes pictures, {_BY_SIZE}", "")
    encoding_memory: str = option(f"memory of the pod that encodes pictures, {_BY_SIZE}", "")
    evaluation_cpu: str = option(f"processors of the pod that draws and scores samples, {_BY_SIZE}", "")
    evaluation_memory: str = option(f"memory of the pod that draws and scores samples, {_BY_SIZE}", "")

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        if not self.storage:
            yield (
                "storage_uri: found nothing, expected gs://..., s3://... or a folder: set it, or for all runs of the "
                f"namespace {STORAGE_VARIABLE} in its config map textual-inversion-environment"
            )
        for name in ("images_uri", "base_model", "scorer"):
            if not getattr(self, name):
                yield f"{name}: found nothing, expected hf://..., gs://..., s3://... or a local folder"
        if not VARIANT.fullmatch(self.base_model_variant):
            yield f"base_model_variant: found {self.base_model_variant!r}, expected a word such as fp16, or nothing"
        for name in ("cpu_per_node", "encoding_cpu", "evaluation_cpu"):
            yield from self._mistakes_of_quantity(name)
        for name in ("memory_per_node", "encoding_memory", "evaluation_memory"):
            yield from self._mistakes_of_quantity(name)
        for name in ("accelerator_node_selector", "evaluation_node_selector"):
            try:
                dataclasses.replace(self.training_pod, node_selector=getattr(self, name))
            except ConfigError as error:
                yield str(error).replace("accelerator_node_selector", name)
        if self.evaluation_node_selector:
            try:
                self.evaluation_pod.check_nodes(1)
            except ConfigError as error:
                yield str(error)

    def _mistakes_of_quantity(self, name: str) -> Iterable[str]:
        return mistakes_of_quantity(name, getattr(self, name)) if getattr(self, name) else ()

    @property
    def storage(self) -> str:
        """Where the run keeps what it shares with others: `storage_uri`, or that of the namespace."""
        return self.storage_uri or os.environ.get(STORAGE_VARIABLE, "").strip()

    @property
    def training_pod(self) -> PodAccelerators:
        """What each pod asks for that trains."""
        return PodAccelerators(
            kind=self.accelerator,
            count=0 if self.accelerator == "cpu" else self.accelerator_count,
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
        return run_storage.models_uri(self.storage)

    @property
    def checkpoints_uri(self) -> str:
        """Where training keeps its checkpoints, by what determines them."""
        return run_storage.checkpoints_uri(self.storage)

    @property
    def registry_uri(self) -> str:
        """Where concepts are published."""
        return run_storage.registry_uri(self.storage)

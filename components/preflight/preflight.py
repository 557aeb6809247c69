"""The first step of a run: everything that would go wrong later and can be seen now."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from components.common.errors import InputError, StorageError, TextualInversionError
from components.common.sources.models import resolve_revision
from components.common.sources.picture_listing import fingerprint_images
from components.common.storage import open_store
from components.preflight.base_model_for_flax import check_that_flax_computes
from components.preflight.parameters import check_parameters

logger = logging.getLogger(__name__)

PROBE = "preflight-probe"
"""The object that is written to see whether the storage can be; it stays, so that nothing needs to be deleted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What the steps after this one are given.

    Attributes:
        images_fingerprint: names the state of the training pictures.
        scoring_images_fingerprint: names the state of the pictures to score against.
        base_model_fingerprint: names the state of the base model's source, a commit on the Hub.
        scorer_fingerprint: the same of the scorer's.
        models_uri: where base models are kept.
        checkpoints_uri: where checkpoints are kept.
        registry_uri: where concepts are published.
        accelerator_resource: the Kubernetes resource of the accelerator.
        encoding_accelerator: where pictures are encoded, `cpu` or `gpu`.
        encoding_accelerator_resource: the Kubernetes resource of that.
        encoding_accelerator_count: how many of it the pod asks for, as text.
        encoding_node_selector: labels of its node.
        evaluation_accelerator_count: how many accelerators the pod asks for that draws samples, as text.
        evaluation_node_selector: labels of its node.
    """

    images_fingerprint: str
    scoring_images_fingerprint: str
    base_model_fingerprint: str
    scorer_fingerprint: str
    models_uri: str
    checkpoints_uri: str
    registry_uri: str
    accelerator_resource: str
    encoding_accelerator: str
    encoding_accelerator_resource: str
    encoding_accelerator_count: str
    encoding_node_selector: Mapping[str, str]
    evaluation_accelerator_count: str
    evaluation_node_selector: Mapping[str, str]


def preflight(parameters: Mapping[str, Any]) -> Checked:
    """The state of every source and the addresses below `storage_uri`, when nothing stands in the run's way.

    Args:
        parameters: every parameter of the pipeline by its name.

    Raises:
        ConfigError: when a parameter cannot be right.
        InputError: when a source is not there or is nothing that can be used.
        StorageError: when a source cannot be read or the storage cannot be written.
    """
    run = check_parameters(parameters)
    logger.info("the values of %d parameters can be right", len(parameters))
    problems: list[TextualInversionError] = []

    def attempt(function: Callable[[str], str], address: str) -> str:
        try:
            return function(address)
        except (InputError, StorageError) as error:
            problems.append(error)
            return ""

    encoding, evaluation = run.encoding_pod, run.evaluation_pod
    checked = Checked(
        images_fingerprint=attempt(fingerprint_images, run.images_uri),
        scoring_images_fingerprint=attempt(fingerprint_images, run.scoring_images_uri or run.images_uri),
        base_model_fingerprint=attempt(resolve_revision, run.base_model),
        scorer_fingerprint=attempt(resolve_revision, run.scorer),
        models_uri=run.models_uri,
        checkpoints_uri=run.checkpoints_uri,
        registry_uri=run.registry_uri,
        accelerator_resource=run.training_pod.kubernetes_resource,
        encoding_accelerator=encoding.kind,
        encoding_accelerator_resource=encoding.kubernetes_resource,
        encoding_accelerator_count=str(encoding.count),
        encoding_node_selector=dict(encoding.node_selector),
        evaluation_accelerator_count=str(evaluation.count),
        evaluation_node_selector=dict(evaluation.node_selector),
    )
    attempt(_check_writable, run.storage_uri)
    if run.accelerator == "tpu" and checked.base_model_fingerprint:
        steps = parameters["evaluation_num_inference_steps"]
        attempt(functools.partial(check_that_flax_computes, num_inference_steps=steps), run.base_model)
    if problems:
        # One kind of error for all: the first one's, since that decides what a person looks at first.
        raise type(problems[0])("; ".join(dict.fromkeys(str(problem) for problem in problems)))
    logger.info("all sources are there and %s can be written", run.storage_uri)
    return checked


def _check_writable(storage_uri: str) -> str:
    store = open_store(storage_uri)
    store.write(PROBE, b"written by the preflight step\n")
    return store.uri

"""Whether an object is one that the API server would take: every field known, every value of its type."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pydantic
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from kubeflow_trainer_api import models

from tests.manifests.rendering import Object, as_text, pod_templates, title

KUBERNETES_VERSIONS = ("1.31", "1.37")
"""The oldest and the newest release that the manifests are checked against."""

TRAINER = {
    "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime,
    "ClusterTrainingRuntime": models.TrainerV1alpha1ClusterTrainingRuntime,
    "TrainJob": models.TrainerV1alpha1TrainJob,
}
"""The kinds of trainer.kubeflow.org/v1alpha1, as Kubeflow Trainer's own models."""

PIPELINES = {
    "Pipeline": {"displayName", "description", "tags"},
    "PipelineVersion": {
        "displayName",
        "description",
        "pipelineName",
        "pipelineSpec",
        "platformSpec",
        "versionName",
        "codeSourceURL",
        "pipelineSpecURI",
        "tags",
    },
}
"""The kinds of pipelines.kubeflow.org/v2beta1 and the fields of their specs."""

NAMES_ONLY = {
    ("external-secrets.io/v1", "ExternalSecret"),
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"),
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"),
}
"""Kinds that no installable package describes: that they have a name and a spec is all that is checked here."""


def problems(thing: Object) -> list[str]:
    """What is wrong with an object; nothing when the API server would take it."""
    name = title(thing)
    if not (thing.get("apiVersion") and thing.get("kind") and thing.get("metadata", {}).get("name")):
        return [f"{name}: lacks apiVersion, kind or metadata.name"]
    group, kind = thing["apiVersion"], thing["kind"]
    if group == "trainer.kubeflow.org/v1alpha1" and kind in TRAINER:
        found = [*_of_trainer(thing), *_of_pods(thing)]
    elif group == "pipelines.kubeflow.org/v2beta1" and kind in PIPELINES:
        found = _of_pipelines(thing)
    elif (group, kind) in NAMES_ONLY:
        found = [] if kind == "ResourceFlavor" or thing.get("spec") else ["lacks a spec"]
    else:
        found = _of_core(thing)
    return [f"{name}: {problem}" for problem in found]


def _of_core(thing: Object) -> list[str]:
    return list(_of_core_text(as_text(thing)))


@functools.cache
def _of_core_text(text: str) -> tuple[str, ...]:
    thing, found = json.loads(text), []
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"no schema: {error.message}")
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.absolute_path)
            found.append(f"{where}: {error.message} (Kubernetes {version})")
    return tuple(found)


def _of_trainer(thing: Object) -> list[str]:
    """The models refuse wrong types but drop unknown fields silently: what does not come back is a problem."""
    try:
        again = TRAINER[thing["kind"]].from_dict(thing).to_dict()
    except pydantic.ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return list(differences(thing, again))


def differences(given: Any, again: Any, path: str = "") -> Iterator[str]:
    """Where a value that went through a model is no longer what it was; fields that the model adds do not count."""
    if isinstance(given, dict) and isinstance(again, dict):
        for name, inner in given.items():
            where = f"{path}.{name}" if path else name
            if name in again:
                yield from differences(inner, again[name], where)
            else:
                yield f"{where}: no such field"
    elif isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for index, (one, other) in enumerate(zip(given, again, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif given != again:
        yield f"{path}: found {given!r}, which is read as {again!r}"


def _of_pods(thing: Object) -> list[str]:
    """Pods within kinds of one's own are still pods: each template is checked as Kubernetes' own kind PodTemplate."""
    found = []
    for path, template in pod_templates(thing):
        whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "template"}, "template": template}
        found += [f"{path}: {problem}" for problem in _of_core(whole)]
    return found


def _of_pipelines(thing: Object) -> list[str]:
    spec = thing.get("spec", {})
    found = [f"spec.{name}: no such field" for name in spec.keys() - PIPELINES[thing["kind"]]]
    if thing["kind"] == "PipelineVersion":
        found += _of_specification(spec.get("pipelineSpec", {}), spec.get("platformSpec", {}))
    return found


def _of_specification(pipeline: dict[str, Any], platform: dict[str, Any]) -> list[str]:
    """What KFP's own messages do not know of a compiled pipeline and of its platform section."""
    parsed = [(pipeline, pipeline_spec_pb2.PipelineSpec()), (platform, pipeline_spec_pb2.PlatformSpec())]
    executors = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    parsed += [(each, kubernetes_executor_config_pb2.KubernetesExecutorConfig()) for each in executors.values()]
    found = []
    for value, message in parsed:
        try:
            json_format.ParseDict(value, message)
        except json_format.ParseError as error:
            found.append(str(error))
    return found if pipeline else [*found, "lacks a pipelineSpec"]

"""The TrainJob that a training becomes: a pure function of what is to be trained, where, and by whom."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from components.common.accelerators import PodAccelerators
from components.common.artifact_addresses import is_remote
from components.common.artifact_folder import canonical_json, sha256_of
from components.common.errors import ConfigError
from components.common.storage.addresses import scheme_of
from components.train.command import ADDRESSES, TrainingCommand
from components.train.frameworks import FRAMEWORKS, framework_for
from components.train.nodes.config import LaunchConfig

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
"""The TrainJob's API; `runtimePatches` came with Kubeflow Trainer 2.2."""
NODE = "node"
"""The replicated job, and its container, that Kubeflow Trainer fills with the trainer."""

RUN_LABEL = "textual-inversion/run-id"
SPEC_ANNOTATION = "textual-inversion/spec-sha256"
_MANAGER = "textual-inversion/launcher"
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_NAME_LABELS = {"app.kubernetes.io/name": "textual-inversion", "app.kubernetes.io/component": "trainer"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """The pod that a TrainJob is deleted with: the step that launched it."""

    name: str
    uid: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Owner | None:
        """The pod that this process runs in, as Kubeflow Pipelines names it; None outside of a pipeline."""
        given = os.environ if environment is None else environment
        name, uid = given.get("KFP_POD_NAME"), given.get("KFP_POD_UID")
        return cls(name=name, uid=uid) if name and uid else None

    def reference(self) -> dict[str, Any]:
        """The owner reference that makes Kubernetes delete what it stands on when the pod is deleted."""
        return {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid}


def train_job(config: LaunchConfig, command: TrainingCommand, owner: Owner | None = None) -> dict[str, Any]:
    """The TrainJob that runs `command` on the nodes of `config`.

    The name is a digest of the run and of the address of the result: a step that is tried again finds its own TrainJob.

    Raises:
        ConfigError: when the values do not fit each other, or an artifact is where no other pod can find it.
    """
    check_addresses(command)
    spec = _spec(config, command)
    labels = {**_NAME_LABELS, **({_QUEUE_LABEL: config.queue} if config.queue else {})}
    digest = sha256_of(canonical_json({"labels": labels, "spec": spec}))
    metadata: dict[str, Any] = {
        "name": f"textual-inversion-{sha256_of(canonical_json([config.run_id, command.output]))[:16]}",
        "labels": {**labels, **_run_label(config)},
        "annotations": {SPEC_ANNOTATION: digest},
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner.reference()]
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TrainJob", "metadata": metadata, "spec": spec}


def check_addresses(command: TrainingCommand) -> None:
    """Raises `ConfigError` when an artifact or the checkpoints are in a folder of this machine.

    A `file://` address may be a volume that all pods have, and is left to whoever gave it.
    """
    for name in (*ADDRESSES, "checkpoint_root"):
        address = getattr(command, name)
        if not is_remote(address) and scheme_of(address) != "file":
            raise ConfigError(
                f"{name}: found the local folder {address!r}, expected an address in object storage: the pods of a "
                "TrainJob are on other machines"
            )


def _spec(config: LaunchConfig, command: TrainingCommand) -> dict[str, Any]:
    name = framework_for(command.framework, command.accelerator)
    framework, accelerators = FRAMEWORKS[name], config.pod_accelerators(name, command.accelerator)
    resources = {"cpu": config.cpu_per_node, "memory": config.memory_per_node, **accelerators.resources}
    trainer: dict[str, Any] = {
        "command": list(framework.command),
        "args": command.arguments(),
        "numNodes": config.num_nodes,
        "resourcesPerNode": {"requests": resources, "limits": resources},
    }
    if config.trainer_image:
        trainer["image"] = config.trainer_image
    if framework.process_per_device:
        trainer["numProcPerNode"] = config.processes_per_node or max(1, accelerators.count)
    return {
        "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": config.runtime or framework.runtime},
        "trainer": trainer,
        "runtimePatches": [{"manager": _MANAGER, "trainingRuntimeSpec": _patch(config, accelerators)}],
        "activeDeadlineSeconds": config.trainjob_timeout_seconds,
    }


def _patch(config: LaunchConfig, accelerators: PodAccelerators) -> dict[str, Any]:
    """What the pods have beyond their runtime: the run's label, nodes, shared memory, and a service account."""
    pod: dict[str, Any] = {"tolerations": accelerators.all_tolerations}
    if accelerators.node_selector:
        pod["nodeSelector"] = dict(accelerators.node_selector)
    if accelerators.shared_memory:
        pod["volumes"] = [{"name": "shm", **accelerators.shared_memory}]
        pod["containers"] = [{"name": NODE, "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}]
    if config.service_account:
        pod["serviceAccountName"] = config.service_account
    template = {"metadata": {"labels": _run_label(config)}, "spec": pod} if config.run_id else {"spec": pod}
    return {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": template}}}]}}}


def _run_label(config: LaunchConfig) -> dict[str, str]:
    return {RUN_LABEL: config.run_id} if config.run_id else {}

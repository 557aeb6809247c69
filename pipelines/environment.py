"""What a step's pod finds in its namespace: a user without rights, credentials, and the way to the world outside."""

from __future__ import annotations

from kfp import dsl, kubernetes

from components.preflight.config import STORAGE_VARIABLE
from components.publish.destinations.model_registry_client import TOKEN_VARIABLE

OBJECT_STORE_SECRET = "mlpipeline-minio-artifact"
"""The secret from which Kubeflow Pipelines itself takes the key of an S3 object store."""

OBJECT_STORE_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}

HUB_SECRET = "textual-inversion-hub-token"
"""Holds `HF_TOKEN`, for gated models and for publishing on the Hugging Face Hub."""

TRACKERS_SECRET = "textual-inversion-trackers"
"""Holds the keys of those who draw a training's curves elsewhere, of `TRACKERS_KEYS` those that are used."""

TRACKERS_KEYS = ("WANDB_API_KEY", "COMET_API_KEY")

MODEL_REGISTRY_SECRET = "textual-inversion-model-registry"
"""Holds the token of a Kubeflow Model Registry that asks for one."""

CONFIG_MAP = "textual-inversion-environment"
"""Holds environment variables, of `VARIABLES` those that the site needs."""

VARIABLES = (
    STORAGE_VARIABLE,
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_TELEMETRY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
)

CA_CONFIG_MAP = "textual-inversion-ca"
"""Holds the certificates that the site trusts, as files."""

CA_FOLDER = "/etc/textual-inversion/ca"


def in_namespace(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """The task as its pod fits into a namespace with Pod Security `restricted`, with what `manifests/` puts there.

    All of it is optional: where a secret or a config map is absent, the pod starts without. Kubeflow Pipelines itself
    sets the rest of what `restricted` asks for; the images' user is not root, which it cannot know.
    """
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.use_secret_as_env(task, OBJECT_STORE_SECRET, OBJECT_STORE_KEYS, optional=True)
    kubernetes.use_secret_as_env(task, HUB_SECRET, {"HF_TOKEN": "HF_TOKEN"}, optional=True)
    kubernetes.use_config_map_as_env(task, CONFIG_MAP, {name: name for name in VARIABLES}, optional=True)
    return kubernetes.use_config_map_as_volume(task, CA_CONFIG_MAP, CA_FOLDER, optional=True)


def with_tracker_keys(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """The task with the keys of the trackers, where the namespace has them."""
    return kubernetes.use_secret_as_env(task, TRACKERS_SECRET, {key: key for key in TRACKERS_KEYS}, optional=True)


def with_destination_keys(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """The task with the token of a Model Registry, where the namespace has one."""
    return kubernetes.use_secret_as_env(task, MODEL_REGISTRY_SECRET, {TOKEN_VARIABLE: TOKEN_VARIABLE}, optional=True)

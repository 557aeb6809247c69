"""What the component `pod-retries` makes of the configuration that Kubeflow Pipelines gives Argo Workflows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.manifests.rendering import MANIFESTS, find, render

KFP_KEEPS_FINISHED_WORKFLOWS = {
    "secondsAfterCompletion": 3600,
    "secondsAfterSuccess": 3600,
    "secondsAfterFailure": 3600,
}
"""`ttlStrategy` of Kubeflow Pipelines 2.17.0, manifests/kustomize/third-party/argo."""

KFP_LIMIT = "2"

KFP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "workflow-controller-configmap", "namespace": "kubeflow"},
    "data": {"executor": "imagePullPolicy: IfNotPresent\n", "workflowDefaults": "spec: {}\n"},
}
"""A configuration with a value that is replaced, and one that is not."""


@pytest.fixture
def patched(site: Path) -> dict[str, str]:
    """The data of the configuration where a kustomization has both it and the component."""
    folder = site / "kubeflow-pipelines"
    folder.mkdir(exist_ok=True)
    (folder / "kfp.yaml").write_text(yaml.safe_dump(KFP), encoding="utf-8")
    kustomization = {"resources": ["kfp.yaml"], "components": ["../components/pod-retries"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    [found] = find(render(folder), "ConfigMap", KFP["metadata"]["name"])
    return found["data"]


def test_other_configuration_stays(patched: dict[str, str]):
    assert patched["executor"] == KFP["data"]["executor"]
    assert set(patched) == set(KFP["data"])


def test_defaults_have_what_kubeflow_pipelines_has(patched: dict[str, str]):
    spec = yaml.safe_load(patched["workflowDefaults"])["spec"]
    assert set(spec) == {"ttlStrategy", "templateDefaults"}
    assert spec["ttlStrategy"] == KFP_KEEPS_FINISHED_WORKFLOWS
    assert spec["templateDefaults"]["retryStrategy"]["limit"] == KFP_LIMIT


def test_failed_pods_are_tried_again_and_failed_dags_are_not(patched: dict[str, str]):
    strategy = yaml.safe_load(patched["workflowDefaults"])["spec"]["templateDefaults"]["retryStrategy"]
    assert set(strategy) == {"limit", "retryPolicy", "expression"}
    assert strategy["retryPolicy"] == "Always", "of both failures and errors the expression decides"
    error, exit_code, message = strategy["expression"].split(" || ")
    assert error == 'lastRetry.status == "Error"'
    assert exit_code == "asInt(lastRetry.exitCode) > 0", "a DAG's is -1"
    assert message.startswith('lastRetry.message matches "')


def test_file_is_as_good_for_kubectl_patch():
    patch = yaml.safe_load((MANIFESTS / "components/pod-retries/workflow-defaults.yaml").read_text(encoding="utf-8"))
    assert set(patch) == {"apiVersion", "kind", "metadata", "data"} and set(patch["data"]) == {"workflowDefaults"}
    readme = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    assert "--patch-file manifests/components/pod-retries/workflow-defaults.yaml" in readme


def test_patch_of_the_api_server_says_the_same(patched: dict[str, str]):
    readme = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    [given] = re.findall(r"COMPILED_PIPELINE_SPEC_PATCH='([^']+)'", readme)
    defaults = yaml.safe_load(patched["workflowDefaults"])["spec"]["templateDefaults"]
    assert json.loads(given) == {"templateDefaults": defaults}

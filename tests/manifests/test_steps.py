"""Pipeline steps fit into the namespace that the manifests make, and find there what the manifests put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.preflight.preflight import preflight
from components.publish.destinations.model_registry_client import TOKEN_VARIABLE
from pipelines.backend_rules import requests_that_do_not_fit
from pipelines.compiling import COMPILED
from pipelines.environment import (
    CA_CONFIG_MAP,
    CA_FOLDER,
    CONFIG_MAP,
    HUB_SECRET,
    MODEL_REGISTRY_SECRET,
    OBJECT_STORE_KEYS,
    OBJECT_STORE_SECRET,
    TRACKERS_KEYS,
    TRACKERS_SECRET,
    VARIABLES,
)
from pipelines.presets import SPRITES_DEMO
from tests.manifests.rendering import MANIFESTS, Object, find, pod_templates, read_objects, render

TRACKED = {"exec-train"}
"""The steps that have the keys of trackers."""

REGISTERING = {"exec-publish"}
"""The steps that have the token of a Model Registry."""


@pytest.fixture(scope="module", params=sorted(file.name for file in COMPILED.glob("*.yaml")))
def pods(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """What each step of a compiled pipeline asks of its pod, by the name of its executor."""
    pipeline, platform = read_objects((COMPILED / request.param).read_text(encoding="utf-8"))
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    containers = {name for name, each in pipeline["deploymentSpec"]["executors"].items() if "container" in each}
    assert set(found) == containers, "a step was not told what its pod is to have: pipelines.resources.request"
    return found


def test_step_runs_as_somebody_else_than_root(pods: dict[str, dict[str, Any]]):
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"].get("runAsUser", 1000) != 0, name


def test_step_starts_where_nothing_was_put(pods: dict[str, dict[str, Any]]):
    kinds = ("secretAsEnv", "configMapAsEnv", "configMapAsVolume")
    for name, pod in pods.items():
        sources = [source for kind in kinds for source in pod[kind]]
        assert len(sources) == 4 + (name in TRACKED | REGISTERING) and all(
            source["optional"] is True for source in sources
        ), name


def test_step_has_the_variables_of_its_site(pods: dict[str, dict[str, Any]]):
    for name, pod in pods.items():
        secrets = {each["secretName"]: pairs(each, "secretKey") for each in pod["secretAsEnv"]}
        assert secrets == {
            OBJECT_STORE_SECRET: OBJECT_STORE_KEYS,
            HUB_SECRET: {"HF_TOKEN": "HF_TOKEN"},
            **({TRACKERS_SECRET: {key: key for key in TRACKERS_KEYS}} if name in TRACKED else {}),
            **({MODEL_REGISTRY_SECRET: {TOKEN_VARIABLE: TOKEN_VARIABLE}} if name in REGISTERING else {}),
        }, name
        [environment] = pod["configMapAsEnv"]
        assert environment["configMapName"] == CONFIG_MAP
        assert pairs(environment, "configMapKey") == {variable: variable for variable in VARIABLES}


def test_variable_of_the_manifests_reaches_the_steps(objects: list[Object]):
    [environment] = find(objects, "ConfigMap", CONFIG_MAP)
    assert set(environment["data"]) <= set(VARIABLES)


def test_certificates_are_where_the_variables_say(everything: list[Object], pods: dict[str, dict[str, Any]]):
    [environment] = find(everything, "ConfigMap", CONFIG_MAP)
    [certificates] = find(everything, "ConfigMap", CA_CONFIG_MAP)
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        folder, _, file = environment["data"][variable].rpartition("/")
        assert folder == CA_FOLDER and file in certificates["data"]
    for name, pod in pods.items():
        mounts = {each["configMapName"]: each["mountPath"] for each in pod["configMapAsVolume"]}
        assert mounts == {CA_CONFIG_MAP: CA_FOLDER}, name
    for runtime in find(everything, "TrainingRuntime"):
        [(_, template)] = pod_templates(runtime)
        volumes = {each["name"]: each["configMap"] for each in template["spec"]["volumes"] if "configMap" in each}
        mounted = {
            each["mountPath"]: volumes.get(each["name"]) for each in template["spec"]["containers"][0]["volumeMounts"]
        }
        assert mounted[CA_FOLDER] == {"name": CA_CONFIG_MAP, "optional": True}


@pytest.fixture(scope="module")
def asked() -> dict[str, dict[str, str]]:
    """Processors and memory of each step of every compiled pipeline, by the name of its executor."""
    pipelines = [read_objects(file.read_text(encoding="utf-8"))[0] for file in COMPILED.glob("*.yaml")]
    return {
        name: executor["container"].get("resources", {})
        for pipeline in pipelines
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
        if "container" in executor
    }


def test_step_says_all_that_the_quota_counts(gke: list[Object], asked: dict[str, dict[str, str]]):
    [quota] = find(gke, "ResourceQuota")
    counted = {name for name in quota["spec"]["hard"] if name.endswith((".cpu", ".memory"))}
    assert counted == {"requests.cpu", "limits.cpu", "requests.memory", "limits.memory"}
    for name, resources in asked.items():
        expected = {f"resource{what}{bound}" for what in ("Cpu", "Memory") for bound in ("Request", "Limit")}
        assert expected <= set(resources), f"{name}: the quota would refuse its pod"


def test_secrets_have_the_names_and_keys_that_steps_look_for(everything: list[Object]):
    [token] = find(everything, "Secret")
    assert (token["metadata"]["name"], set(token["data"])) == (HUB_SECRET, {"HF_TOKEN"})
    external = {
        each["spec"]["target"]["name"]: {entry["secretKey"] for entry in each["spec"]["data"]}
        for each in find(everything, "ExternalSecret")
    }
    assert external == {OBJECT_STORE_SECRET: set(OBJECT_STORE_KEYS), HUB_SECRET: {"HF_TOKEN"}}


def pairs(source: dict[str, Any], key: str) -> dict[str, str]:
    return {each[key]: each["envVar"] for each in source["keyToEnv"]}


@pytest.fixture(scope="module")
def largest_pod() -> tuple[float, float]:
    """Processors and GiB of memory of the largest pod that the small node of the overlay `dev` takes."""
    [settings] = find(render(MANIFESTS / "overlays" / "dev"), "ConfigMap", CONFIG_MAP)
    said = settings["metadata"]["annotations"]
    memory = said["textual-inversion/largest-pod-memory"]
    assert memory.endswith("Gi")
    return float(said["textual-inversion/largest-pod-cpu"]), float(memory.removesuffix("Gi"))


def test_every_request_fits_the_small_node_of_dev_when_the_model_is_small(
    largest_pod: tuple[float, float], tmp_path: Path
):
    cpu, memory = largest_pod
    documents = read_objects((COMPILED / "textual_inversion.yaml").read_text(encoding="utf-8"))
    assert requests_that_do_not_fit(documents, cpu=cpu, memory_gib=memory) == []
    checked = preflight({**SPRITES_DEMO, "storage_uri": str(tmp_path)})
    for pod in ("encoding", "training", "evaluation"):
        asked = getattr(checked, f"{pod}_cpu"), getattr(checked, f"{pod}_memory").removesuffix("Gi")
        assert float(asked[0]) <= cpu and float(asked[1]) <= memory, pod

"""What holds for every object of every overlay and component."""

from __future__ import annotations

from components.common.images import IMAGE_NAMES, image
from pipelines.environment import OBJECT_STORE_SECRET
from tests.manifests.pod_security import violations
from tests.manifests.rendering import Object, find, images, pod_templates, title, walk
from tests.manifests.schemas import problems

CLUSTER_WIDE = {"Namespace", "ClusterQueue", "ResourceFlavor"}
MADE_BY_OTHERS = {
    ("Secret", OBJECT_STORE_SECRET),
    ("ServiceAccount", "default-editor"),
    ("ServiceAccount", "pipeline-runner"),
}
"""What Kubeflow makes in a namespace of runs."""


def test_object_is_one_that_the_api_server_takes(objects: list[Object]):
    assert [problem for each in objects for problem in problems(each)] == []


def test_pod_fits_pod_security_restricted(objects: list[Object]):
    templates = [(title(each), path, template) for each in objects for path, template in pod_templates(each)]
    kinds = {"TrainingRuntime", "CronJob"} & {each["kind"] for each in objects}
    assert {name.partition("/")[0] for name, _, _ in templates} == kinds, "pods were not found"
    for name, path, template in templates:
        assert violations(template) == [], f"{name}: {path}"


def test_pod_has_no_more_than_it_needs(objects: list[Object]):
    for each in objects:
        for path, template in pod_templates(each):
            pod = template["spec"]
            assert pod["automountServiceAccountToken"] is False, path
            assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false", path
            writable = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
            for container in pod["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True, path
                mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
                needed = ["/tmp", "/dev/shm"] if each["kind"] == "TrainingRuntime" else ["/tmp"]
                assert {mounts[folder]["name"] for folder in needed} <= writable, path
                for kind in ("requests", "limits"):
                    assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind]), path


def test_image_is_of_this_release(objects: list[Object]):
    found = {reference for each in objects for _, reference in images(each)}
    if find(objects, "TrainingRuntime"):
        assert {image("train-torch"), image("train-flax")} <= found
    assert found <= {image(name) for name in IMAGE_NAMES}


def test_object_is_in_the_namespace(objects: list[Object]):
    [namespace] = {each["metadata"]["namespace"] for each in find(objects, "ServiceAccount")}
    for each in objects:
        expected = None if each["kind"] in CLUSTER_WIDE else namespace
        assert each["metadata"].get("namespace") == expected, title(each)
    for binding in find(objects, "RoleBinding"):
        assert {subject["namespace"] for subject in binding["subjects"]} == {namespace}, title(binding)


def test_object_has_the_label_that_it_is_found_by(objects: list[Object]):
    for each in objects:
        labels = each["metadata"].get("labels", {})
        made_for = "app.kubernetes.io/name"
        assert labels.get(made_for) == "textual-inversion", title(each)


def test_what_an_object_names_is_there(objects: list[Object]):
    there = {(each["kind"], each["metadata"]["name"]) for each in objects} | MADE_BY_OTHERS
    for each in objects:
        missing = [f"{kind}/{name}" for kind, name in references(each) if (kind, name) not in there]
        assert missing == [], title(each)


def references(thing: Object) -> set[tuple[str, str]]:
    """Every object that must be there for this one to work, as kind and name."""
    found = set()
    if thing["kind"] == "RoleBinding":
        found |= {(each["kind"], each["name"]) for each in [thing["roleRef"], *thing["subjects"]]}
    if thing["kind"] == "LocalQueue":
        found.add(("ClusterQueue", thing["spec"]["clusterQueue"]))
    if thing["kind"] == "ClusterQueue":
        groups = thing["spec"]["resourceGroups"]
        found |= {("ResourceFlavor", flavor["name"]) for group in groups for flavor in group["flavors"]}
    if thing["kind"] == "PipelineVersion":
        found.add(("Pipeline", thing["spec"]["pipelineName"]))
    for _, template in pod_templates(thing):
        found.add(("ServiceAccount", template["spec"]["serviceAccountName"]))
        for path, value in walk(template):
            if not isinstance(value, dict) or value.get("optional"):
                continue
            if path.endswith(("configMapRef", "configMapKeyRef", ".configMap")):
                found.add(("ConfigMap", value["name"]))
            if path.endswith(("secretRef", "secretKeyRef")):
                found.add(("Secret", value["name"]))
    return found

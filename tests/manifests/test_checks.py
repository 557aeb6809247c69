"""The checks themselves: each object is broken in one place, and the check says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.manifests.pod_security import violations
from tests.manifests.rendering import Object, find, images, pod_templates
from tests.manifests.schemas import differences, problems

Breaking = Callable[[dict[str, Any]], Any]


@pytest.fixture
def runtime(gke: list[Object]) -> Object:
    return copy.deepcopy(find(gke, "TrainingRuntime", "textual-inversion-torch")[0])


@pytest.fixture
def template(runtime: Object) -> Object:
    """The trainers' pod template; changing it changes `runtime`."""
    [(_, found)] = pod_templates(runtime)
    return found


def node(template: Object) -> dict[str, Any]:
    return template["spec"]["containers"][0]


def context(template: Object) -> dict[str, Any]:
    return node(template)["securityContext"]


PODS: dict[str, tuple[Breaking, str]] = {
    "privileged": (lambda t: context(t).update(privileged=True), "privileged"),
    "escalation": (lambda t: context(t).pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "capabilities kept": (lambda t: context(t)["capabilities"].update(drop=["NET_RAW"]), "drop lacks ALL"),
    "capability added": (lambda t: context(t)["capabilities"].update(add=["SYS_PTRACE"]), "add has SYS_PTRACE"),
    "proc": (lambda t: context(t).update(procMount="Unmasked"), "procMount Unmasked"),
    "root": (lambda t: t["spec"]["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
    "root in the container": (lambda t: context(t).update(runAsNonRoot=False), "runAsNonRoot"),
    "user 0": (lambda t: context(t).update(runAsUser=0), "runAsUser is 0"),
    "user 0 of the pod": (lambda t: t["spec"]["securityContext"].update(runAsUser=0), "runAsUser is 0"),
    "no seccomp": (lambda t: t["spec"]["securityContext"].pop("seccompProfile"), "seccompProfile is none of"),
    "seccomp": (lambda t: context(t).update(seccompProfile={"type": "Unconfined"}), "seccompProfile Unconfined"),
    "apparmor": (lambda t: context(t).update(appArmorProfile={"type": "Unconfined"}), "appArmorProfile Unconfined"),
    "old apparmor": (
        lambda t: t["metadata"].update(
            annotations={"container.apparmor.security.beta.kubernetes.io/node": "unconfined"}
        ),
        "AppArmor profile unconfined",
    ),
    "selinux": (lambda t: context(t).update(seLinuxOptions={"type": "spc_t"}), "seLinuxOptions"),
    "host network": (lambda t: t["spec"].update(hostNetwork=True), "hostNetwork"),
    "host processes": (lambda t: t["spec"].update(hostPID=True), "hostPID"),
    "host path": (
        lambda t: t["spec"]["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
        "volume disk: hostPath",
    ),
    "nfs": (
        lambda t: t["spec"]["volumes"].append({"name": "share", "nfs": {"server": "nas", "path": "/"}}),
        "volume share: nfs",
    ),
    "host port": (lambda t: node(t).update(ports=[{"containerPort": 80, "hostPort": 80}]), "hostPort"),
    "probe": (
        lambda t: node(t).update(livenessProbe={"httpGet": {"port": 80, "host": "10.0.0.1"}}),
        "names a host",
    ),
    "hook": (
        lambda t: node(t).update(lifecycle={"preStop": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}}),
        "names a host",
    ),
    "sysctl": (
        lambda t: t["spec"]["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        "sysctl kernel.msgmax",
    ),
    "windows": (
        lambda t: t["spec"]["securityContext"].update(windowsOptions={"hostProcess": True}),
        "hostProcess",
    ),
    "init container": (
        lambda t: t["spec"].update(initContainers=[{"name": "init", "image": "x"}]),
        "initContainers[init]: allowPrivilegeEscalation",
    ),
}


@pytest.mark.parametrize("case", PODS)
def test_pod_security_refuses_a_pod(template: Object, case: str):
    breaking, expected = PODS[case]
    assert violations(template) == []
    breaking(template)
    assert expected in "; ".join(violations(template))


OBJECTS: dict[str, tuple[str, Breaking, str]] = {
    "unknown field in a policy": (
        "NetworkPolicy",
        lambda o: o["spec"].update(policyType=["Egress"]),
        "policyType",
    ),
    "wrong type in a policy": ("NetworkPolicy", lambda o: o["spec"].update(policyTypes="Egress"), "policyTypes"),
    "unknown field in a role": ("Role", lambda o: o["rules"][0].update(resource=["pods"]), "resource"),
    "no rules' verbs": ("Role", lambda o: o["rules"][0].pop("verbs"), "verbs"),
    "unknown kind": ("Role", lambda o: o.update(kind="Rolle"), "no schema"),
    "old API": ("Role", lambda o: o.update(apiVersion="rbac.authorization.k8s.io/v1alpha1"), "no schema"),
    "no name": ("Role", lambda o: o["metadata"].pop("name"), "lacks apiVersion, kind or metadata.name"),
    "field that the Trainer drops": (
        "TrainingRuntime",
        lambda o: o["spec"]["mlPolicy"].update(numProcPerNode=8),
        "spec.mlPolicy.numProcPerNode: no such field",
    ),
    "deep field that the Trainer drops": (
        "TrainingRuntime",
        lambda o: o["spec"]["template"]["spec"]["replicatedJobs"][0].update(replica=1),
        "replicatedJobs[0].replica: no such field",
    ),
    "wrong type in a runtime": (
        "TrainingRuntime",
        lambda o: o["spec"]["template"]["spec"]["failurePolicy"].update(maxRestarts="5"),
        "valid integer",
    ),
    "unknown field in a runtime's pod": (
        "TrainingRuntime",
        lambda o: pod_templates(o)[0][1]["spec"].update(serviceAccoutName="trainer"),
        "serviceAccoutName",
    ),
    "wrong type in a runtime's pod": (
        "TrainingRuntime",
        lambda o: node(pod_templates(o)[0][1])["securityContext"].update(runAsUser="1000"),
        "runAsUser",
    ),
    "unknown field of a version": ("PipelineVersion", lambda o: o["spec"].update(pipeline="x"), "spec.pipeline"),
    "no specification": ("PipelineVersion", lambda o: o["spec"].pop("pipelineSpec"), "lacks a pipelineSpec"),
    "unknown field of a specification": (
        "PipelineVersion",
        lambda o: o["spec"]["pipelineSpec"]["pipelineInfo"].update(nickname="ti"),
        "nickname",
    ),
    "unknown field of a step's pod": (
        "PipelineVersion",
        lambda o: next(iter(executors(o).values())).update(securityCtx={}),
        "securityCtx",
    ),
    "queue without a spec": ("LocalQueue", lambda o: o.pop("spec"), "lacks a spec"),
}


def executors(version: Object) -> dict[str, Any]:
    return version["spec"]["platformSpec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize("case", OBJECTS)
def test_schema_refuses_an_object(everything: list[Object], case: str):
    kind, breaking, expected = OBJECTS[case]
    thing = copy.deepcopy(find(everything, kind)[0])
    assert problems(thing) == []
    breaking(thing)
    assert expected in "; ".join(problems(thing))


def test_differences_are_seen_at_any_depth():
    given = {"a": [{"b": 1, "c": {"d": "x"}}]}
    assert [*differences(given, {"a": [{"b": 1, "c": {"d": "x", "default": 2}}]})] == []
    assert [*differences(given, {"a": [{"b": 1, "c": {}}]})] == ["a[0].c.d: no such field"]
    assert [*differences(given, {"a": [{"b": 1, "c": {"d": 1}}]})] == ["a[0].c.d: found 'x', which is read as 1"]
    assert [*differences(given, {"a": []})] == ["a: found [{'b': 1, 'c': {'d': 'x'}}], which is read as []"]


def test_pods_and_images_are_found_in_any_kind():
    pod = {"spec": {"containers": [{"name": "a", "image": "one"}], "initContainers": [{"name": "b", "image": "two"}]}}
    for thing in (
        {"kind": "Pod", **pod},
        {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": pod}}}},
        {"kind": "Unheard", "spec": {"parts": [{"deep": {"template": pod}}]}},
    ):
        assert len(pod_templates(thing)) == 1
        assert {reference for _, reference in images(thing)} == {"one", "two"}

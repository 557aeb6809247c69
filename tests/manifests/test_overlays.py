"""What the namespace, the rights, the runtimes and the policies say, and what each overlay adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from requests.utils import should_bypass_proxies

from pipelines.environment import OBJECT_STORE_KEYS, OBJECT_STORE_SECRET, TRACKERS_KEYS, TRACKERS_SECRET
from tests.manifests.rendering import MANIFESTS, Object, find, pod_templates, render, render_with, walk

RUNTIMES = {"torch": "textual-inversion-torch", "jax": "textual-inversion-jax"}


def rights(role: Object) -> dict[str, set[str]]:
    """The verbs by resource."""
    return {
        f"{group}/{name}": set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
    }


def policy(objects: list[Object], name: str) -> dict[str, Any]:
    [found] = find(objects, "NetworkPolicy", name)
    return found["spec"]


def ways_out(objects: list[Object], name: str) -> set[tuple[str, int]]:
    """The address blocks that a policy opens, with their ports; an empty one is everywhere."""
    return {
        (block, port["port"])
        for rule in policy(objects, name)["egress"]
        for block in [each["ipBlock"]["cidr"] for each in rule.get("to", []) if "ipBlock" in each] or [""]
        for port in rule.get("ports", [])
    }


def test_namespace_takes_restricted_pods_alone(gke: list[Object]):
    [namespace] = find(gke, "Namespace")
    labels = namespace["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_runner_may_do_what_launching_a_training_takes(gke: list[Object]):
    [role] = find(gke, "Role", "textual-inversion-runner")
    reading = {"get", "list", "watch"}
    assert rights(role) == {
        "trainer.kubeflow.org/trainjobs": reading | {"create", "patch", "delete"},
        "trainer.kubeflow.org/trainingruntimes": reading,
        "/pods": reading,
        "/pods/log": reading,
        "/events": reading,
        "argoproj.io/workflows": {"get"},
        "argoproj.io/workflowtaskresults": {"create", "patch"},
        "/configmaps": {"get"},
        "/secrets": {"get"},
    }
    named = {rule["resources"][0]: rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule}
    assert named == {"configmaps": ["kfp-launcher"], "secrets": ["mlpipeline-minio-artifact"]}


def test_trainer_has_no_rights(gke: list[Object]):
    [account] = find(gke, "ServiceAccount", "textual-inversion-trainer")
    assert account["automountServiceAccountToken"] is False
    subjects = [subject["name"] for binding in find(gke, "RoleBinding") for subject in binding["subjects"]]
    assert "textual-inversion-trainer" not in subjects


def test_default_editor_has_the_runner_s_role_in_a_profile(objects: list[Object]):
    bindings = {binding["subjects"][0]["name"]: binding["roleRef"] for binding in find(objects, "RoleBinding")}
    if "default-editor" in bindings:
        assert bindings["default-editor"] == bindings["textual-inversion-runner"]
    else:
        assert not find(objects, "RoleBinding", "textual-inversion-default-editor")


@pytest.mark.parametrize("framework", RUNTIMES)
def test_runtime_is_as_kubeflow_trainer_wants_it(gke: list[Object], framework: str):
    [runtime] = find(gke, "TrainingRuntime", RUNTIMES[framework])
    assert runtime["metadata"]["labels"]["trainer.kubeflow.org/framework"] == framework
    assert runtime["spec"]["mlPolicy"] == {"numNodes": 1, framework: {}}
    [job] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert (job["name"], job["replicas"]) == ("node", 1)
    assert job["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "node"


@pytest.mark.parametrize("framework", RUNTIMES)
def test_runtime_restarts_all_pods_together(gke: list[Object], framework: str):
    [runtime] = find(gke, "TrainingRuntime", RUNTIMES[framework])
    spec = runtime["spec"]["template"]["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["failurePolicy"]["maxRestarts"] > 0
    [rule] = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])
    [lost] = job["podFailurePolicy"]["rules"]
    assert (lost["action"], lost["onPodConditions"][0]["type"]) == ("FailJob", "DisruptionTarget")


@pytest.mark.parametrize("framework", RUNTIMES)
def test_runtime_leaves_accelerators_to_the_trainjob(gke: list[Object], framework: str):
    [runtime] = find(gke, "TrainingRuntime", RUNTIMES[framework])
    [(_, template)] = pod_templates(runtime)
    [container] = template["spec"]["containers"]
    asked = {name for kind in ("requests", "limits") for name in container["resources"][kind]}
    assert not [name for name in asked if "/" in name]
    assert [each["key"] for each in template["spec"]["tolerations"]] == [
        {"torch": "nvidia.com/gpu", "jax": "google.com/tpu"}[framework]
    ]


def test_nothing_is_let_in_or_out_that_no_policy_names(gke: list[Object]):
    assert policy(gke, "default-deny") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_trainers_reach_each_other_and_https(gke: list[Object]):
    trainers = policy(gke, "trainers")
    itself = {"podSelector": trainers["podSelector"]}
    assert trainers["ingress"] == [{"from": [itself]}]
    assert trainers["egress"] == [{"to": [itself]}], "on every port: NCCL chooses its own"
    assert ways_out(gke, "object-storage") >= {("0.0.0.0/0", 443), ("::/0", 443)}


def test_policies_are_about_the_pods_of_these_kinds(on_prem: list[Object]):
    about = {
        each["kind"]: {policy["metadata"]["name"] for policy in find(on_prem, "NetworkPolicy") if is_about(policy, pod)}
        for each in on_prem
        for _, pod in pod_templates(each)
    }
    everywhere = {"default-deny", "dns"}
    assert about == {
        "TrainingRuntime": everywhere | {"trainers", "object-storage"},
        "CronJob": everywhere | {"object-storage"},
    }


def is_about(policy: Object, pod: Object) -> bool:
    """Whether a policy selects pods of a template."""
    selector, labels = policy["spec"]["podSelector"], pod["metadata"]["labels"]
    listed = selector.get("matchExpressions", [])
    assert {each["operator"] for each in listed} <= {"In"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in listed
    )


def test_no_pod_reaches_a_node_s_metadata_by_the_way_to_the_internet(gke: list[Object]):
    for name in ("steps", "object-storage"):
        blocks = [value for path, value in walk(policy(gke, name)) if path.endswith("ipBlock")]
        everywhere = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
        assert everywhere and all("169.254.0.0/16" in block["except"] for block in everywhere)


def test_gke_accounts_act_as_google_ones(gke: list[Object]):
    for role in ("runner", "trainer"):
        [account] = find(gke, "ServiceAccount", f"textual-inversion-{role}")
        identity = account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"]
        assert identity.startswith(f"textual-inversion-{role}@") and identity.endswith(".iam.gserviceaccount.com")
    assert not find(gke, "ConfigMap", "identities"), "what the kustomization works with is not deployed"
    for name in ("steps", "object-storage"):
        assert ways_out(gke, name) >= {("169.254.169.252/32", 988), ("169.254.169.254/32", 80)}


def test_pods_have_the_key_of_an_s3_store_as_steps_do(objects: list[Object]):
    expected = {
        variable: {"name": OBJECT_STORE_SECRET, "key": key, "optional": True}
        for key, variable in OBJECT_STORE_KEYS.items()
    }
    for _, template in [found for each in objects for found in pod_templates(each)]:
        [container] = template["spec"]["containers"]
        secrets = {each["name"]: each["valueFrom"].get("secretKeyRef") for each in container["env"]}
        trackers = {name: secret for name, secret in secrets.items() if name in TRACKERS_KEYS}
        assert {name: secret for name, secret in secrets.items() if secret} == expected | trackers
        assert all(
            secret == {"name": TRACKERS_SECRET, "key": name, "optional": True} for name, secret in trackers.items()
        )


def test_address_of_kfp_s_object_store_is_where_it_is_used_alone(
    site: Path, on_prem: list[Object], dev: list[Object], gke: list[Object]
):
    amazon = render_with(site / "amazon", "base", ["external-secrets", "retention"])
    for objects, expected in (
        (on_prem, "http://seaweedfs.kubeflow.svc:9000"),
        (dev, "http://seaweedfs.kubeflow.svc:9000"),
        (gke, None),
        (amazon, None),
    ):
        [environment] = find(objects, "ConfigMap", "textual-inversion-environment")
        assert environment["data"].get("AWS_ENDPOINT_URL") == expected


def test_on_prem_pods_reach_kfp_s_object_store(on_prem: list[Object]):
    [store] = [rule for rule in policy(on_prem, "object-storage")["egress"] if "namespaceSelector" in rule["to"][0]]
    [peer] = store["to"]
    assert peer["podSelector"] == {"matchLabels": {"app": "seaweedfs"}}
    assert [port["port"] for port in store["ports"]] == [8333, 9000]


def test_proxy_is_reached_by_the_port_of_its_address(everything: list[Object]):
    [environment] = find(everything, "ConfigMap", "textual-inversion-environment")
    for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
        port = int(environment["data"][variable].rpartition(":")[2])
        for name in ("steps", "object-storage"):
            assert ("", port) in ways_out(everything, name)


@pytest.mark.parametrize(
    "host",
    [
        *("10.96.0.1", "172.20.0.1", "192.168.0.1"),  # API servers of kubeadm, Amazon EKS and of a network at home
        *("seaweedfs.kubeflow.svc", "ml-pipeline.kubeflow", "metadata-grpc-service.kubeflow.svc.cluster.local"),
        *("169.254.169.254", "metadata.google.internal"),
    ],
)
def test_what_is_in_the_cluster_is_not_asked_for_by_the_proxy(everything: list[Object], host: str):
    [environment] = find(everything, "ConfigMap", "textual-inversion-environment")
    none_for = environment["data"]["NO_PROXY"]
    assert should_bypass_proxies(f"https://{host}:443/", no_proxy=none_for)
    assert not should_bypass_proxies("https://huggingface.co/", no_proxy=none_for)


def test_namespace_of_others_gets_no_policy_quota_or_labels(objects: list[Object]):
    if find(objects, "Namespace"):
        assert find(objects, "NetworkPolicy", "default-deny") and find(objects, "ResourceQuota")
    else:
        kinds = ("NetworkPolicy", "ResourceQuota", "LimitRange")
        assert not [kind for kind in kinds if find(objects, kind)], "it would stop what else runs there"


def groups(objects: list[Object]) -> set[str]:
    """The API groups of objects; Kubernetes' first one is empty."""
    return {each["apiVersion"].rpartition("/")[0] for each in objects}


def test_dev_is_known_to_a_cluster_with_pipelines_alone(dev: list[Object]):
    assert {each["metadata"]["namespace"] for each in dev} == {"kubeflow"}
    assert groups(dev) == {"", "batch", "rbac.authorization.k8s.io"}
    [role] = find(dev, "Role", "textual-inversion-runner")
    assert not [right for right in rights(role) if right.startswith("trainer.kubeflow.org/")]


def test_dev_has_runtimes_where_the_cluster_has_kubeflow_trainer(site: Path):
    folder = site / "overlays" / "dev-with-trainer"
    folder.mkdir(exist_ok=True)
    written = (MANIFESTS / "overlays" / "dev" / "kustomization.yaml").read_text(encoding="utf-8")
    named = written.replace("# - ../../components/trainer", "- ../../components/trainer")
    assert named != written
    (folder / "kustomization.yaml").write_text(named, encoding="utf-8")
    objects = render(folder)
    assert groups(objects) == {"", "batch", "rbac.authorization.k8s.io", "trainer.kubeflow.org"}
    assert {each["metadata"]["name"] for each in find(objects, "TrainingRuntime")} == set(RUNTIMES.values())
    assert {each["metadata"]["namespace"] for each in objects} == {"kubeflow"}
    [role] = find(objects, "Role", "textual-inversion-runner")
    assert {"create", "delete"} <= rights(role)["trainer.kubeflow.org/trainjobs"]


def test_dev_says_what_its_node_holds(dev: list[Object]):
    [environment] = find(dev, "ConfigMap", "textual-inversion-environment")
    assert environment["metadata"]["annotations"] == {
        "textual-inversion/largest-pod-cpu": "2",
        "textual-inversion/largest-pod-memory": "4Gi",
    }
    for _, template in [found for each in dev for found in pod_templates(each)]:
        [container] = template["spec"]["containers"]
        assert container["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "128Mi"}


def test_every_overlay_says_where_what_outlives_a_run_is(gke: list[Object], on_prem: list[Object], dev: list[Object]):
    [launcher] = find(gke, "ConfigMap", "kfp-launcher")
    bucket = launcher["data"]["defaultPipelineRoot"].removesuffix("/pipelines")
    for objects, expected in (
        (gke, f"{bucket}/textual-inversion"),
        (on_prem, "s3://mlpipeline/private/textual-inversion"),
        (dev, "s3://mlpipeline/textual-inversion"),
    ):
        [environment] = find(objects, "ConfigMap", "textual-inversion-environment")
        assert environment["data"]["TEXTUAL_INVERSION_STORAGE_URI"] == expected


def test_dev_steps_have_the_rights_that_launching_a_training_takes(dev: list[Object]):
    [binding] = find(dev, "RoleBinding", "textual-inversion-runner")
    assert binding["roleRef"]["name"] == "textual-inversion-runner"
    assert {(each["kind"], each["namespace"], each["name"]) for each in binding["subjects"]} == {
        ("ServiceAccount", "kubeflow", "textual-inversion-runner"),
        ("ServiceAccount", "kubeflow", "pipeline-runner"),
    }


def test_queue_covers_all_that_a_training_asks_for(objects: list[Object]):
    for queue in find(objects, "ClusterQueue"):
        groups = queue["spec"]["resourceGroups"]
        covered = {name for group in groups for name in group["coveredResources"]}
        for group in groups:
            for flavor in group["flavors"]:
                assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]
        for runtime in find(objects, "TrainingRuntime"):
            for _, template in pod_templates(runtime):
                asked = template["spec"]["containers"][0]["resources"]["requests"]
                assert {*asked, "nvidia.com/gpu", "google.com/tpu"} <= covered

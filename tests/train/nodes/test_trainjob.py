from __future__ import annotations

import copy
from typing import Any

import pytest

from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from components.train.command import TrainingCommand, parse_training_flags
from components.train.frameworks import FRAMEWORKS
from components.train.nodes.trainjob import RUN_LABEL, SPEC_ANNOTATION, Owner, train_job
from tests.manifests.rendering import MANIFESTS, render
from tests.train.nodes.conftest import make_command, make_config
from tests.train.nodes.kubernetes_server import problem_of

BUCKET = "s3://bucket/run"
GPU = {"accelerator_count": 4, "accelerator_node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}
SLICE = {"cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice", "cloud.google.com/gke-tpu-topology": "2x4"}
TPU = {"accelerator_count": 4, "accelerator_node_selector": SLICE}


def job_of(
    accelerator: str = "cpu", *, framework: str = "auto", owner: Owner | None = None, **changes: Any
) -> dict[str, Any]:
    return train_job(make_config(**changes), make_command(BUCKET, accelerator=accelerator, framework=framework), owner)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert node["name"] == "node"
    return node["template"]["spec"]["template"]


@pytest.mark.parametrize(
    ("accelerator", "changes"),
    [
        ("cpu", {}),
        ("cpu", {"processes_per_node": 2}),
        ("cpu", {"framework": "flax"}),
        ("gpu", GPU),
        ("gpu", {"accelerator_count": 8, "framework": "flax"}),
        ("tpu", TPU),
        (
            "gpu",
            {
                **GPU,
                "accelerator_resource": "nvidia.com/mig-1g.10gb",
                "accelerator_tolerations": [{"key": "dedicated", "operator": "Exists", "tolerationSeconds": 60.0}],
                "queue": "team-a",
                "runtime": "textual-inversion-torch",
                "trainer_image": "registry/train-torch:1",
                "service_account": "trainer",
                "run_id": "0a1b2c3d-0000-4000-8000-000000000000",
            },
        ),
    ],
)
def test_trainer_models_take_every_body_whole(accelerator: str, changes: dict[str, Any]) -> None:
    owner = Owner(name="step-pod", uid="u-1")
    job = job_of(accelerator, owner=owner, **changes)
    assert problem_of(job) is None
    assert job["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "step-pod", "uid": "u-1"}]


def test_bodies_that_the_trainer_would_not_take_are_told() -> None:
    for path, value, told in (
        (("spec", "trainer", "numNode"), 2, "unknown fields.*numNode"),
        (("spec", "trainer", "numNodes"), "2", "numNodes"),
        (("spec", "activeDeadlineSeconds"), 0, "activeDeadlineSeconds"),
        (("metadata", "name"), "0-digit-first", "RFC 1035"),
        (("spec", "trainer", "args"), ["x"] * 129, "128 items"),
    ):
        job = copy.deepcopy(job_of())
        place = job
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(AssertionError, match=told):
            assert problem_of(job) is None


def test_command_of_a_pod_parses_back_to_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(
        learnable_property="style", learning_rate=3.3e-7, fuse_micro_batches=False, scale_lr=True, seed=7
    )
    for framework, program in (("torch", ["torchrun", "-m"]), ("flax", ["python3", "-m"])):
        asked = make_command("gs://bucket/a run", config=config, accelerator="gpu", framework=framework)
        trainer = train_job(make_config(accelerator_count=1), asked)["spec"]["trainer"]
        assert trainer["command"][:3] == [*program, "components.train"]
        monkeypatch.setattr("sys.argv", [*trainer["command"][2:], *trainer["args"]])
        assert parse_training_flags(None) == asked


def test_torch_takes_a_process_for_each_gpu_and_flax_one_for_each_node() -> None:
    torch, flax = (job_of("gpu", **GPU, framework=framework)["spec"] for framework in ("torch", "flax"))
    assert (torch["runtimeRef"]["name"], torch["trainer"]["numProcPerNode"]) == ("textual-inversion-torch", 4)
    assert flax["runtimeRef"]["name"] == "textual-inversion-jax" and "numProcPerNode" not in flax["trainer"]
    assert job_of(processes_per_node=3)["spec"]["trainer"]["numProcPerNode"] == 3
    assert job_of()["spec"]["trainer"]["numProcPerNode"] == 1


def test_framework_is_that_of_the_accelerator() -> None:
    runtimes = {
        accelerator: job_of(accelerator, **changes)["spec"]["runtimeRef"]["name"]
        for accelerator, changes in (("cpu", {}), ("gpu", GPU), ("tpu", TPU))
    }
    assert runtimes == {
        "cpu": "textual-inversion-torch",
        "gpu": "textual-inversion-torch",
        "tpu": "textual-inversion-jax",
    }


def test_gpu_pods_have_their_nodes_and_shared_memory() -> None:
    own = {"key": "dedicated", "operator": "Exists"}
    job = job_of("gpu", **GPU, accelerator_tolerations=[own], service_account="trainer")
    resources = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "4"}
    assert job["spec"]["trainer"]["resourcesPerNode"] == {"requests": resources, "limits": resources}
    assert pod_of(job)["spec"] == {
        "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists"},
            {"key": "cloud.google.com/gke-spot", "operator": "Exists"},
            own,
        ],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}],
        "containers": [{"name": "node", "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}],
        "serviceAccountName": "trainer",
    }


def test_tpu_pods_are_the_hosts_of_one_slice() -> None:
    job = job_of("tpu", **TPU)
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"]["google.com/tpu"] == "4"
    assert pod_of(job)["spec"] == {
        "nodeSelector": SLICE,
        "tolerations": [
            {"key": "google.com/tpu", "operator": "Exists"},
            {"key": "cloud.google.com/gke-spot", "operator": "Exists"},
        ],
    }


def test_queue_and_run_are_labels() -> None:
    job = job_of(queue="team-a", run_id="run-1")
    labels = job["metadata"]["labels"]
    assert pod_of(job)["metadata"]["labels"] == {RUN_LABEL: "run-1"}
    assert (labels["kueue.x-k8s.io/queue-name"], labels[RUN_LABEL]) == ("team-a", "run-1")
    assert not {"kueue.x-k8s.io/queue-name", RUN_LABEL} & set(job_of()["metadata"]["labels"])


def test_name_is_that_of_the_run_and_the_result() -> None:
    def name(folder: str = BUCKET, **changes: Any) -> str:
        return train_job(make_config(**changes), make_command(folder))["metadata"]["name"]

    assert name() == name(num_nodes=3)
    assert len({name(), name(run_id="run-1"), name(run_id="run-2"), name("s3://bucket/other")}) == 4


def test_digest_is_that_of_what_is_to_run() -> None:
    def digest(owner: Owner | None = None, *, command: TrainingCommand | None = None, **changes: Any) -> str:
        job = train_job(make_config(**changes), command or make_command(BUCKET), owner)
        return job["metadata"]["annotations"][SPEC_ANNOTATION]

    assert digest() == digest(Owner(name="another", uid="attempt"))
    others = [digest(num_nodes=3), digest(queue="q"), digest(trainjob_timeout_seconds=5)]
    others.append(digest(command=make_command(BUCKET, config=TrainConfig(seed=1))))
    assert len({digest(), *others}) == 5


def test_runtimes_of_the_manifests_have_what_the_launcher_fills_in() -> None:
    objects = render(MANIFESTS / "overlays" / "on-prem")
    runtimes = {each["metadata"]["name"]: each for each in objects if each["kind"] == "TrainingRuntime"}
    assert runtimes.keys() == {framework.runtime for framework in FRAMEWORKS.values()}
    for framework in FRAMEWORKS:
        job = job_of("gpu", **GPU, framework=framework)
        runtime = runtimes[job["spec"]["runtimeRef"]["name"]]
        (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        pod = node["template"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert (node["name"], container["name"]) == ("node", "node")
        assert pod_of(job)["spec"]["volumes"][0] in pod["volumes"], "one /dev/shm, of one size"


def test_owner_is_the_pod_of_the_step() -> None:
    assert Owner.from_environment({"KFP_POD_NAME": "p", "KFP_POD_UID": "u"}) == Owner(name="p", uid="u")
    assert Owner.from_environment({"KFP_POD_NAME": "p"}) is None


@pytest.mark.parametrize(
    ("accelerator", "changes", "message"),
    [
        ("tpu", {"framework": "torch"}, "framework: found torch with accelerator tpu, expected auto or flax"),
        ("cpu", {"framework": "tensorflow"}, "framework: found 'tensorflow', expected one of auto, torch, flax"),
        ("cuda", {"framework": "flax"}, "accelerator: found 'cuda', expected one of cpu, gpu, tpu"),
        ("gpu", {}, "accelerator_count: found 0 with gpu, expected 1 or more"),
        ("cpu", {"accelerator_count": 1}, "accelerator_count: found 1 with cpu, expected 0"),
        ("gpu", {**GPU, "accelerator_resource": "google.com/tpu"}, "accelerator_resource: found google.com/tpu with"),
        ("tpu", {**TPU, "num_nodes": 3}, "num_nodes, accelerator_count: found 3 x 4 for a slice of 2x4, which has 8"),
        (
            "gpu",
            {**GPU, "processes_per_node": 3},
            "processes_per_node: found 3 with torch on gpu, expected 4 or 0",
        ),
        (
            "cpu",
            {"framework": "flax", "processes_per_node": 2},
            "found 2 with flax on cpu, expected 1 or 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(accelerator: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job_of(accelerator, **changes)


@pytest.mark.parametrize("name", ["latent_set", "base_model", "initial_embedding", "checkpoint_root", "output"])
def test_local_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: found the local folder 'out/x', expected an address in object"):
        train_job(make_config(), make_command(BUCKET, **{name: "out/x"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_nodes": 0}, "num_nodes: found 0, expected 1 or more"),
        ({"processes_per_node": -1}, "processes_per_node: found -1"),
        ({"trainjob_timeout_seconds": 0}, "trainjob_timeout_seconds: found 0"),
        ({"accelerator_count": "two"}, "accelerator_count: found 'two'"),
        ({"memory_per_node": "16 GB"}, "memory_per_node: found '16 GB', expected a quantity in Kubernetes' notation"),
        ({"queue": "Team A"}, "queue: found 'Team A', expected Kueue's local queue"),
        ({"run_id": "x" * 64}, "run_id: found"),
    ],
)
def test_config_that_cannot_be_right_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**changes)

"""The launcher against the Kubernetes API: made, found again, followed, failed."""

from __future__ import annotations

import copy
import logging
import threading
from pathlib import Path
from typing import Any

import certifi
import pytest

from components.common.errors import ClusterError, ConfigError, ObjectNotFoundError, TrainingError
from components.train.command import TrainingCommand
from components.train.nodes import cluster, launch
from components.train.nodes.launch import launch_trainjob
from components.train.nodes.trainjob import SPEC_ANNOTATION, Owner, train_job
from tests.servers import Proxy, running
from tests.train.nodes.conftest import make_command, make_config, training_of, write_learned
from tests.train.nodes.kubernetes_server import KubernetesServer, problem_of


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    """What a step logs is part of what it does."""
    caplog.set_level(logging.INFO, logger="components")


@pytest.fixture
def attempt(kubernetes: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process the pod of an attempt of the step, in the pipeline run `run-1`."""

    def attempt(number: int) -> Owner:
        kubernetes.start_step(f"step-{number}", "run-1")
        monkeypatch.setenv("KFP_POD_NAME", f"step-{number}")
        monkeypatch.setenv("KFP_POD_UID", f"uid-{number}")
        return Owner(name=f"step-{number}", uid=f"uid-{number}")

    return attempt


def test_training_is_followed_to_its_end(
    kubernetes: KubernetesServer,
    command: TrainingCommand,
    attempt: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    owner = attempt(1)
    kubernetes.scenario = training_of(command.output, "step 10/20  loss 0.3", "step 20/20  loss 0.2")
    (learned,) = launch_trainjob(make_config(), command)
    assert (learned.placeholder_token, learned.steps) == ("<cat-toy>", 3)
    (made,) = kubernetes.made
    assert made == train_job(make_config(run_id="run-1"), command, owner) and problem_of(made) is None
    name = made["metadata"]["name"]
    assert capfd.readouterr().err.count("node-0 | step 20/20  loss 0.2\n") == 1
    assert f"made the TrainJob {name} of 2 nodes" in caplog.text
    assert f"TrainJob {name} is Complete (AllJobsCompleted: jobset completed successfully)" in caplog.text
    assert kubernetes.deleted == []


def test_waiting_is_explained(
    kubernetes: KubernetesServer, command: TrainingCommand, caplog: pytest.LogCaptureFixture
) -> None:
    def play(server: KubernetesServer, name: str) -> None:
        server.complain(name, "Old", "not this one", at=1)
        server.complain(name, "TrainJobResourcesCreationFailed", "the quota is used up", at=2)
        server.condition(name, "Suspended", "Suspended", "TrainJob is suspended")
        server.wait_for("GET", "/events", times=2)
        server.condition(name, "Suspended", "Resumed", "TrainJob is resumed", status="False")
        waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
        server.start_pods(name, waiting=waiting)
        server.wait_for("GET", "/pods?", times=server.count("GET", "/pods?") + 1)
        with server.changed:
            server.pods.clear()
        training_of(command.output)(server, name)

    kubernetes.scenario = play
    launch_trainjob(make_config(queue="team-a"), command)
    assert "waits (Suspended: TrainJob is suspended)" in caplog.text
    assert "Kubernetes says TrainJobResourcesCreationFailed: the quota is used up" in caplog.text
    assert "waits (ImagePullBackOff: no such image)" in caplog.text
    assert "has not all of its 2 nodes ready" in caplog.text and "has all of its 2 nodes ready" in caplog.text
    assert "runs on machine-1" in caplog.text


def test_second_attempt_goes_on_with_the_trainjob_of_the_first(
    kubernetes: KubernetesServer, command: TrainingCommand, attempt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job = train_job(make_config(run_id="run-1"), command, attempt(1))
    kubernetes.put(job)
    name = job["metadata"]["name"]
    second = attempt(2)
    pods = kubernetes.start_pods(name)

    def end() -> None:
        kubernetes.wait_for("GET", "/log")
        write_learned(command.output)
        for pod in pods:
            kubernetes.end_pod(pod, 0)
        kubernetes.condition(name, "Complete", "AllJobsCompleted", "")

    ending = threading.Thread(target=end)
    ending.start()
    launch_trainjob(make_config(), command)
    ending.join()
    assert "of an earlier attempt: going on with it" in caplog.text
    assert kubernetes.made == [] and kubernetes.deleted == []
    assert kubernetes.jobs[name]["metadata"]["ownerReferences"] == [second.reference()]


def test_complete_trainjob_of_an_earlier_attempt_is_the_result(
    kubernetes: KubernetesServer, command: TrainingCommand
) -> None:
    job = train_job(make_config(), command)
    kubernetes.put(job)
    kubernetes.condition(job["metadata"]["name"], "Complete", "AllJobsCompleted", "")
    write_learned(command.output)
    assert launch_trainjob(make_config(), command)[0].steps == 3
    assert [method for method, _ in kubernetes.requests if method not in ("GET", "POST")] == []


def test_failed_trainjob_of_an_earlier_attempt_is_made_anew(
    kubernetes: KubernetesServer, command: TrainingCommand, caplog: pytest.LogCaptureFixture
) -> None:
    job = train_job(make_config(), command)
    kubernetes.put(job)
    name = job["metadata"]["name"]
    kubernetes.condition(name, "Failed", "FailedJobs", "")
    kubernetes.deletes_slowly = True
    kubernetes.scenario = training_of(command.output)

    def collect() -> None:
        kubernetes.wait_until(lambda: bool(kubernetes.deleted))
        kubernetes.wait_for("GET", "watch=True")
        assert kubernetes.made == [], "the name is not free before the pods are gone"
        kubernetes.collect(name)

    collecting = threading.Thread(target=collect)
    collecting.start()
    launch_trainjob(make_config(), command)
    collecting.join()
    assert [each["metadata"]["name"] for each in kubernetes.made] == [name]
    assert "has failed: it is made anew" in caplog.text and "waiting until" in caplog.text


def test_trainjob_that_stays_is_an_error(
    kubernetes: KubernetesServer, command: TrainingCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GONE_SECONDS", 0.0)
    kubernetes.deletes_slowly = True
    job = train_job(make_config(), command)
    kubernetes.put(job)
    kubernetes.delete(job["metadata"]["name"], "Foreground")
    with pytest.raises(ClusterError, match="is still being deleted after 0 s: see what holds it with kubectl describe"):
        launch_trainjob(make_config(), command)


def test_trainjob_with_another_specification_is_a_conflict(
    kubernetes: KubernetesServer, command: TrainingCommand
) -> None:
    other = train_job(make_config(num_nodes=4), command)
    strange = copy.deepcopy(other)
    del strange["metadata"]["annotations"]
    for there in (other, strange):
        kubernetes.put(there)
        with pytest.raises(ClusterError, match=r"with another specification .* that writes to the same address"):
            launch_trainjob(make_config(), command)
    assert SPEC_ANNOTATION in other["metadata"]["annotations"]
    assert {method for method, _ in kubernetes.requests} == {"GET", "POST"}, "what is another's is left alone"


def test_failure_names_the_first_pod_that_failed_and_why(
    kubernetes: KubernetesServer, command: TrainingCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    def play(server: KubernetesServer, name: str) -> None:
        first, second = server.start_pods(name)
        server.write(first, "waiting for node-1", "torchrun: one of many failed")
        server.write(second, "05:00:01 ERROR the loss is nan", "exitcode: 5")
        server.end_pod(first, 1, at=9)
        server.end_pod(second, 137, reason="OOMKilled", message="the node was\nlow on memory", at=3)
        server.condition(name, "Failed", "FailedJobs", "jobset failed due to one or more job failures")

    kubernetes.scenario = play
    with pytest.raises(TrainingError) as failure:
        launch_trainjob(make_config(), command)
    text = str(failure.value)
    assert "is Failed (FailedJobs: jobset failed due to one or more job failures)" in text
    assert "; node-1 (" in text and "; node-0 (" not in text
    assert "ended with exit code 137 (OOMKilled: the node was low on memory)" in text
    assert "; 05:00:01 ERROR the loss is nan; run this step again" in text
    assert "\n" not in text
    assert "node-0 | torchrun: one of many failed" in capfd.readouterr().err


def test_failure_without_pods_says_what_was_known_of_them(
    kubernetes: KubernetesServer, command: TrainingCommand
) -> None:
    def play(server: KubernetesServer, name: str) -> None:
        server.start_pods(name, waiting={"reason": "ErrImagePull", "message": "no such image"})
        server.wait_for("GET", "/pods?", times=2)
        server.complain(name, "Evil", "the scheduler is on strike")
        with server.changed:
            server.pods.clear()
        server.condition(name, "Failed", "DeadlineExceeded", "TrainJob exceeded its active deadline")

    kubernetes.scenario = play
    with pytest.raises(TrainingError) as failure:
        launch_trainjob(make_config(), command)
    text = str(failure.value)
    assert "is Failed (DeadlineExceeded: TrainJob exceeded its active deadline)" in text
    assert "waits (ErrImagePull: no such image)" in text and "Evil: the scheduler is on strike" in text


def test_trainjob_that_somebody_deletes_is_an_error(
    kubernetes: KubernetesServer, command: TrainingCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    kubernetes.deletes_slowly = True

    def play(server: KubernetesServer, name: str) -> None:
        pods = server.start_pods(name)
        server.wait_for("GET", f"{pods[0]}/log")
        with server.changed:  # nobody looks in between
            looks = server.count("GET", f"/trainjobs/{name}")
            server.delete(name, "Foreground")
        server.wait_for("GET", f"/trainjobs/{name}", times=looks + 1)
        server.write(pods[0], "step 12/20: checkpoint saved")
        server.collect(name)

    kubernetes.scenario = play
    with pytest.raises(TrainingError, match="was deleted while it trained: run this step again to go on"):
        launch_trainjob(make_config(), command)
    assert "node-0 | step 12/20: checkpoint saved\n" in capfd.readouterr().err, "its last lines are waited for"


def test_broken_log_goes_on_where_it_broke(
    kubernetes: KubernetesServer, command: TrainingCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    def play(server: KubernetesServer, name: str) -> None:
        server.breaks_after_lines = 2
        pods = server.start_pods(name)
        server.write(pods[0], "first", "second", "third")
        server.wait_until(lambda: server.breaks_after_lines is None)
        server.condition(name, "Suspended", "Anything", "to be looked at", status="False")
        server.wait_for("GET", f"{pods[0]}/log", times=2)
        server.write(pods[0], "fourth")
        write_learned(command.output)
        for pod in pods:
            server.end_pod(pod, 0)
        server.condition(name, "Complete", "AllJobsCompleted", "")

    kubernetes.scenario = play
    launch_trainjob(make_config(), command)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("node-0 | ")]
    assert lines == [f"node-0 | {word}" for word in ("first", "second", "third", "fourth")]


def test_lost_answer_makes_no_second_trainjob(
    kubernetes: KubernetesServer,
    command: TrainingCommand,
    attempt: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attempt(1)
    kubernetes.scenario = training_of(command.output)
    with running(Proxy(kubernetes.url, losing="POST")) as proxy:
        kubeconfig = kubernetes.kubeconfig(tmp_path / "through-the-proxy", url=proxy.url)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        assert launch_trainjob(make_config(), command)[0].steps == 3
    assert kubernetes.count("POST", "trainjobs") == 2 and len(kubernetes.made) == 1
    assert "going on with it" in caplog.text and kubernetes.count("PATCH", "") == 0


def test_api_server_that_is_away_for_a_moment_is_asked_again(
    kubernetes: KubernetesServer, command: TrainingCommand
) -> None:
    def play(server: KubernetesServer, name: str) -> None:
        server.fails = [503, 500, 429]
        server.wait_until(lambda: not server.fails)
        training_of(command.output)(server, name)

    kubernetes.scenario = play
    assert launch_trainjob(make_config(), command)[0].steps == 3


def test_forgotten_version_is_looked_up_anew(kubernetes: KubernetesServer, command: TrainingCommand) -> None:
    kubernetes.forgets_versions = True

    def play(server: KubernetesServer, name: str) -> None:
        server.wait_until(lambda: not server.forgets_versions)
        training_of(command.output)(server, name)

    kubernetes.scenario = play
    assert launch_trainjob(make_config(), command)[0].steps == 3


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("POST", "trainjobs"), ("GET", "pods"), ("GET", "trainjobs")],
    ids=["create", "list pods", "watch"],
)
def test_missing_right_is_named(
    kubernetes: KubernetesServer, command: TrainingCommand, verb: str, resource: str
) -> None:
    kubernetes.forbidden.add((verb, resource))
    with pytest.raises(ClusterError, match=r"answers 403 .*is forbidden.*: allow the service account .*pods/log"):
        launch_trainjob(make_config(), command)


def test_refusal_of_the_trainer_is_shown(kubernetes: KubernetesServer, command: TrainingCommand) -> None:
    with pytest.raises(ClusterError, match=r"answers 422 .*must name a runtime of this namespace"):
        launch_trainjob(make_config(runtime="nobody-made-this"), command)
    assert len(kubernetes.refusals) == 1
    kubernetes.refusals.clear()


def test_complete_trainjob_without_a_result_is_an_error(kubernetes: KubernetesServer, gcs_bucket_uri: str) -> None:
    def play(server: KubernetesServer, name: str) -> None:
        server.condition(name, "Complete", "AllJobsCompleted", "")

    kubernetes.scenario = play
    with pytest.raises(ObjectNotFoundError, match=f"{gcs_bucket_uri}/output/: there is no object below this address"):
        launch_trainjob(make_config(), make_command(gcs_bucket_uri))


def test_nothing_is_made_when_the_values_do_not_fit(kubernetes: KubernetesServer) -> None:
    with pytest.raises(ConfigError, match="found the local folder"):
        launch_trainjob(make_config(), make_command("out"))
    assert kubernetes.requests == []


def test_absent_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch, command: TrainingCommand, tmp_path: Any) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="neither a pod's service account nor a kubeconfig"):
        launch_trainjob(make_config(), command)


def test_pod_works_in_its_own_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-the-pod")
    (tmp_path / "namespace").write_text("team-a\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", certifi.where())
    monkeypatch.setattr(cluster, "_NAMESPACE_FILE", tmp_path / "namespace")
    assert cluster.Cluster().namespace == "team-a"

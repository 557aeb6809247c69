"""The launcher as a process of its own, as a pod runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.common.errors import ClusterError, ConfigError, InterruptedTraining
from components.train.command import TrainingCommand
from components.train.nodes.trainjob import train_job
from tests.train.nodes.conftest import make_config, training_of
from tests.train.nodes.kubernetes_server import KubernetesServer

REPOSITORY = Path(__file__).parents[3]
NODES = ["--num-nodes=2", "--cpu-per-node=4", "--memory-per-node=16Gi", "--accelerator-count=0", "--run-id=run-1"]


def launcher(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "components.train.nodes", *arguments]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "KFP_POD_NAME": "step-1", "KFP_POD_UID": "uid-1"}
    return subprocess.Popen(launcher(*arguments), cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)


def test_command_launches_and_follows(kubernetes: KubernetesServer, command: TrainingCommand) -> None:
    kubernetes.scenario = training_of(command.output, "step 10/20  loss 0.3")
    with start(*command.arguments(), *NODES) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "node-0 | step 10/20  loss 0.3\n" in said and "learned <cat-toy> in 3 steps" in said
    (made,) = kubernetes.made
    assert made["spec"] == train_job(make_config(run_id="run-1"), command)["spec"]
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_terminated_command_deletes_its_trainjob_within_a_second(
    kubernetes: KubernetesServer, command: TrainingCommand, number: signal.Signals
) -> None:
    kubernetes.scenario = lambda server, name: server.write(server.start_pods(name)[0], "step 10/20")
    with start(*command.arguments(), *NODES) as process:
        kubernetes.wait_for("GET", "/log", times=2)
        kubernetes.wait_for("GET", "watch=True")
        process.send_signal(number)
        asked = time.monotonic()
        _, said = process.communicate(timeout=60)
    ((name, deleted),) = kubernetes.deleted
    assert process.returncode == InterruptedTraining.exit_code == 143
    assert deleted - asked < 1.0
    assert name == kubernetes.made[0]["metadata"]["name"] and kubernetes.jobs == {}
    assert f"{number.name}: the TrainJob {name} is deleted; its checkpoints are kept" in said
    assert "Traceback" not in said


def test_terminated_command_says_what_it_could_not_delete(
    kubernetes: KubernetesServer, command: TrainingCommand
) -> None:
    kubernetes.scenario = lambda server, name: server.start_pods(name)
    with start(*command.arguments(), *NODES) as process:
        kubernetes.wait_for("GET", "/log", times=2)
        name = kubernetes.made[0]["metadata"]["name"]
        kubernetes.forbidden.add(("DELETE", name))
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"SIGTERM: the TrainJob {name} is left (deleting {name}: the Kubernetes API answers 403" in said
    assert f"kubectl delete trainjob {name}" in said


def test_command_fails_with_one_line(kubernetes: KubernetesServer, command: TrainingCommand) -> None:
    kubernetes.forbidden.add(("POST", "trainjobs"))
    for flags, code, told in (
        ([*NODES, "--framework=tensorflow"], 2, "argument --framework: invalid choice: 'tensorflow'"),
        ([*NODES, "--queue=Team A"], ConfigError.exit_code, "queue: found 'Team A', expected Kueue's local queue"),
        ([*NODES, '--accelerator-node-selector={"disk": 1}'], ConfigError.exit_code, 'found {"disk": 1}'),
        ([*NODES, "--accelerator-tolerations=none"], 2, "found 'none', expected JSON"),
        ([*NODES, '--accelerator-tolerations=[{"key": "a"}]'], ClusterError.exit_code, "answers 403 trainjobs is"),
    ):
        with start(*command.arguments(), *flags) as process:
            _, said = process.communicate(timeout=60)
        assert process.returncode == code
        last = said.strip().splitlines()[-1]
        assert " ERROR " in last or "error: argument" in last
        assert told in last
        assert "Traceback" not in said

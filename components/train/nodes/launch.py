"""A training on many nodes as one step: its TrainJob made or found, followed to its end, cancelled with the step."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from components.common.artifact_addresses import fetched
from components.common.artifacts import LearnedEmbedding
from components.common.errors import ClusterError, TrainingError
from components.common.logs import log_config, versions
from components.common.training.stopping import answering_stop_signals
from components.common.words import word_folders
from components.train.command import TrainingCommand
from components.train.nodes.cluster import Cluster
from components.train.nodes.config import LaunchConfig
from components.train.nodes.pod_logs import PodLogs
from components.train.nodes.pods import ended, first_failed, job_state, node_name, pod_state, telling_line
from components.train.nodes.trainjob import SPEC_ANNOTATION, Owner, train_job

logger = logging.getLogger(__name__)

LOOK_SECONDS = 15
"""How long a TrainJob that does not change is left alone before its pods are looked at again."""
GONE_SECONDS = 300.0
"""How long a TrainJob may take to be deleted: its pods save a checkpoint first."""
_TAIL_LINES = 100


def launch_trainjob(config: LaunchConfig, command: TrainingCommand) -> tuple[LearnedEmbedding, ...]:
    """The learned embedding of each word that the TrainJob has written to `command.output`.

    SIGTERM, SIGHUP and Ctrl-C delete the TrainJob and end the process with the exit code of `InterruptedTraining`.

    Raises:
        ConfigError: when the values do not fit each other; before anything is made.
        ClusterError: when Kubernetes refuses, or a TrainJob of that name runs something else.
        TrainingError: when the training failed; says why.
        StorageError, ArtifactError: when the result is not where it should be.
    """
    train_job(config, command)  # refuses what does not fit before anybody is asked
    cluster, owner = Cluster(), Owner.from_environment()
    if owner is not None and not config.run_id:
        config = dataclasses.replace(config, run_id=cluster.run_of(owner.name))
    job = train_job(config, command, owner)
    name = job["metadata"]["name"]
    logger.info("%s; namespace %s", versions(["kubernetes"]), cluster.namespace)
    log_config(logger, {**config.as_json(), **command.config.as_json()})
    with answering_stop_signals(lambda signal_name: _cancel(cluster, name, signal_name)):
        made = obtain(cluster, job)
        follow(cluster, made)
    with tempfile.TemporaryDirectory(prefix="textual-inversion-") as scratch:
        learned = tuple(map(LearnedEmbedding.read, word_folders(fetched(command.output, Path(scratch)))))
    for each in learned:
        logger.info("learned %s in %d steps: %s", each.placeholder_token, each.steps, command.output)
    return learned


def obtain(cluster: Cluster, job: dict[str, Any]) -> dict[str, Any]:
    """The TrainJob as it is in the cluster: made, or found as an earlier attempt of this step has made it.

    One that failed, or is being deleted, is made anew when it is gone; its training goes on from its checkpoint.

    Raises:
        ClusterError: when one of that name has another specification.
    """
    name = job["metadata"]["name"]
    while True:
        made = cluster.create(job)
        if made is not None:
            nodes = job["spec"]["trainer"]["numNodes"]
            logger.info("made the TrainJob %s of %d nodes: kubectl get trainjob %s", name, nodes, name)
            return made
        found = cluster.get(name)
        if found is None:
            continue
        if "deletionTimestamp" not in found["metadata"]:
            _check_same(found, job)
            end = ended(found)
            if end is None or end["type"] != "Failed":
                return _adopt(cluster, found, job)
            logger.info("the TrainJob %s of an earlier attempt has failed: it is made anew", name)
            cluster.delete(name)
        _wait_until_gone(cluster, found)


def follow(cluster: Cluster, job: dict[str, Any]) -> None:
    """Returns when the TrainJob is complete; what it and its pods do and write is in the log until then.

    Raises:
        TrainingError: when it fails, or is deleted; says why.
    """
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    said = dict[str, str]()
    with PodLogs(cluster) as logs:
        while True:
            now = cluster.get(name)
            if now is None or now["metadata"]["uid"] != uid or "deletionTimestamp" in now["metadata"]:
                raise TrainingError(f"the TrainJob {name} was deleted while it trained: run this step again to go on")
            pods = cluster.pods(name)
            for what, state in _states(cluster, now, pods).items():
                if said.get(what) != state:
                    logger.info("%s %s", what, state)
                    said[what] = state
            logs.follow(pods)
            end = ended(now)
            if end is not None:
                break
            cluster.wait_for_change(now, LOOK_SECONDS)
    if end["type"] != "Complete":
        raise TrainingError(_failure(cluster, now, said))


def _states(cluster: Cluster, job: dict[str, Any], pods: list[Any]) -> dict[str, str]:
    """What there is to say, by what it is about; without pods, the complaints about the TrainJob."""
    name = job["metadata"]["name"]
    states = {f"TrainJob {name}": job_state(job)}
    states |= {f"{node_name(pod)} ({pod.metadata.name})": pod_state(pod) for pod in pods}
    if not pods and (complaints := cluster.warnings(name)):
        states["Kubernetes"] = f"says {complaints[-1]}"
    return states


def _failure(cluster: Cluster, job: dict[str, Any], said: dict[str, str]) -> str:
    """Why a TrainJob failed, on one line: what it says, the pod that failed first, and the line that tells."""
    name = job["metadata"]["name"]
    parts = [f"the TrainJob {name} {job_state(job)}"]
    first = first_failed(cluster.pods(name))
    if first is not None:
        parts.append(f"{node_name(first)} ({first.metadata.name}) {pod_state(first)}")
        parts.append(telling_line(cluster.log_tail(first.metadata.name, _TAIL_LINES)))
    else:  # its pods never ran, or are gone: the last that was known of them
        parts += [f"{what} {state}" for what, state in said.items() if not what.startswith("TrainJob")]
        parts += cluster.warnings(name)
    parts.append("run this step again to go on from the last checkpoint")
    return "; ".join(dict.fromkeys(part for part in parts if part))


def _adopt(cluster: Cluster, found: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    name, owners = found["metadata"]["name"], job["metadata"].get("ownerReferences", [])
    logger.info("found the TrainJob %s of an earlier attempt: going on with it", name)
    if not owners or owners == found["metadata"].get("ownerReferences"):
        return found
    return cluster.set_owner(name, owners[0])


def _check_same(found: dict[str, Any], job: dict[str, Any]) -> None:
    name, expected = job["metadata"]["name"], job["metadata"]["annotations"][SPEC_ANNOTATION]
    there = found["metadata"].get("annotations", {}).get(SPEC_ANNOTATION)
    if there != expected:
        raise ClusterError(
            f"found a TrainJob {name} with another specification ({SPEC_ANNOTATION} {str(there)[:12]}, expected "
            f"{expected[:12]}) that writes to the same address: wait for it, delete it (kubectl delete trainjob "
            f"{name}), or give another output"
        )


def _wait_until_gone(cluster: Cluster, job: dict[str, Any]) -> None:
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    logger.info("waiting until the TrainJob %s is deleted", name)
    deadline = time.monotonic() + GONE_SECONDS
    now: dict[str, Any] | None = job
    while now is not None and now["metadata"]["uid"] == uid:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the TrainJob {name} is still being deleted after {GONE_SECONDS:.0f} s: see what holds it with "
                f"kubectl describe trainjob {name}, then run this step again"
            )
        cluster.wait_for_change(now, LOOK_SECONDS)
        now = cluster.get(name)


def _cancel(cluster: Cluster, name: str, signal_name: str) -> None:
    try:
        cluster.delete_at_once(name)
    except ClusterError as error:
        logger.error("%s: the TrainJob %s is left (%s): kubectl delete trainjob %s", signal_name, name, error, name)
    else:
        logger.warning("%s: the TrainJob %s is deleted; its checkpoints are kept", signal_name, name)

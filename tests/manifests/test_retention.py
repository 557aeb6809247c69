"""What is deleted after how long: the lifecycle documents for buckets, and the job for stores without such rules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.bucket import LifecycleRuleAbortIncompleteMultipartUpload, LifecycleRuleDelete

from components.common.storage import open_store
from components.preflight.config import RunOptions
from pipelines.environment import OBJECT_STORE_KEYS, STORAGE_VARIABLE
from tests.manifests.rendering import MANIFESTS, Object, find, pod_templates
from tests.servers import S3Server

RUN = RunOptions(storage_uri="gs://bucket/textual-inversion")
BUCKET = "gs://bucket/"


def document(name: str) -> dict[str, Any]:
    return json.loads((MANIFESTS / "retention" / name).read_text(encoding="utf-8"))


def prefixes() -> dict[str, dict[str, int]]:
    """For each document, the days after which objects below a prefix are deleted."""
    return {
        "gcs.json": {
            prefix: rule["condition"]["age"]
            for rule in document("gcs.json")["rule"]
            if rule["action"]["type"] == "Delete"
            for prefix in rule["condition"]["matchesPrefix"]
        },
        "s3.json": {
            rule["Filter"]["Prefix"]: rule["Expiration"]["Days"]
            for rule in document("s3.json")["Rules"]
            if "Expiration" in rule
        },
    }


@pytest.mark.parametrize("name", ["gcs.json", "s3.json"])
def test_checkpoints_and_artifacts_of_runs_expire(name: str, gke: list[Object]):
    days = prefixes()[name]
    [launcher] = find(gke, "ConfigMap", "kfp-launcher")
    root = launcher["data"]["defaultPipelineRoot"].split("/", 3)[3]
    assert set(days) == {f"{RUN.checkpoints_uri.removeprefix(BUCKET)}/", f"{root}/textual-inversion/"}
    assert min(days.values()) >= 30, "a training that waits or is repeated finds its checkpoint"


@pytest.mark.parametrize("name", ["gcs.json", "s3.json"])
@pytest.mark.parametrize("kept", [RUN.models_uri, RUN.registry_uri])
def test_models_and_registry_stay(name: str, kept: str):
    key = f"{kept.removeprefix(BUCKET)}/anything"
    assert not [prefix for prefix in prefixes()[name] if key.startswith(prefix)]


def test_object_store_of_kfp_takes_the_document(s3_server: S3Server):
    client = boto3.client(
        "s3",
        endpoint_url=s3_server.url,
        region_name="us-east-1",
        aws_access_key_id=s3_server.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_server.environment["AWS_SECRET_ACCESS_KEY"],
    )
    given = document("s3.json")
    client.put_bucket_lifecycle_configuration(Bucket=s3_server.bucket, LifecycleConfiguration=given)
    stored = client.get_bucket_lifecycle_configuration(Bucket=s3_server.bucket)["Rules"]
    client.delete_bucket_lifecycle(Bucket=s3_server.bucket)
    client.close()
    assert stored == given["Rules"]


def test_google_s_client_reads_the_document():
    client = storage.Client(project="none", credentials=AnonymousCredentials())
    bucket = client.bucket("bucket")
    bucket.lifecycle_rules = document("gcs.json")["rule"]
    checkpoints, artifacts, broken = bucket.lifecycle_rules
    for rule in (checkpoints, artifacts):
        assert isinstance(rule, LifecycleRuleDelete)
        assert rule["condition"].keys() == {"age", "matchesPrefix"}
    assert isinstance(broken, LifecycleRuleAbortIncompleteMultipartUpload)


CHECKPOINT = f"{'0123456789abcdef' * 4}/step-00000500.safetensors"


def test_job_looks_where_runs_keep_their_checkpoints(on_prem: list[Object], dev: list[Object]):
    for objects in (on_prem, dev):
        [environment] = find(objects, "ConfigMap", "textual-inversion-environment")
        storage_uri = environment["data"][STORAGE_VARIABLE]
        assert f"--checkpoint-root={RunOptions(storage_uri=storage_uri).checkpoints_uri}" in job_command(objects, {})


def test_job_starts_when_the_settings_say(objects: list[Object]):
    for job in find(objects, "CronJob"):
        [settings] = find(objects, "ConfigMap", "textual-inversion-retention")
        assert job["spec"]["schedule"] == settings["data"]["SCHEDULE"] == "17 3 * * *"
        assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_bucket_with_rules_of_its_own_has_no_job(gke: list[Object]):
    assert not find(gke, "CronJob")


@pytest.mark.parametrize(("dry_run", "left"), [("true", True), ("false", False)])
def test_job_deletes_what_is_old_unless_told_not_to(on_prem: list[Object], tmp_path: Path, dry_run: str, left: bool):
    file = tmp_path / "checkpoints" / CHECKPOINT
    file.parent.mkdir(parents=True)
    file.write_bytes(b"old")
    os.utime(file, (time.time() - 31 * 86400,) * 2)

    log = run_job(on_prem, **{STORAGE_VARIABLE: str(tmp_path)}, DRY_RUN=dry_run)

    assert "1 trainings, 1 checkpoints expired" in log
    assert file.exists() == left


def test_job_keeps_what_is_young_in_kfp_s_object_store(on_prem: list[Object], s3_bucket_uri: str, s3_server: S3Server):
    store = open_store(f"{s3_bucket_uri}/checkpoints")
    store.write(CHECKPOINT, b"young")
    given = s3_server.environment
    secret = {key: given[variable] for key, variable in OBJECT_STORE_KEYS.items()}

    log = run_job(on_prem, secret, **{STORAGE_VARIABLE: s3_bucket_uri, "AWS_ENDPOINT_URL": given["AWS_ENDPOINT_URL"]})

    assert f"{s3_bucket_uri}/checkpoints: 1 trainings, 0 checkpoints expired" in log
    assert store.exists(CHECKPOINT)


def run_job(objects: list[Object], secret: dict[str, str] | None = None, **settings: str) -> str:
    """What the job logs when it runs as its pod would, with some settings changed and a secret where it names one."""
    environment = {"PATH": os.environ["PATH"], **job_environment(objects, secret or {}), **settings}
    done = subprocess.run(
        [sys.executable, *job_command(objects, settings)[1:]],
        cwd=MANIFESTS.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def job_command(objects: list[Object], settings: dict[str, str]) -> list[str]:
    """The command and arguments of the job's container, with its variables, or those of `settings`, filled in."""
    container = job_container(objects)
    environment = job_environment(objects, {}) | settings
    command = container["command"] + container["args"]
    assert command[0] == "python"
    return [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], part) for part in command]


def job_container(objects: list[Object]) -> dict[str, Any]:
    [(_, template)] = pod_templates(find(objects, "CronJob")[0])
    [container] = template["spec"]["containers"]
    return container


def job_environment(objects: list[Object], secret: dict[str, str]) -> dict[str, str]:
    """The variables of the job's container, where there is a secret with these keys."""
    container = job_container(objects)
    environment: dict[str, str] = {}
    for source in container["envFrom"]:
        [found] = find(objects, "ConfigMap", source["configMapRef"]["name"])
        environment |= found["data"]
    for each in container["env"]:
        source = each["valueFrom"]
        if "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            [found] = find(objects, "ConfigMap", reference["name"])
            environment[each["name"]] = found["data"][reference["key"]]
        elif source["secretKeyRef"]["key"] in secret:
            environment[each["name"]] = secret[source["secretKeyRef"]["key"]]
    return environment

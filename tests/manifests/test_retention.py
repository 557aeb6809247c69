"""What is deleted after how long: the lifecycle documents for buckets."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.bucket import LifecycleRuleAbortIncompleteMultipartUpload, LifecycleRuleDelete

from components.preflight.config import RunConfig
from tests.manifests.rendering import MANIFESTS, Object, find
from tests.servers import S3Server

RUN = RunConfig(storage_uri="gs://bucket/textual-inversion")
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

"""The rights of the account for CI are those that the commands ask Kubeflow Pipelines for, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.pipelines.cluster.backend import KfpServer, node
from tests.pipelines.cluster.conftest import Command
from tests.pipelines.cluster.test_commands import PICTURES

ROLE = Path(__file__).parents[3] / "manifests" / "components" / "ci" / "role.yaml"
RIGHTS = {
    r"GET .*/healthz": None,
    r"GET .*/pipelines(/[^/]+/versions)?": ("pipelines", "list"),
    r"POST .*/pipelines(/upload_version)?": ("pipelines", "create"),
    r"GET .*/experiments": ("experiments", "list"),
    r"POST .*/experiments": ("experiments", "create"),
    r"GET .*/runs": ("runs", "list"),
    r"POST .*/runs": ("runs", "create"),
    r"GET .*/runs/[^/]+": ("runs", "get"),
    r"GET .*/runs/[^/]+/nodes/[^/]+/log": None,
    r"POST .*/runs/[^/]+:terminate": ("runs", "terminate"),
    r"GET .*/recurringruns": ("jobs", "list"),
    r"POST .*/recurringruns": ("jobs", "create"),
    r"POST .*/recurringruns/[^/]+:enable": ("jobs", "enable"),
    r"DELETE .*/recurringruns/[^/]+": ("jobs", "delete"),
}
"""Resource and verb that Kubeflow Pipelines' API server (backend/src/apiserver/server) asks for, by request."""


def right_for(method: str, path: str) -> tuple[str, str] | None:
    [found] = [right for pattern, right in RIGHTS.items() if re.fullmatch(pattern, f"{method} {path}")]
    return found


def test_account_for_ci_has_the_rights_that_the_commands_need_alone(kfp_server: KfpServer, command: Command):
    assert command("submit", *PICTURES, "--name", "cats") == 0
    assert command("schedule", *PICTURES, "--every", "1d") == 0
    assert command("unschedule", "cat-toy") == 0
    [run_id] = kfp_server.runs
    failed = node("train", "Failed")
    kfp_server.set_workflow(run_id, [failed])
    kfp_server.logs[f"wf-abc-system-container-impl-{failed['id'].rpartition('-')[2]}"] = "no luck"
    assert command("logs", "cats") == 0
    assert command("cancel", "cats") == 0
    needed = {right_for(*request) for request in kfp_server.requests} - {None}
    role, binding = yaml.safe_load_all(ROLE.read_text(encoding="utf-8"))
    granted = {(name, verb) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}
    assert granted == needed
    assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"pipelines.kubeflow.org"}
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "textual-inversion-ci", "namespace": "textual-inversion"}
    ]

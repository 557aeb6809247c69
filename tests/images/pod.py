"""What Kubeflow Pipelines runs in a step's pod: the command of the compiled pipeline, with an executor input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from components.common.options import Config
from pipelines.compiling import COMPILED

PIPELINE: dict[str, Any] = next(yaml.safe_load_all((COMPILED / "textual_inversion.yaml").read_text(encoding="utf-8")))
"""The committed specification of the pipeline."""

OUTPUT = "/tmp/kfp_outputs/output_metadata.json"
"""Where KFP has the values and metadata written that a step gives."""


def pod_command(
    step: str,
    told: Config | Mapping[str, Any],
    artifacts: Mapping[str, str] | None = None,
    *,
    output: str = OUTPUT,
    **parameters: Any,
) -> list[str]:
    """The command of a step's container.

    Args:
        step: the step's name.
        told: the step's config; for preflight, its parameters.
        artifacts: addresses of its input and output artifacts, by name.
        output: the file for the values and metadata that the step gives.
        parameters: values of further input parameters; the others have their defaults.
    """
    name = step.replace("_", "-")
    container = PIPELINE["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    values = {"config": told.to_json(), **parameters} if isinstance(told, Config) else {**told, **parameters}
    given = json.dumps(_executor_input(PIPELINE["components"][f"comp-{name}"], values, artifacts or {}, output))
    return [word.replace("{{$}}", given) for word in (*container["command"], *container["args"])]


def _executor_input(
    component: Mapping[str, Any], parameters: Mapping[str, Any], artifacts: Mapping[str, str], output: str
) -> dict[str, Any]:
    inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
    known = inputs.get("parameters", {})
    assert set(parameters) <= set(known), set(parameters) - set(known)
    defaults = {name: known[name]["defaultValue"] for name in known if "defaultValue" in known[name]}
    return {
        "inputs": {
            "parameterValues": {**defaults, **parameters},
            "artifacts": _artifacts(inputs.get("artifacts", {}), artifacts),
        },
        "outputs": {
            "outputFile": output,
            "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in outputs.get("parameters", {})},
            "artifacts": _artifacts(outputs.get("artifacts", {}), artifacts),
        },
    }


def _artifacts(definitions: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"artifacts": [{"name": name, "type": definition["artifactType"], "uri": addresses[name]}]}
        for name, definition in definitions.items()
    }

"""The committed YAML: what depends on what, what is asked for, and what a person reads in the UI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components

from components.common.images import IMAGE_NAMES, image
from components.preflight.parameters import descriptions
from pipelines.compiling import CHOICES, COMPILED, compile_all
from pipelines.local_run import read_pipeline
from pipelines.parameters import default_parameters
from pipelines.presets import GUIDE_EXAMPLE

FILE = COMPILED / "textual_inversion.yaml"


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    return read_pipeline(FILE)


def tasks(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task by name, that of the conditional branch among them."""
    branches = [component["dag"]["tasks"] for component in pipeline["components"].values() if "dag" in component]
    found = dict(pipeline["root"]["dag"]["tasks"])
    for branch in branches:
        found |= branch
    return found


def inputs(pipeline: dict[str, Any], task: str) -> dict[str, str]:
    """Where each input artifact of a task comes from: `producer.output`."""
    artifacts = tasks(pipeline)[task]["inputs"].get("artifacts", {})
    found = {}
    for name, source in artifacts.items():
        if "taskOutputArtifact" in source:
            output = source["taskOutputArtifact"]
            found[name] = f"{output['producerTask']}.{output['outputArtifactKey']}"
        else:  # within the conditional branch
            producer, output = source["componentInputArtifact"].removeprefix("pipelinechannel--").rsplit("-", 1)
            found[name] = f"{producer}.{output}"
    return found


def executor(pipeline: dict[str, Any], task: str) -> dict[str, Any]:
    label = pipeline["components"][tasks(pipeline)[task]["componentRef"]["name"]]["executorLabel"]
    container: dict[str, Any] = pipeline["deploymentSpec"]["executors"][label]["container"]
    return container


def test_compiling_again_gives_the_committed_file(tmp_path: Path):
    (file,) = compile_all(tmp_path)
    assert file.read_text() == FILE.read_text(), "run `make compile` and commit what it writes"


def test_file_loads_as_a_pipeline_of_kfp():
    loaded = components.load_component_from_file(str(FILE))
    assert loaded.name == "textual-inversion"
    assert dict(loaded.pipeline_spec.root.input_definitions.parameters)["accelerator"].literals[0].string_value == "cpu"


def test_artifacts_flow_from_step_to_step(pipeline: dict[str, Any]):
    assert inputs(pipeline, "init-embedding") == {"base_model": "import-base-model.reference"}
    assert inputs(pipeline, "encode-latents") == {
        "image_set": "ingest-images.image_set",
        "base_model": "import-base-model.reference",
    }
    assert inputs(pipeline, "train-torch") == {
        "latent_set": "encode-latents.latent_set",
        "base_model": "import-base-model.reference",
        "initial_embedding": "init-embedding.initial_embedding",
    }
    assert inputs(pipeline, "evaluate") == {
        "base_model": "import-base-model.reference",
        "scorer": "import-base-model-2.reference",
        "initial_embedding": "init-embedding.initial_embedding",
        "learned_embedding": "train-torch.learned_embedding",
        "scoring_set": "ingest-images-2.image_set",
    }
    assert inputs(pipeline, "publish") == {
        "base_model": "import-base-model.reference",
        "learned_embedding": "train-torch.learned_embedding",
        "evaluation": "evaluate.evaluation",
    }


def test_every_reader_of_a_source_is_given_its_fingerprint_by_preflight(pipeline: dict[str, Any]):
    expected = {
        ("import-base-model", "source_fingerprint"): "base_model_fingerprint",
        ("import-base-model-2", "source_fingerprint"): "scorer_fingerprint",
        ("ingest-images", "images_fingerprint"): "images_fingerprint",
        ("ingest-images-2", "images_fingerprint"): "scoring_images_fingerprint",
    }
    for (task, parameter), output in expected.items():
        source = tasks(pipeline)[task]["inputs"]["parameters"][parameter]["taskOutputParameter"]
        assert source == {"producerTask": "preflight", "outputParameterKey": output}


def test_publishing_waits_for_the_gate(pipeline: dict[str, Any]):
    (branch,) = [task for task in tasks(pipeline).values() if "condition" in task.get("triggerPolicy", {})]
    condition = branch["triggerPolicy"]["condition"].replace("\n", " ")
    assert condition == "inputs.parameter_values['pipelinechannel--evaluate-Output'] == 'pass'"
    assert "publish" not in pipeline["root"]["dag"]["tasks"]


def test_run_id_is_the_bare_placeholder(pipeline: dict[str, Any]):
    assert tasks(pipeline)["publish"]["inputs"]["parameters"]["run_id"] == {
        "runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}
    }


def test_only_preflight_and_publishing_are_never_answered_from_the_cache(pipeline: dict[str, Any]):
    steps = {name: task for name, task in tasks(pipeline).items() if "condition" not in task.get("triggerPolicy", {})}
    uncached = {name for name, task in steps.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {"preflight", "publish"}


def test_every_step_but_preflight_is_tried_again(pipeline: dict[str, Any]):
    steps = {name: task for name, task in tasks(pipeline).items() if "condition" not in task.get("triggerPolicy", {})}
    assert {name for name, task in steps.items() if "retryPolicy" not in task} == {"preflight"}


@pytest.mark.parametrize("task", ["encode-latents", "train-torch", "evaluate"])
def test_accelerator_is_given_by_parameters(pipeline: dict[str, Any], task: str):
    accelerator = executor(pipeline, task)["resources"]["accelerator"]
    assert "accelerator_count" in accelerator["resourceCount"]
    assert "accelerator_resource" in accelerator["resourceType"]


def test_every_step_has_limits_a_title_and_an_image_that_is_built(pipeline: dict[str, Any]):
    for name, task in tasks(pipeline).items():
        if "condition" in task.get("triggerPolicy", {}):
            continue
        container = executor(pipeline, name)
        assert container["image"] in [image(known) for known in IMAGE_NAMES]
        for limit in ("resourceCpuLimit", "resourceCpuRequest", "resourceMemoryLimit", "resourceMemoryRequest"):
            assert container["resources"][limit], f"{name}: {limit}"
        assert task["taskInfo"]["name"] != name, f"{name} has no title"


def test_defaults_are_the_guides_example(pipeline: dict[str, Any]):
    assert default_parameters(pipeline) == dict(GUIDE_EXAMPLE)


def test_every_parameter_is_described_and_only_the_storage_has_no_default(pipeline: dict[str, Any]):
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert {name: entry["description"] for name, entry in parameters.items()} == descriptions()
    assert [name for name, entry in parameters.items() if "defaultValue" not in entry] == ["storage_uri"]


def test_choices_are_drop_down_lists_that_hold_the_default(pipeline: dict[str, Any]):
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    found = {name: tuple(entry["literals"]) for name, entry in parameters.items() if "literals" in entry}
    assert found == CHOICES
    for name, values in found.items():
        assert parameters[name]["defaultValue"] in values


def test_every_parameter_reaches_preflight(pipeline: dict[str, Any]):
    given = tasks(pipeline)["preflight"]["inputs"]["parameters"]
    assert {name: source["componentInputParameter"] for name, source in given.items()} == {
        name: name for name in descriptions()
    }


def test_source_of_the_steps_can_be_read_in_the_file():
    assert "\n          def train_torch(\n" in FILE.read_text()


def test_file_is_plain_yaml_of_the_pipeline_and_of_what_is_for_kubernetes_alone():
    pipeline, platform = yaml.safe_load_all(FILE.read_text())
    assert pipeline["schemaVersion"] and list(platform["platforms"]) == ["kubernetes"]

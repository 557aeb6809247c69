"""The committed YAML: what depends on what, what is asked for, and what a person reads in the UI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from components.preflight.parameters import NODES, TRAINING, descriptions
from kfp import components

from components.common.accelerators import SHARED_MEMORY
from components.common.images import IMAGE_NAMES, image
from pipelines.compiling import CHOICES, COMPILED, compile_all
from pipelines.local_run import read_pipeline
from pipelines.parameters import default_parameters
from pipelines.presets import GUIDE_EXAMPLE
from pipelines.resources import TAINTS
from pipelines.summary import OUTPUTS

FILE = COMPILED / "textual_inversion.yaml"
TRAINERS = ("launch-trainjob", "train-flax", "train-torch")


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    return read_pipeline(FILE)


def tasks(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task by name, those of conditional branches among them."""
    branches = [component["dag"]["tasks"] for component in pipeline["components"].values() if "dag" in component]
    found = dict(pipeline["root"]["dag"]["tasks"])
    for branch in branches:
        found |= branch
    return found


def steps(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks that are steps, not groups of steps."""
    groups = ("condition-", "exit-handler-")
    return {name: task for name, task in tasks(pipeline).items() if not name.startswith(groups)}


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
    for train in TRAINERS:
        assert inputs(pipeline, train) == {
            "latent_set": "encode-latents.latent_set",
            "base_model": "import-base-model.reference",
            "initial_embedding": "init-embedding.initial_embedding",
        }
    assert inputs(pipeline, "evaluate") == {
        "base_model": "import-base-model.reference",
        "scorer": "import-base-model-2.reference",
        "initial_embedding": "init-embedding.initial_embedding",
        "learned_embedding": "choose-embedding.learned_embedding",
        "scoring_set": "ingest-images-2.image_set",
    }
    assert inputs(pipeline, "publish") == {
        "base_model": "import-base-model.reference",
        "learned_embedding": "choose-embedding.learned_embedding",
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
        channel = tasks(pipeline)[task]["inputs"]["parameters"][parameter]["componentInputParameter"]
        source = tasks(pipeline)["exit-handler-1"]["inputs"]["parameters"][channel]["taskOutputParameter"]
        assert source == {"producerTask": "preflight", "outputParameterKey": output}


def test_publishing_waits_for_the_gate(pipeline: dict[str, Any]):
    assert condition_of(pipeline, "publish") == "inputs.parameter_values['pipelinechannel--evaluate-Output'] == 'pass'"


def condition_of(pipeline: dict[str, Any], step: str) -> str:
    """When the branch is taken that the step is in."""
    [within] = [name for name, c in pipeline["components"].items() if step in c.get("dag", {}).get("tasks", {})]
    [branch] = [task for task in tasks(pipeline).values() if task["componentRef"]["name"] == within]
    condition: str = branch["triggerPolicy"]["condition"]
    return " ".join(condition.split())


def test_accelerator_and_number_of_nodes_decide_who_trains(pipeline: dict[str, Any]):
    on_tpus = "inputs.parameter_values['pipelinechannel--accelerator'] == 'tpu'"
    on_many_nodes = "int(inputs.parameter_values['pipelinechannel--num_nodes']) > 1"
    assert condition_of(pipeline, "launch-trainjob") == on_many_nodes, "TPUs too"
    assert condition_of(pipeline, "train-flax") == f"!({on_many_nodes}) && {on_tpus}"
    assert condition_of(pipeline, "train-torch") == f"!({on_many_nodes}) && !({on_tpus})"


def test_launched_training_is_given_what_a_step_would_be(pipeline: dict[str, Any]):
    launched, trained = (tasks(pipeline)[name]["inputs"]["parameters"] for name in ("launch-trainjob", "train-torch"))
    for name in (*TRAINING.fields, "checkpoint_root", "accelerator"):
        assert launched[name] == trained[name]
    assert {*NODES.fields.values(), "accelerator_count", "accelerator_resource"} <= launched.keys()
    assert launched["timeout_seconds"]["componentInputParameter"].endswith("trainjob_timeout_seconds")


def test_embedding_is_that_of_the_trainer_that_ran(pipeline: dict[str, Any]):
    uri = tasks(pipeline)["choose-embedding"]["inputs"]["parameters"]["uri"]["taskOutputParameter"]
    branches = pipeline["components"][tasks(pipeline)[uri["producerTask"]]["componentRef"]["name"]]["dag"]
    [choice] = branches["outputs"]["parameters"].values()
    selected = [selector["outputParameterKey"] for selector in choice["valueFromOneof"]["parameterSelectors"]]
    assert selected == [f"pipelinechannel--{step}-Output" for step in TRAINERS]


def test_preflight_decides_where_pictures_are_encoded(pipeline: dict[str, Any]):
    given = tasks(pipeline)["encode-latents"]["inputs"]["parameters"]["accelerator"]
    assert given == {"componentInputParameter": "pipelinechannel--preflight-encoding_accelerator"}


def test_run_id_is_the_bare_placeholder(pipeline: dict[str, Any]):
    assert tasks(pipeline)["publish"]["inputs"]["parameters"]["run_id"] == {
        "runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}
    }


def test_trainjobs_of_the_run_are_removed_however_it_ends(pipeline: dict[str, Any]):
    at_the_top = pipeline["root"]["dag"]["tasks"]
    assert at_the_top.keys() == {"preflight", "exit-handler-1", "remove-trainjobs"}
    cleaning = at_the_top["remove-trainjobs"]
    assert cleaning["dependentTasks"] == ["exit-handler-1"]
    assert cleaning["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert cleaning["inputs"]["parameters"]["run_id"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}


def test_summary_is_made_from_what_steps_give(pipeline: dict[str, Any]):
    for task, artifact in OUTPUTS.values():
        component = pipeline["components"][tasks(pipeline)[task]["componentRef"]["name"]]
        assert artifact in component["outputDefinitions"]["artifacts"]


def test_only_what_looks_at_the_world_is_never_answered_from_the_cache(pipeline: dict[str, Any]):
    uncached = {name for name, task in steps(pipeline).items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {"preflight", "publish", "remove-trainjobs"}


def test_every_step_but_preflight_is_tried_again(pipeline: dict[str, Any]):
    assert {name for name, task in steps(pipeline).items() if "retryPolicy" not in task} == {"preflight"}


TRAINING_POD = ("accelerator_count", "preflight-accelerator_resource", "accelerator_node_selector")
ENCODING_POD = tuple(
    f"preflight-encoding_{what}" for what in ("accelerator_count", "accelerator_resource", "node_selector")
)
SAMPLING_POD = (
    "preflight-evaluation_accelerator_count",
    "preflight-accelerator_resource",
    "preflight-evaluation_node_selector",
)


@pytest.mark.parametrize(
    ("task", "count", "resource", "nodes"),
    [
        ("encode-latents", *ENCODING_POD),
        ("train-flax", *TRAINING_POD),
        ("train-torch", *TRAINING_POD),
        ("evaluate", *SAMPLING_POD),
    ],
)
def test_accelerator_and_its_nodes_are_given_when_a_run_starts(
    pipeline: dict[str, Any], task: str, count: str, resource: str, nodes: str
):
    accelerator = executor(pipeline, task)["resources"]["accelerator"]
    assert accelerator["resourceCount"] == f"{{{{$.inputs.parameters['pipelinechannel--{count}']}}}}"
    assert accelerator["resourceType"] == f"{{{{$.inputs.parameters['pipelinechannel--{resource}']}}}}"
    asked = kubernetes_of(pipeline, task)
    assert asked["nodeSelector"]["nodeSelectorJson"] == {"componentInputParameter": f"pipelinechannel--{nodes}"}
    *usual, more = asked["tolerations"]
    assert usual == [{"key": taint, "operator": "Exists"} for taint in TAINTS]
    assert "accelerator_tolerations" in more["tolerationJson"]["componentInputParameter"]


def test_only_steps_with_accelerators_are_bound_to_nodes():
    bound = {"exec-encode-latents", "exec-train-flax", "exec-train-torch", "exec-evaluate"}
    assert {label for label, asked in kubernetes().items() if "nodeSelector" in asked} == bound


def test_training_pod_has_the_size_that_is_given_and_memory_for_its_processes_to_talk(pipeline: dict[str, Any]):
    for task in ("train-flax", "train-torch"):
        resources = executor(pipeline, task)["resources"]
        for kind, parameter in (("Cpu", "cpu_per_node"), ("Memory", "memory_per_node")):
            given = f"{{{{$.inputs.parameters['pipelinechannel--{parameter}']}}}}"
            assert resources[f"resource{kind}Limit"] == resources[f"resource{kind}Request"] == given
    mounted = {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": SHARED_MEMORY}
    assert kubernetes_of(pipeline, "train-torch")["emptyDirMounts"] == [mounted]


def test_no_pod_runs_for_ever(pipeline: dict[str, Any]):
    longest = {name: int(kubernetes_of(pipeline, name)["activeDeadlineSeconds"]) for name in steps(pipeline)}
    assert min(longest.values()) >= 3600
    assert longest["train-torch"] == longest["train-flax"] > longest["evaluate"]
    trainjobs = pipeline["root"]["inputDefinitions"]["parameters"]["trainjob_timeout_seconds"]["defaultValue"]
    assert longest["launch-trainjob"] > 2 * trainjobs


def test_step_is_tried_again_however_long_its_first_attempt_took(pipeline: dict[str, Any]):
    for name, task in steps(pipeline).items():
        if policy := task.get("retryPolicy"):
            attempts = 1 + policy["maxRetryCount"]
            longest = attempts * int(kubernetes_of(pipeline, name)["activeDeadlineSeconds"])
            assert int(policy["backoffMaxDuration"].removesuffix("s")) > longest, name


def kubernetes_of(pipeline: dict[str, Any], task: str) -> dict[str, Any]:
    """What a task asks of Kubernetes."""
    label = pipeline["components"][tasks(pipeline)[task]["componentRef"]["name"]]["executorLabel"]
    asked: dict[str, Any] = kubernetes()[label]
    return asked


def kubernetes() -> dict[str, Any]:
    """What the pipeline asks of Kubernetes by executor, in the file's second document."""
    _, platform = yaml.safe_load_all(FILE.read_text())
    executors: dict[str, Any] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return executors


def test_every_step_has_limits_a_title_and_an_image_that_is_built(pipeline: dict[str, Any]):
    for name, task in steps(pipeline).items():
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

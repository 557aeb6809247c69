"""The committed YAML: what depends on what, what is asked for, and what a person reads in the UI."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components

from components.common.accelerators import SHARED_MEMORY
from components.common.errors import ConfigError
from components.common.images import IMAGE_NAMES, TRAINING_IMAGES, image
from components.preflight.options import known_options
from components.preflight.preflight import Checked
from pipelines.backend_rules import problems, requests_that_do_not_fit, shape_problems
from pipelines.compiled_graph import RUNS_IF_TOLD, graphs
from pipelines.compiling import COMPILED, check_for_a_backend, compile_all
from pipelines.form import MORE_OPTIONS
from pipelines.local_run import read_pipeline
from pipelines.presets import GUIDE_EXAMPLE
from pipelines.readme import README, with_pipeline
from pipelines.resources import TAINTS

FILE = COMPILED / "textual_inversion.yaml"
LONGEST_NAME = 22
"""Characters of a step's name that the UI shows."""
LONGEST_DESCRIPTION = 900
"""Characters of which a window 700 pixels high shows all: its card grows upwards and cannot be scrolled."""


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    return read_pipeline(FILE)


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILE.read_text()))


def tasks(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task by name."""
    found: dict[str, dict[str, Any]] = pipeline["root"]["dag"]["tasks"]
    return found


def inputs(pipeline: dict[str, Any], task: str) -> dict[str, str]:
    """Where each input artifact of a task comes from: `producer.output`."""
    artifacts = tasks(pipeline)[task]["inputs"].get("artifacts", {})
    outputs = {name: source["taskOutputArtifact"] for name, source in artifacts.items()}
    return {name: f"{output['producerTask']}.{output['outputArtifactKey']}" for name, output in outputs.items()}


def told(pipeline: dict[str, Any], task: str) -> dict[str, str]:
    """Which of preflight's outputs each input parameter of a task is."""
    parameters = tasks(pipeline)[task]["inputs"].get("parameters", {})
    outputs = {name: source.get("taskOutputParameter", {}) for name, source in parameters.items()}
    return {
        name: output["outputParameterKey"]
        for name, output in outputs.items()
        if output.get("producerTask") == "preflight"
    }


def executor(pipeline: dict[str, Any], task: str) -> dict[str, Any]:
    label = pipeline["components"][tasks(pipeline)[task]["componentRef"]["name"]]["executorLabel"]
    container: dict[str, Any] = pipeline["deploymentSpec"]["executors"][label]["container"]
    return container


def test_compiling_again_gives_the_committed_file(tmp_path: Path):
    for file in compile_all(tmp_path):
        assert file.read_text() == (COMPILED / file.name).read_text(), "run `make compile` and commit what it writes"


def test_readme_shows_the_graph_and_the_options_of_the_committed_file():
    readme = README.read_text()
    assert with_pipeline(readme) == readme, "run `make compile` and commit what it writes"


def test_a_backend_takes_the_file(documents: list[dict[str, Any]]):
    assert problems(documents) == []
    assert shape_problems(documents) == []


def test_what_a_backend_would_stop_is_not_compiled(documents: list[dict[str, Any]]):
    check_for_a_backend(documents)
    damaged = copy.deepcopy(documents)
    del damaged[0]["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"]["pipelinechannel--preflight-training_cpu"]
    with pytest.raises(ConfigError, match=r"task 'train'.*training_cpu"):
        check_for_a_backend(damaged)


def test_every_request_that_is_a_constant_fits_a_small_node(documents: list[dict[str, Any]]):
    assert requests_that_do_not_fit(documents, cpu=2, memory_gib=4) == []


def test_file_loads_as_a_pipeline_of_kfp():
    loaded = components.load_component_from_file(str(FILE))
    assert loaded.name == "textual-inversion"
    assert dict(loaded.pipeline_spec.root.input_definitions.parameters)["accelerator"].literals[0].string_value == "cpu"


def test_artifacts_flow_from_step_to_step(pipeline: dict[str, Any]):
    assert inputs(pipeline, "encode-latents") == {
        "image_set": "ingest-images.image_set",
        "base_model": "import-base-model.reference",
    }
    assert inputs(pipeline, "find-start-word") == {
        "image_set": "ingest-images.image_set",
        "latent_set": "encode-latents.latent_set",
        "base_model": "import-base-model.reference",
        "scorer": "import-base-model-2.reference",
    }
    assert inputs(pipeline, "init-embedding") == {
        "base_model": "import-base-model.reference",
        "start_word": "find-start-word.start_word",
    }
    assert inputs(pipeline, "train") == {
        "latent_set": "encode-latents.latent_set",
        "base_model": "import-base-model.reference",
        "initial_embedding": "init-embedding.initial_embedding",
    }
    assert inputs(pipeline, "evaluate") == {
        "base_model": "import-base-model.reference",
        "scorer": "import-base-model-2.reference",
        "initial_embedding": "init-embedding.initial_embedding",
        "learned_embedding": "train.learned_embedding",
        "scoring_set": "ingest-images-2.image_set",
        "start_word": "find-start-word.start_word",
        "training_set": "ingest-images.image_set",
    }
    assert inputs(pipeline, "publish") == {
        "base_model": "import-base-model.reference",
        "learned_embedding": "train.learned_embedding",
        "evaluation": "evaluate.evaluation",
    }


def test_graph_is_flat_and_small(pipeline: dict[str, Any]):
    assert len(tasks(pipeline)) == 11
    assert not [name for name, component in pipeline["components"].items() if "dag" in component]


def test_run_ends_after_preflight_where_that_tells_the_steps_nothing(documents: list[dict[str, Any]]):
    (root,) = graphs(documents)
    found = {name: task.condition for name, task in root.tasks.items() if task.condition}
    assert found == dict.fromkeys(
        ("import-base-model", "import-base-model-2", "ingest-images", "ingest-images-2"), RUNS_IF_TOLD
    )
    gate = root.tasks["ingest-images"].gate
    assert gate == (RUNS_IF_TOLD, ("preflight",))
    assert root.ends_at(gate)
    for name in found:
        half = copy.deepcopy(documents)
        del half[0]["root"]["dag"]["tasks"][name]["triggerPolicy"]
        assert any("runs only if" in problem for problem in problems(half)), "a run of which a part goes on"


def test_every_step_is_told_its_config_by_preflight(pipeline: dict[str, Any]):
    configs = {name: told(pipeline, name)["config"] for name in tasks(pipeline) if name != "preflight"}
    assert configs == {
        "import-base-model": "import_base_model",
        "import-base-model-2": "import_scorer",
        "ingest-images": "prepare_pictures",
        "ingest-images-2": "prepare_scoring_set",
        "encode-latents": "encode_pictures",
        "find-start-word": "find_the_start_word",
        "init-embedding": "add_the_new_word",
        "train": "train",
        "evaluate": "sample_and_score",
        "publish": "publish",
    }


def test_preflight_gives_what_its_result_has(pipeline: dict[str, Any]):
    outputs = pipeline["components"]["comp-preflight"]["outputDefinitions"]["parameters"]
    assert set(outputs) == set(Checked.__dataclass_fields__)


def test_run_id_is_the_bare_placeholder(pipeline: dict[str, Any]):
    assert tasks(pipeline)["publish"]["inputs"]["parameters"]["run_id"] == {
        "runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}
    }


def test_only_what_looks_at_the_world_is_never_answered_from_the_cache(pipeline: dict[str, Any]):
    uncached = {name for name, task in tasks(pipeline).items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {"preflight", "publish"}


def test_every_step_is_tried_again_when_its_pod_was_refused_or_deleted(pipeline: dict[str, Any]):
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks(pipeline).values()} == {2}


PODS = {"encode-latents": "encoding", "find-start-word": "encoding", "train": "training", "evaluate": "evaluation"}


@pytest.mark.parametrize("task", PODS)
def test_pod_with_a_model_asks_for_what_preflight_has_found(pipeline: dict[str, Any], task: str):
    def given(what: str) -> str:
        return f"{{{{$.inputs.parameters['pipelinechannel--preflight-{PODS[task]}_{what}']}}}}"

    resources = executor(pipeline, task)["resources"]
    for kind, what in (("Cpu", "cpu"), ("Memory", "memory")):
        assert resources[f"resource{kind}Limit"] == resources[f"resource{kind}Request"] == given(what)
    assert resources["accelerator"]["resourceCount"] == given("accelerator_count")
    assert resources["accelerator"]["resourceType"] == given("accelerator")
    asked = kubernetes_of(pipeline, task)
    selector = {"producerTask": "preflight", "outputParameterKey": f"{PODS[task]}_node_selector"}
    assert asked["nodeSelector"]["nodeSelectorJson"] == {"taskOutputParameter": selector}
    *usual, more = asked["tolerations"]
    assert usual == [{"key": taint, "operator": "Exists"} for taint in TAINTS]
    assert more["tolerationJson"]["taskOutputParameter"]["outputParameterKey"] == "tolerations"


def test_only_steps_with_models_are_bound_to_nodes(pipeline: dict[str, Any]):
    bound = {pipeline["components"][tasks(pipeline)[name]["componentRef"]["name"]]["executorLabel"] for name in PODS}
    assert {label for label, asked in kubernetes().items() if "nodeSelector" in asked} == bound


def test_preflight_chooses_what_trains_and_its_processes_have_memory_to_talk(pipeline: dict[str, Any]):
    image_of_training = "{{$.inputs.parameters['pipelinechannel--preflight-training_image']}}"
    assert executor(pipeline, "train")["image"] == image_of_training
    mounted = {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": SHARED_MEMORY}
    assert kubernetes_of(pipeline, "train")["emptyDirMounts"] == [mounted]


def test_no_pod_runs_for_ever(pipeline: dict[str, Any]):
    longest = {name: int(kubernetes_of(pipeline, name)["activeDeadlineSeconds"]) for name in tasks(pipeline)}
    assert min(longest.values()) >= 3600
    assert longest["train"] > longest["evaluate"]
    assert longest["train"] > 2 * known_options()["trainjob_timeout_seconds"].default


def test_step_is_tried_again_however_long_its_first_attempt_took(pipeline: dict[str, Any]):
    for name, task in tasks(pipeline).items():
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
    for name, task in tasks(pipeline).items():
        container = executor(pipeline, name)
        assert name == "train" or container["image"] in [image(known) for known in IMAGE_NAMES]
        for limit in ("resourceCpuLimit", "resourceCpuRequest", "resourceMemoryLimit", "resourceMemoryRequest"):
            assert container["resources"][limit], f"{name}: {limit}"
        assert task["taskInfo"]["name"] != name, f"{name} has no title"
        assert len(task["taskInfo"]["name"]) <= LONGEST_NAME


def form(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = pipeline["root"]["inputDefinitions"]["parameters"]
    return found


def test_form_has_about_twenty_fields_that_hold_the_guides_example(pipeline: dict[str, Any]):
    assert 18 <= len(form(pipeline)) <= 24
    held = {name: entry["defaultValue"] for name, entry in form(pipeline).items()}
    more = held.pop(MORE_OPTIONS)
    assert {**GUIDE_EXAMPLE, **held, **more} == dict(GUIDE_EXAMPLE)
    assert more == {"lr_warmup_steps": 0}, "the others are the configs' own defaults"


def test_every_field_is_described_and_may_be_left_as_it_is(pipeline: dict[str, Any]):
    for name, entry in form(pipeline).items():
        expected = known_options()[name].option.description if name != MORE_OPTIONS else entry["description"]
        assert entry["description"] == expected
        assert "defaultValue" in entry or entry["isOptional"]


def test_choices_and_booleans_are_drop_down_lists_that_hold_the_default(pipeline: dict[str, Any]):
    for name, entry in form(pipeline).items():
        known = known_options().get(name)
        if known and known.option.choices:
            assert entry["literals"] == list(known.option.choices)
        assert ("literals" in entry) == bool(known and (known.option.choices or known.type is bool)), name
        assert entry["defaultValue"] in entry.get("literals", [entry["defaultValue"]])


def test_types_of_the_form_are_those_of_the_options(pipeline: dict[str, Any]):
    types = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN", tuple[str, ...]: "LIST"}
    for name, entry in form(pipeline).items():
        hint = known_options()[name].type if name != MORE_OPTIONS else None
        assert entry["parameterType"] == types.get(hint, "STRUCT"), name


def test_every_field_of_the_form_reaches_preflight(pipeline: dict[str, Any]):
    given = dict(tasks(pipeline)["preflight"]["inputs"]["parameters"])
    images = given.pop("training_images")["runtimeValue"]["constant"]
    assert images == {name: image(name) for name in TRAINING_IMAGES}, "of the release that was compiled"
    assert {name: source["componentInputParameter"] for name, source in given.items()} == {
        name: name for name in form(pipeline)
    }


def test_description_is_short_enough_for_the_card_of_the_ui(pipeline: dict[str, Any]):
    description = FILE.with_suffix(".md").read_text()
    assert len(description) < LONGEST_DESCRIPTION and "| " not in description
    assert {"images_uri", "placeholder_token", "initializer_token", "storage_uri", "accelerator"} <= set(form(pipeline))
    assert not [name for name in re.findall(r"`([a-z]+_[a-z_]+)`", description) if name not in form(pipeline)]


def test_source_of_the_steps_can_be_read_in_the_file():
    assert "\n          def train(\n" in FILE.read_text()


def test_file_is_plain_yaml_of_the_pipeline_and_of_what_is_for_kubernetes_alone():
    pipeline, platform = yaml.safe_load_all(FILE.read_text())
    assert pipeline["schemaVersion"] and list(platform["platforms"]) == ["kubernetes"]

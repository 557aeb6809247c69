"""The options of a run and their checks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from components.common.errors import ConfigError
from components.preflight.config import STORAGE_VARIABLE, RunOptions
from components.preflight.options import GROUPS, CheckedOptions, check_options, defaults, known_options

REQUIRED = {"storage_uri": "gs://bucket/ti", "placeholder_token": "<cat-toy>", "initializer_token": "toy"}


def checked(**changes: Any) -> CheckedOptions:
    return check_options({**REQUIRED, **changes})


def check_parameters(given: dict[str, Any]) -> RunOptions:
    return check_options(given).run


def parameters(**changes: Any) -> dict[str, Any]:
    return {**REQUIRED, **changes}


def test_every_field_of_every_group_is_an_option_of_its_own_with_a_description():
    options = known_options()
    assert len(options) == sum(len(dataclasses.fields(group)) for group in GROUPS)
    assert all(known.option.description.strip() for known in options.values())


def test_defaults_pass_the_checks():
    run = check_parameters(parameters())
    assert run.registry_uri == "gs://bucket/ti/registry"
    assert run.models_uri == "gs://bucket/ti/models"
    assert run.checkpoints_uri == "gs://bucket/ti/checkpoints"


def test_slash_at_the_end_of_storage_uri_changes_nothing():
    assert check_parameters(parameters(storage_uri="gs://bucket/ti/")).models_uri == "gs://bucket/ti/models"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accelerator", "npu"),
        ("accelerator_count", "one"),
        ("accelerator_count", 0),
        ("accelerator_count", True),
        ("accelerator_resource", "gpu"),
        ("accelerator_resource", "google.com/tpu"),
        ("accelerator_node_selector", {"pool": 1}),
        ("accelerator_tolerations", ["dedicated"]),
        ("base_model", " "),
        ("evaluation_guidance_scale", -1.0),
        ("evaluation_node_selector", {"pool": 1}),
        ("evaluation_prompts", ["no place for it"]),
        ("images_uri", ""),
        ("interpolation", "cubist"),
        ("learnable_property", "mood"),
        ("learning_rate", 0.0),
        ("lr_scheduler", "sometimes"),
        ("mixed_precision", "fp8"),
        ("num_vectors", 0),
        ("placeholder_token", "cat toy"),
        ("registry_alias", "7"),
        ("resolution", 0),
        ("scorer", ""),
        ("storage_uri", ""),
        ("storage_uri", " gs://bucket/ti"),
        ("cpu_per_node", "four"),
        ("encoding_memory", "16GB"),
        ("evaluation_cpu", "-1"),
        ("framework", "tensorflow"),
        ("train_batch_size", 0),
        ("trainjob_timeout_seconds", 0),
    ],
)
def test_check_names_the_parameter_whose_value_cannot_be_right(name: str, value: Any):
    with pytest.raises(ConfigError, match=rf"(^|; ){name}: found"):
        check_parameters(parameters(**{name: value}))


TPU = {"accelerator": "tpu", "accelerator_count": 4, "train_batch_size": 4}
TOPOLOGY = "cloud.google.com/gke-tpu-topology"


def test_resource_is_that_of_the_accelerator_where_none_is_given():
    def resource(**changes: Any) -> str:
        return check_parameters(parameters(**changes)).training_pod.kubernetes_resource

    assert resource() == "nvidia.com/gpu"
    assert resource(accelerator_resource="amd.com/gpu") == "amd.com/gpu"
    assert resource(**TPU) == "google.com/tpu"
    assert resource(accelerator="cpu") == "nvidia.com/gpu"  # asked for zero times


def test_slice_of_one_node_is_taken_whole():
    selector = {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice", TOPOLOGY: "2x2"}
    run = check_parameters(parameters(**TPU, accelerator_node_selector=selector))
    assert run.training_pod.count == run.evaluation_pod.count == 4
    assert run.evaluation_pod.node_selector == selector


@pytest.mark.parametrize(("changes", "one"), [({"accelerator_count": 8}, 1), ({"accelerator": "cpu"}, 0)])
def test_one_gpu_encodes_pictures_and_draws_samples_whatever_trains(changes: dict[str, Any], one: int):
    nodes = {"accelerator_node_selector": {"pool": "training"}, "evaluation_node_selector": {"pool": "small"}}
    run = check_parameters(parameters(**changes, **nodes))
    assert run.training_pod.count == changes.get("accelerator_count", 0)
    assert (run.encoding_pod.count, run.encoding_pod.node_selector) == (one, {"pool": "training"})
    assert (run.evaluation_pod.count, run.evaluation_pod.node_selector) == (one, {"pool": "small"})


def test_pictures_for_tpus_are_encoded_on_any_cpu():
    run = check_parameters(parameters(**TPU, accelerator_node_selector={TOPOLOGY: "2x2"}))
    assert (run.encoding_pod.kind, run.encoding_pod.resources, run.encoding_pod.node_selector) == ("cpu", {}, {})


def test_slice_of_several_nodes_trains_and_one_of_one_node_draws_samples():
    several = {**TPU, "num_nodes": 4, "accelerator_node_selector": {TOPOLOGY: "4x4"}}
    run = check_parameters(parameters(**several, evaluation_node_selector={TOPOLOGY: "2x4"}))
    assert (run.training_pod.count, run.evaluation_pod.count) == (4, 8)
    with pytest.raises(ConfigError, match="evaluation_node_selector: found nothing with accelerator tpu on 4 nodes"):
        check_parameters(parameters(**several))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"accelerator_resource": "nvidia.com/gpu"}, "accelerator_resource: found nvidia.com/gpu .* google.com/tpu"),
        (
            {"accelerator_node_selector": {TOPOLOGY: "4x4"}},
            "num_nodes, accelerator_count: found 1 x 4 for a slice of 4x4, .* 16 chips",
        ),
        (
            {
                "num_nodes": 2,
                "accelerator_node_selector": {TOPOLOGY: "4x4"},
                "evaluation_node_selector": {TOPOLOGY: "2x2"},
            },
            "num_nodes, accelerator_count: found 2 x 4 for a slice of 4x4, .* 16 chips",
        ),
        ({"mixed_precision": "fp16"}, "mixed_precision: found fp16 with accelerator tpu, expected bf16"),
        (
            {"enable_xformers_memory_efficient_attention": True},
            "efficient_attention: found True, .* with Flax",
        ),
        ({"cuda_graphs": True}, "cuda_graphs: found True, expected False with Flax"),
        ({"train_batch_size": 3, "gradient_accumulation_steps": 2}, "train_batch_size: found 3 x 2 .* multiple of 4"),
        ({"train_batch_size": 2, "gradient_accumulation_steps": 2, "fuse_micro_batches": False}, "found 2 at once"),
    ],
)
def test_what_tpus_cannot_do_is_refused(changes: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        check_parameters(parameters(**{**TPU, **changes}))


def test_accumulated_samples_are_shared_among_the_chips():
    check_parameters(parameters(**{**TPU, "train_batch_size": 1, "gradient_accumulation_steps": 4}))


def test_defaults_are_values_of_their_own_each_time():
    defaults()["accelerator_node_selector"]["pool"] = "mine"
    assert defaults()["accelerator_node_selector"] == {}


def test_check_names_the_mistakes_of_all_groups_at_once():
    with pytest.raises(ConfigError) as caught:
        checked(learning_rate=0.0, resolution=0, evaluation_seed=-1, lerning_rate=1, adam_beta1=2)
    named = [mistake.partition(":")[0] for mistake in caught.value.mistakes]
    assert sorted(named) == ["adam_beta1", "evaluation_seed", "learning_rate", "lerning_rate", "resolution"]


def test_how_a_training_is_watched_is_told_to_its_step():
    step = checked(validation_prompt="a {} on a hill", report_to="all").training_step(cpu="4", memory="16Gi")
    assert step.watching.prompt_for("<cat-toy>") == "a <cat-toy> on a hill" and step.watching.draws
    assert not checked(validation_prompt="a {}", validation_steps=0).watching.draws
    assert not checked().watching.draws and checked().watching.writes_event_files


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"validation_prompt": "a cat"}, r"validation_prompt: found 'a cat', expected a prompt with \{\} or <cat-toy>"),
        ({"report_to": "none", "logging_dir": "gs://b/l"}, "logging_dir: found 'gs://b/l' with report_to none"),
        ({"report_to": "mlflow"}, "report_to: found 'mlflow', expected one of none, tensorboard, wandb, comet_ml, all"),
    ],
)
def test_watching_that_cannot_be_is_refused(changes: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        checked(**changes)


def test_unknown_option_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ConfigError, match=r"learning_rat: there is no such option; did you mean learning_rate\?"):
        checked(learning_rat=1.0)


def test_option_that_is_missing_is_named_with_what_it_means():
    with pytest.raises(ConfigError, match="initializer_token: found nothing, expected a word of one token"):
        check_options({"storage_uri": "gs://bucket/ti", "placeholder_token": "<x>"})


def test_storage_is_that_of_the_namespace_where_none_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(STORAGE_VARIABLE, "s3://mlpipeline/ti")
    assert checked(storage_uri="").run.registry_uri == "s3://mlpipeline/ti/registry"
    assert checked().run.registry_uri == "gs://bucket/ti/registry"
    monkeypatch.delenv(STORAGE_VARIABLE)
    with pytest.raises(ConfigError, match=f"storage_uri: found nothing.* {STORAGE_VARIABLE} in its config map"):
        checked(storage_uri="")


def test_more_options_are_options_but_none_that_is_on_the_form():
    options = check_options(REQUIRED, {"log_steps": 7.0, "evaluation_guidance_scale": 5})
    assert (options.training.log_steps, options.evaluation.guidance_scale) == (7, 5.0)
    with pytest.raises(ConfigError, match="more_options: found initializer_token there and on the form"):
        check_options(REQUIRED, {"initializer_token": "cat"})


@pytest.mark.parametrize(
    ("framework", "accelerator", "name"),
    [("auto", "cpu", "torch"), ("auto", "gpu", "torch"), ("auto", "tpu", "flax"), ("flax", "gpu", "flax")],
)
def test_framework_is_that_of_the_accelerator_or_the_one_that_is_given(framework: str, accelerator: str, name: str):
    assert checked(framework=framework, accelerator=accelerator).framework == name


def test_torch_is_refused_on_tpus():
    with pytest.raises(ConfigError, match="framework: found torch with accelerator tpu, expected auto or flax"):
        checked(framework="torch", accelerator="tpu")


def test_nodes_are_told_to_the_training_step_when_there_are_several():
    assert checked().training_step(cpu="4", memory="16Gi").nodes is None
    nodes = checked(num_nodes=2, queue="team").training_step(cpu="4", memory="16Gi").nodes
    assert nodes is not None and (nodes.num_nodes, nodes.queue, nodes.memory_per_node) == (2, "team", "16Gi")


@pytest.mark.parametrize("name", [{"concept_name": "Größe"}, {"placeholder_token": "<größe>"}])
def test_concept_that_the_hub_takes_for_no_name_needs_a_repository(name: dict[str, str]):
    with pytest.raises(ConfigError, match=r"hub_model_id: found nothing for the concept '.*größe'"):
        checked(**{key: value.lower() for key, value in name.items()}, push_to_hub=True)
    assert checked(**name, push_to_hub=True, hub_model_id="team/size").destinations.hub_model_id == "team/size"

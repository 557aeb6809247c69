"""The pipeline's parameters and their checks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from components.common.errors import ConfigError
from components.preflight.parameters import (
    EVALUATION,
    GROUPS,
    REGISTRY,
    check_parameters,
    complete_parameters,
    descriptions,
    fields_of,
)

REQUIRED = {"storage_uri": "gs://bucket/ti", "placeholder_token": "<cat-toy>", "initializer_token": "toy"}


def parameters(**changes: Any) -> dict[str, Any]:
    return complete_parameters({**REQUIRED, **changes})


def test_every_parameter_has_a_description_and_is_a_field_of_its_config():
    for group in GROUPS:
        fields = {field.name for field in dataclasses.fields(group.config)}
        for name, field in group.fields.items():
            assert field in fields, name
            assert descriptions()[name].strip(), name


def test_no_two_groups_claim_one_name():
    assert len(descriptions()) == sum(len(group.fields) for group in GROUPS)


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
        ("accelerator_count", "0"),
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
        ("train_batch_size", 0),
        ("trainjob_timeout_seconds", 0),
    ],
)
def test_check_names_the_parameter_whose_value_cannot_be_right(name: str, value: Any):
    with pytest.raises(ConfigError, match=rf"(^|; ){name}: found"):
        check_parameters(parameters(**{name: value}))


TPU = {"accelerator": "tpu", "accelerator_count": "4", "train_batch_size": 4}
TOPOLOGY = "cloud.google.com/gke-tpu-topology"


def test_resource_is_that_of_the_accelerator_where_none_is_given():
    def resource(**changes: Any) -> str:
        return check_parameters(parameters(**changes)).training_pod.kubernetes_resource

    assert resource() == "nvidia.com/gpu"
    assert resource(accelerator_resource="amd.com/gpu") == "amd.com/gpu"
    assert resource(**TPU) == "google.com/tpu"
    assert resource(accelerator="cpu", accelerator_count="0") == "nvidia.com/gpu"  # asked for zero times


def test_slice_of_one_node_is_taken_whole():
    selector = {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice", TOPOLOGY: "2x2"}
    run = check_parameters(parameters(**TPU, accelerator_node_selector=selector))
    assert run.training_pod.count == run.evaluation_pod.count == 4
    assert run.evaluation_pod.node_selector == selector


@pytest.mark.parametrize(
    ("changes", "one"), [({"accelerator_count": "8"}, 1), ({"accelerator": "cpu", "accelerator_count": "0"}, 0)]
)
def test_one_gpu_encodes_pictures_and_draws_samples_whatever_trains(changes: dict[str, Any], one: int):
    nodes = {"accelerator_node_selector": {"pool": "training"}, "evaluation_node_selector": {"pool": "small"}}
    run = check_parameters(parameters(**changes, **nodes))
    assert run.training_pod.count == int(changes["accelerator_count"])
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
        ({"enable_xformers_memory_efficient_attention": True}, "efficient_attention: found True with accelerator tpu"),
        ({"cuda_graphs": True}, "cuda_graphs: found True with accelerator tpu"),
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
    parameters()["accelerator_node_selector"]["pool"] = "mine"
    assert parameters()["accelerator_node_selector"] == {}


def test_check_names_the_mistakes_of_all_groups_at_once():
    with pytest.raises(ConfigError) as caught:
        check_parameters(parameters(learning_rate=0.0, resolution=0, evaluation_seed=-1))
    for name in ("learning_rate", "resolution", "evaluation_seed"):
        assert f"{name}: found" in str(caught.value)


def test_unknown_parameter_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ConfigError, match=r"no parameter learning_rat \(did you mean learning_rate\?\)"):
        parameters(learning_rat=1.0)


def test_missing_parameter_is_named_with_what_it_means():
    with pytest.raises(ConfigError, match="storage_uri: found nothing, expected folder"):
        complete_parameters({"placeholder_token": "<x>", "initializer_token": "toy"})


def test_fields_of_gives_the_names_of_the_step():
    given = parameters(seed=1, evaluation_seed=2, registry_alias="best")
    assert fields_of(EVALUATION, given)["seed"] == 2
    assert fields_of(REGISTRY, given) == {"concept_name": "", "alias": "best"}

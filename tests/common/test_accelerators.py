from __future__ import annotations

import pytest

from components.common.accelerators import RESOURCES, TPU_TOPOLOGY, PodAccelerators
from components.common.errors import ConfigError


def test_cpu_asks_for_nothing() -> None:
    pod = PodAccelerators(kind="cpu", count=0)
    assert (pod.resources, pod.shared_memory) == ({}, None)
    assert [each["key"] for each in pod.all_tolerations] == ["cloud.google.com/gke-spot"]


@pytest.mark.parametrize(("kind", "resource"), [("gpu", "nvidia.com/gpu"), ("tpu", "google.com/tpu")])
def test_kind_has_its_resource_and_tolerates_its_nodes(kind: str, resource: str) -> None:
    pod = PodAccelerators(kind=kind, count=4)
    assert pod.resources == {resource: "4"}
    assert pod.all_tolerations == [
        {"key": resource, "operator": "Exists"},
        {"key": "cloud.google.com/gke-spot", "operator": "Exists"},
    ]


def test_other_resource_of_a_gpu_is_taken() -> None:
    pod = PodAccelerators(kind="gpu", count=2, resource="nvidia.com/mig-1g.10gb")
    assert pod.resources == {"nvidia.com/mig-1g.10gb": "2"}
    assert pod.all_tolerations[0]["key"] == "nvidia.com/mig-1g.10gb"


def test_seconds_of_a_toleration_are_whole_numbers() -> None:
    given = {"key": "dedicated", "operator": "Exists", "tolerationSeconds": 300.0}
    (_, _, own) = PodAccelerators(kind="gpu", tolerations=[given]).all_tolerations
    assert own == {**given, "tolerationSeconds": 300} and isinstance(own["tolerationSeconds"], int)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "npu"}, "accelerator: found 'npu', expected one of cpu, gpu, tpu"),
        ({"kind": "gpu", "count": 0}, "accelerator_count: found 0 with gpu, expected 1 or more"),
        ({"kind": "gpu", "count": -1}, "accelerator_count: found -1 with gpu"),
        ({"kind": "cpu", "count": 1}, "accelerator_count: found 1 with cpu, expected 0"),
        ({"kind": "gpu", "resource": "gpu"}, "accelerator_resource: found 'gpu', expected a name such as nvidia.com/"),
        (
            {"kind": "tpu", "resource": RESOURCES["gpu"]},
            "accelerator_resource: found nvidia.com/gpu with accelerator tpu",
        ),
        (
            {"kind": "gpu", "resource": RESOURCES["tpu"]},
            "accelerator_resource: found google.com/tpu with accelerator gpu",
        ),
        ({"kind": "gpu", "node_selector": ["a"]}, "accelerator_node_selector: found"),
        ({"kind": "gpu", "node_selector": {"a": 1}}, "accelerator_node_selector: found"),
        ({"kind": "gpu", "tolerations": ["a"]}, "accelerator_tolerations: found"),
    ],
)
def test_what_cannot_be_right_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PodAccelerators(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("topology", "nodes"), [("2x2", 1), ("2x4", 2), ("4x4x4", 16)])
def test_nodes_are_the_whole_slice(topology: str, nodes: int) -> None:
    pod = PodAccelerators(kind="tpu", count=4, node_selector={TPU_TOPOLOGY: topology})
    pod.check_nodes(nodes)
    with pytest.raises(ConfigError, match=f"found {nodes + 1} x 4 for a slice of {topology}, which has {4 * nodes}"):
        pod.check_nodes(nodes + 1)
    PodAccelerators(kind="gpu", count=8).check_nodes(3)

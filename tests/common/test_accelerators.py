from __future__ import annotations

import pytest

from components.common.accelerators import KINDS, PodAccelerators
from components.common.errors import ConfigError


def test_cpu_asks_for_nothing() -> None:
    pod = PodAccelerators(kind="cpu", count=0)
    assert (pod.resources, pod.node_selector, pod.tolerations, pod.shared_memory) == ({}, {}, [], None)


@pytest.mark.parametrize(("kind", "resource"), [("gpu", "nvidia.com/gpu"), ("tpu", "google.com/tpu")])
def test_every_type_of_a_kind_can_be_chosen(kind: str, resource: str) -> None:
    for name in KINDS[kind].types:
        pod = PodAccelerators(kind=kind, count=4, type=name, topology="2x2" if kind == "tpu" else "")
        assert pod.resources == {resource: "4"}
        assert pod.node_selector[KINDS[kind].type_label] == name
        assert {each["key"] for each in pod.tolerations} == {resource}


def test_spot_nodes_are_asked_for_and_tolerated() -> None:
    pod = PodAccelerators(kind="cpu", count=0, spot=True)
    assert pod.node_selector == {"cloud.google.com/gke-spot": "true"}
    assert [each["key"] for each in pod.tolerations] == ["cloud.google.com/gke-spot"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "npu"}, "accelerator: found 'npu', expected one of cpu, gpu, tpu"),
        ({"kind": "gpu", "count": 0}, "accelerator_count: found 0 with gpu, expected 1 or more"),
        ({"kind": "gpu", "count": -1}, "accelerator_count: found -1 with gpu"),
        ({"kind": "cpu", "count": 1}, "accelerator_count: found 1 with cpu, expected 0"),
        ({"kind": "gpu", "type": "nvidia-l5"}, "accelerator_type: found 'nvidia-l5' with gpu, expected one of nvidia"),
        ({"kind": "cpu", "count": 0, "type": "n2"}, "accelerator_type: found 'n2' with cpu, expected nothing"),
        ({"kind": "gpu", "topology": "2x2"}, "accelerator_topology: found '2x2' with gpu, expected nothing"),
        ({"kind": "tpu", "topology": "2x2"}, "accelerator_type, accelerator_topology: found '' and '2x2'"),
        (
            {"kind": "tpu", "type": "tpu7x", "topology": "4"},
            "accelerator_type, accelerator_topology: found 'tpu7x' and",
        ),
        ({"kind": "tpu", "type": "tpu7x", "topology": "0x4"}, "accelerator_topology: found 'tpu7x' and '0x4'"),
    ],
)
def test_what_no_cluster_has_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PodAccelerators(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("topology", "nodes"), [("2x2", 1), ("2x4", 2), ("4x4x4", 16)])
def test_nodes_are_the_whole_slice(topology: str, nodes: int) -> None:
    pod = PodAccelerators(kind="tpu", count=4, type="tpu-v5p-slice", topology=topology)
    pod.check_nodes(nodes)
    with pytest.raises(ConfigError, match=f"num_nodes: found {nodes + 1} nodes of 4 TPU chips, expected {4 * nodes}"):
        pod.check_nodes(nodes + 1)
    PodAccelerators(kind="gpu", count=8).check_nodes(3)

"""Linear layers as 1x1 convolutions give what PyTorch's linear layers give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from components.torch_models import loading
from components.torch_models.cpu_linear import PointwiseLinear, onednn_is_faster, with_pointwise_linears
from components.torch_models.loading import load_text_encoder, load_unet

CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (3, 77, 64), (2, 5, 7, 64)])
def test_the_output_and_the_input_gradient_are_those_of_a_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=bias)
    inputs = torch.randn(shape, requires_grad=True)
    weights = torch.randn(*shape[:-1], 96)
    expected = linear(inputs)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), inputs)
    found = PointwiseLinear(linear)(inputs)
    (found_gradient,) = torch.autograd.grad((found * weights).sum(), inputs)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(found_gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_a_view_that_is_not_contiguous_is_taken_as_it_reads() -> None:
    linear = nn.Linear(8, 4)
    inputs = torch.randn(8, 6, 3).permute(2, 1, 0)
    assert torch.allclose(PointwiseLinear(linear)(inputs), linear(inputs), atol=1e-6)


def test_the_parameters_keep_their_names_and_are_the_same_tensors() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Sequential(nn.Linear(3, 2, bias=False)))
    before = dict(module.state_dict(keep_vars=True))
    with_pointwise_linears(module)
    after = dict(module.state_dict(keep_vars=True))
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)
    assert not any(isinstance(part, nn.Linear) for part in module.modules())


AMD, INTEL = (f"processor\t: 0\nvendor_id\t: {name}\nmodel name\t: x" for name in ("AuthenticAMD", "GenuineIntel"))
ARM = "processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(("processor", "faster"), [(AMD, True), (INTEL, False), (ARM, False), ("", False)])
def test_they_are_for_processors_that_mkl_leaves_without_avx_512(
    tiny_sd15: Path, monkeypatch: pytest.MonkeyPatch, processor: str, faster: bool
) -> None:
    assert onednn_is_faster(processor) == faster
    monkeypatch.setattr(loading, "this_processor", lambda: processor)
    for load in (load_text_encoder, load_unet):
        assert linears(load(tiny_sd15, dtype=torch.float32, device=CPU)) == {PointwiseLinear if faster else nn.Linear}
        assert linears(load(tiny_sd15, dtype=torch.bfloat16, device=CPU)) == {nn.Linear}


def linears(module: nn.Module) -> set[type]:
    return {type(part) for part in module.modules() if isinstance(part, nn.Linear | PointwiseLinear)}

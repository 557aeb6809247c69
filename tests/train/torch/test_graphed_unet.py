"""`cuda_graphs` changes how the UNet is carried out, not what is learned.

Recording takes a GPU. What can be recorded is known without: work that needs nothing of the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode

from components.common.errors import ConfigError
from components.common.training.config import TrainConfig
from components.train.torch.graphed_unet import GraphedUNet
from components.train.torch.models import prepared
from tests.flax_runs import make_micro_model

WIDTH = 32


@pytest.fixture(scope="module")
def micro_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_micro_model(tmp_path_factory.mktemp("model"))


def unet_and_inputs(model: Path, device: str) -> tuple[UNet2DConditionModel, tuple[torch.Tensor, ...]]:
    """The frozen UNet, and noisy latents, timestep and hidden states."""
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(model / "unet"))
        hidden_states = torch.randn(2, 77, WIDTH).requires_grad_()
        inputs = (torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), hidden_states)
    return unet.requires_grad_(False).eval(), inputs


class Devices(TorchDispatchMode):
    """Notes the devices of all tensors that operations take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves((args, kwargs, result))
        self.found += [leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return result


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_forward_and_backward_pass_need_nothing_of_the_host(
    micro_model: Path, gradient_checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a random generator's state cannot be read while kernels are recorded")

    unet, inputs = unet_and_inputs(micro_model, "meta")  # where a value that the host asks for is an error
    predict = prepared(unet, TrainConfig(gradient_checkpointing=gradient_checkpointing))
    monkeypatch.setattr(torch, "get_rng_state", refuse)
    with Devices() as devices:
        prediction = predict(*inputs)
        (gradient,) = torch.autograd.grad(prediction, inputs[2], torch.empty_like(prediction))
    assert gradient.shape == inputs[2].shape
    assert len(devices.found) > 1000 and set(devices.found) == {"meta"}


def test_recording_is_refused_when_there_is_no_gpu(micro_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"cuda_graphs: found a model on cpu.*choose accelerator=gpu"):
        GraphedUNet(unet_and_inputs(micro_model, "cpu")[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_replayed_gradient_is_that_of_the_unet(micro_model: Path) -> None:
    unet, inputs = unet_and_inputs(micro_model, "cuda")
    graphed = GraphedUNet(unet)
    for count in (2, 1, 1):  # the second size is recorded anew, then replayed on other values
        part = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in (x[:count] for x in inputs))
        part[2].requires_grad_()
        found = graphed(*part)
        (gradient,) = torch.autograd.grad(found.square().sum(), part[2])
        expected = unet(*part, return_dict=False)[0]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), part[2])[0])

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
from components.torch_models.conditioning import predict
from components.train.torch.graphed_unet import GraphedUNet
from components.train.torch.models import prepared
from tests.flax_runs import make_micro_model

Inputs = tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor]


@pytest.fixture(scope="module", params=["micro", "tiny_sdxl"])
def small_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "micro":
        return make_micro_model(tmp_path_factory.mktemp("model"))
    return request.getfixturevalue(request.param)


def unet_and_inputs(model: Path, device: str, count: int = 2) -> tuple[UNet2DConditionModel, Inputs]:
    """The frozen UNet, and noisy latents, timestep, text and time ids of some samples."""
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(model / "unet"))
        inputs = inputs_of(unet, count)
    return unet.requires_grad_(False).eval(), inputs


def inputs_of(unet: UNet2DConditionModel, count: int) -> Inputs:
    shapes = [(77, unet.config.cross_attention_dim)]
    if unet.config.addition_embed_type:
        shapes += [(unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim,)]
    text = tuple(torch.randn(count, *shape).requires_grad_() for shape in shapes)
    timestep = torch.tensor([10, 900])[:count]
    return torch.randn(count, 4, 8, 8), timestep, text, torch.full((count, 6), 16.0)


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
    small_model: Path, gradient_checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a random generator's state cannot be read while kernels are recorded")

    unet, inputs = unet_and_inputs(small_model, "meta")  # where a value that the host asks for is an error
    predict = prepared(unet, TrainConfig(gradient_checkpointing=gradient_checkpointing))
    monkeypatch.setattr(torch, "get_rng_state", refuse)
    with Devices() as devices:
        prediction = predict(*inputs)
        gradients = torch.autograd.grad(prediction, inputs[2], torch.empty_like(prediction))
    assert [each.shape for each in gradients] == [each.shape for each in inputs[2]]
    assert len(devices.found) > 1000 and set(devices.found) == {"meta"}


def test_recording_is_refused_when_there_is_no_gpu(small_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"cuda_graphs: found a model on cpu.*choose accelerator=gpu"):
        GraphedUNet(unet_and_inputs(small_model, "cpu")[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_replayed_gradient_is_that_of_the_unet(small_model: Path) -> None:
    unet, _ = unet_and_inputs(small_model, "cuda")
    graphed = GraphedUNet(unet)
    for count in (2, 1, 1):  # the second size is recorded anew, then replayed on other values
        with torch.device("cuda"):
            inputs = inputs_of(unet, count)
        found = graphed(*inputs)
        gradients = torch.autograd.grad(found.square().sum(), inputs[2])
        expected = predict(unet, *inputs)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), inputs[2]))

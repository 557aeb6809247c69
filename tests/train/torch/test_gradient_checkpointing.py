"""Gradient checkpointing keeps less for the backward pass, in all models, and gives the same gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.base_model import materialize, read_reference
from components.common.families import training_parts
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.torch_models.conditioning import Text
from components.train.torch.trainer import TorchTrainer
from tests.conftest import imported
from tests.torch_runs import frozen_models
from tests.train.torch.conftest import make_inputs

SAMPLES = 2


class Models:
    """The models of a trainer, as it has set them up, and what they are given in a step."""

    def __init__(self, inputs: dict[str, Path], *, gradient_checkpointing: bool) -> None:
        reference = read_reference(inputs["base_model"])
        model = materialize(reference, training_parts(reference.subfolders))
        embedding = InitialEmbedding.read(inputs["initial_embedding"])
        config = TrainConfig(gradient_checkpointing=gradient_checkpointing)
        prompt_ids = training_prompt_ids(load_tokenizers(model, embedding), embedding, "object")
        self.models = frozen_models(model, config)
        self.unet, self.text_encoders = self.models.unet, torch.nn.ModuleDict(self.models.text_encoders)
        self.rows = TorchTrainer(
            config=config,
            latent_set=LatentSet.read(inputs["latent_set"]),
            embedding=embedding,
            prompt_ids=prompt_ids,
            models=self.models,
        ).rows
        generator = torch.Generator().manual_seed(0)
        self._ids = {name: torch.from_numpy(ids[:SAMPLES]) for name, ids in prompt_ids.items()}
        self._noisy = torch.randn(SAMPLES, 4, 8, 8, generator=generator)
        self._time_ids = torch.full((SAMPLES, 6), 16.0)
        with torch.no_grad():
            text = self.encode()
        self.text = tuple(torch.randn(each.shape, generator=generator).requires_grad_() for each in text)

    def encode(self) -> Text:
        """Some prompts as the UNet takes them."""
        return self.models.encode(self._ids)

    def predict(self) -> Text:
        """The UNet's prediction given some prompts, alone."""
        return (self.models.predict(self._noisy, torch.tensor([10, 900]), self.text, self._time_ids),)


def kept_bytes(model: nn.Module, forward: Callable[[], Text]) -> tuple[int, Text]:
    """The bytes that a forward pass keeps for the backward pass, without the weights, and its output."""
    weights = {weight.untyped_storage().data_ptr() for weight in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    return sum(storage.nbytes() for storage in kept.values()), output


@pytest.fixture(scope="module", params=["tiny_sd15", "tiny_sdxl"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Models, Models]:
    """The same models without and with gradient checkpointing."""
    reference = imported(request.getfixturevalue(request.param), tmp_path_factory)
    inputs = make_inputs(tmp_path_factory.mktemp("inputs"), reference, side=16)
    return Models(inputs, gradient_checkpointing=False), Models(inputs, gradient_checkpointing=True)


def test_unet_keeps_less_for_same_gradient(models: tuple[Models, Models]) -> None:
    plain, saving = models
    more, expected = kept_bytes(plain.unet, plain.predict)
    less, found = kept_bytes(saving.unet, saving.predict)
    for (output,) in (expected, found):
        output.square().mean().backward()

    print(f"UNet: {more} bytes, with gradient checkpointing {less}")
    assert 0 < less < more / 4
    torch.testing.assert_close(found, expected)
    for each, other in zip(saving.text, plain.text, strict=True):
        assert other.grad is not None and other.grad.abs().max() > 0
        torch.testing.assert_close(each.grad, other.grad)


def test_text_encoders_keep_less_for_same_gradient(models: tuple[Models, Models]) -> None:
    plain, saving = models
    more, expected = kept_bytes(plain.text_encoders, plain.encode)
    less, found = kept_bytes(saving.text_encoders, saving.encode)
    for text in (expected, found):
        sum(each.square().mean() for each in text).backward()

    print(f"text encoders: {more} bytes, with gradient checkpointing {less}")
    assert 0 < less < more / 4
    torch.testing.assert_close(found, expected)
    for name, rows in plain.rows.items():
        assert rows.grad is not None and rows.grad.abs().max() > 0
        torch.testing.assert_close(saving.rows[name].grad, rows.grad)

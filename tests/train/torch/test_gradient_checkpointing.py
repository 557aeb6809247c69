"""Gradient checkpointing keeps less for the backward pass, in both models, and gives the same gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.base_model import materialize, read_reference
from components.common.training.config import TrainConfig
from components.common.training.prompt_ids import load_tokenizers, training_prompt_ids
from components.torch_models.loading import load_noise_scheduler, load_text_encoder, load_unet
from components.train.torch.models import FrozenModels
from components.train.torch.trainer import TorchTrainer
from tests.train.torch.conftest import make_inputs

CPU = torch.device("cpu")
SAMPLES = 2


class Models:
    """The two models of a trainer, as it has set them up, and what they are given in a step."""

    def __init__(self, folder: Path, reference: Path, *, gradient_checkpointing: bool) -> None:
        inputs = make_inputs(folder, reference)
        model = materialize(read_reference(reference), ["tokenizer", "text_encoder", "unet", "scheduler"])
        embedding = InitialEmbedding.read(inputs["initial_embedding"])
        self.text_encoder = load_text_encoder(model, dtype=torch.float32, device=CPU)
        self.unet = load_unet(model, dtype=torch.float32, device=CPU)
        prompt_ids = training_prompt_ids(load_tokenizers(model, embedding), embedding, "object")
        self.rows = TorchTrainer(
            config=TrainConfig(gradient_checkpointing=gradient_checkpointing),
            latent_set=LatentSet.read(inputs["latent_set"]),
            embedding=embedding,
            prompt_ids=prompt_ids,
            models=FrozenModels(
                TrainConfig(gradient_checkpointing=gradient_checkpointing),
                text_encoder=self.text_encoder,
                unet=self.unet,
                noise_scheduler=load_noise_scheduler(model),
                accelerator=Accelerator(cpu=True),
            ),
        ).rows
        generator = torch.Generator().manual_seed(0)
        self._ids = torch.from_numpy(prompt_ids[:SAMPLES])
        self._noisy = torch.randn(SAMPLES, 4, 8, 8, generator=generator)
        width = self.unet.config.cross_attention_dim
        self.hidden_states = torch.randn(SAMPLES, self._ids.shape[1], width, generator=generator).requires_grad_()

    def encode(self) -> torch.Tensor:
        """The hidden states of some prompts."""
        return self.text_encoder(self._ids)[0]

    def predict(self) -> torch.Tensor:
        """The UNet's prediction given some hidden states."""
        return self.unet(self._noisy, torch.tensor([10, 900]), self.hidden_states).sample


def kept_bytes(model: nn.Module, forward: Callable[[], torch.Tensor]) -> tuple[int, torch.Tensor]:
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


@pytest.fixture
def models(tmp_path: Path, tiny_reference: Path) -> tuple[Models, Models]:
    """The same models without and with gradient checkpointing."""
    plain, saving = tmp_path / "plain", tmp_path / "saving"
    return (
        Models(plain, tiny_reference, gradient_checkpointing=False),
        Models(saving, tiny_reference, gradient_checkpointing=True),
    )


def test_unet_keeps_less_for_same_gradient(models: tuple[Models, Models]) -> None:
    plain, saving = models
    more, expected = kept_bytes(plain.unet, plain.predict)
    less, found = kept_bytes(saving.unet, saving.predict)
    for output in (expected, found):
        output.square().mean().backward()

    print(f"UNet: {more} bytes, with gradient checkpointing {less}")
    assert 0 < less < more / 4
    torch.testing.assert_close(found, expected)
    assert plain.hidden_states.grad is not None and plain.hidden_states.grad.abs().max() > 0
    torch.testing.assert_close(saving.hidden_states.grad, plain.hidden_states.grad)


def test_text_encoder_keeps_less_for_same_gradient(models: tuple[Models, Models]) -> None:
    plain, saving = models
    more, expected = kept_bytes(plain.text_encoder, plain.encode)
    less, found = kept_bytes(saving.text_encoder, saving.encode)
    for output in (expected, found):
        output.square().mean().backward()

    print(f"text encoder: {more} bytes, with gradient checkpointing {less}")
    assert 0 < less < more / 4
    torch.testing.assert_close(found, expected)
    assert plain.rows.grad is not None and plain.rows.grad.abs().max() > 0
    torch.testing.assert_close(saving.rows.grad, plain.rows.grad)

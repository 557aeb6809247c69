"""Gradients of several text encoders' rows are shortened together, and turned along the sphere of each."""

from __future__ import annotations

import pytest
import torch

from components.common.training.config import TrainConfig
from components.train.torch.row_norms import controlled_gradients

WIDTHS = {"text_encoder": 32, "text_encoder_2": 48}


def random_rows(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, width, generator=generator) for name, width in WIDTHS.items()}


@pytest.mark.parametrize("longest", [1e-3, 1e3])
def test_norm_of_all_gradients_is_limited_as_torch_does(longest: float) -> None:
    rows, gradients = random_rows(0), random_rows(1)
    parameters = [torch.nn.Parameter(values) for values in rows.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, longest)
    found = controlled_gradients(TrainConfig(max_grad_norm=longest), gradients, rows)
    for parameter, gradient in zip(parameters, found.values(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_gradients_lie_along_the_sphere_of_their_own_rows() -> None:
    rows = random_rows(0)
    found = controlled_gradients(TrainConfig(norm_control="fixed"), random_rows(1), rows)
    for name, gradient in found.items():
        torch.testing.assert_close((gradient * rows[name]).sum(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
        assert gradient.abs().max() > 0.1

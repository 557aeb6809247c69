"""The norms of rows: the vocabulary's, and those that the trained rows are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from components.common.training.config import TrainConfig


def mean_vocabulary_norm(text_encoder: PreTrainedModel, vocabulary_size: int) -> float:
    """The mean Euclidean norm of the vocabulary's token embeddings."""
    table = text_encoder.get_input_embeddings().weight[:vocabulary_size]
    return torch.linalg.vector_norm(table.float(), dim=1).mean().item()


def controlled_gradients(
    config: TrainConfig, gradients: Mapping[str, torch.Tensor], rows: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The gradients of rows, float32 [n, d] by text encoder, as the optimizer takes them.

    Where rows keep their norm it is what is left along the sphere that they lie on (arXiv 2512.13672). Then all are
    shortened to `max_grad_norm`, the norm of all of them, as by `torch.nn.utils.clip_grad_norm_`.
    """
    found = dict(gradients)
    if config.norm_control == "fixed":
        found = {name: _along_sphere(gradient, rows[name]) for name, gradient in found.items()}
    if config.max_grad_norm:
        norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in found.values()]))
        shortened = (config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        found = {name: gradient * shortened for name, gradient in found.items()}
    return found


def norm_control(
    config: TrainConfig, norms: np.ndarray, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What gives rows, float32 [n, d], the norms that they are held to, float64 [n, 1]; see `wanted_norms`."""
    if config.norm_control == "cap":
        most = float(norms[0, 0])
        return lambda rows: torch.renorm(rows, p=2, dim=0, maxnorm=most)
    wanted = torch.from_numpy(norms).to(device, torch.float32)
    return lambda rows: rows * (wanted / torch.linalg.vector_norm(rows, dim=1, keepdim=True))


def _along_sphere(gradient: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    direction = nn.functional.normalize(rows, dim=1)
    return gradient - (gradient * direction).sum(dim=1, keepdim=True) * direction

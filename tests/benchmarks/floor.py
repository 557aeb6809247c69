"""The least time that a training sample can take: the operations it needs, at the speed of a large linear layer."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig

from components.torch_models.conditioning import encode_text, predict
from components.torch_models.cpu_linear import PointwiseLinear, onednn_is_faster, this_processor
from components.torch_models.loading import TEXT_ENCODERS
from components.torch_models.placeholder_rows import place_rows
from tests.torch_runs import family_in

REPEATS, ROUNDS = 4, 5


def flops_per_sample(model: Path, side: int) -> int:
    """Floating-point operations of all models, forward and back to the placeholder's rows, for `side` x `side` pixels.

    No weight has a gradient, and none is counted; so do the first layers of the UNet, before it sees the prompt, have
    no backward pass. Nothing is computed.
    """
    family = family_in(model)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(model / "unet")).requires_grad_(False)
        text_encoders, token_ids = {}, {}
        for part in (each.part for each in family.text_encoders):
            config = CLIPTextConfig.from_pretrained(model / part)
            text_encoders[part] = TEXT_ENCODERS[part](config)
            place_rows(text_encoders[part], torch.empty(1, config.hidden_size), config.vocab_size)
            token_ids[part] = torch.zeros(1, config.max_position_embeddings, dtype=torch.int64)
        latents = torch.empty(1, unet.config.in_channels, side // 8, side // 8)
        timestep, time_ids = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 6)
    with FlopCounterMode(display=False) as counter:
        text = encode_text(family, text_encoders, token_ids)
        predict(unet, latents, timestep, text, time_ids).sum().backward()
    return int(counter.get_total_flops())


def peak_flops(accelerator: str) -> float:
    """Floating-point operations a second in a linear layer: bf16 on a GPU, fp32 on a CPU; the best of some rounds."""
    device, dtype, side = ("cuda", torch.bfloat16, 8192) if accelerator == "gpu" else ("cpu", torch.float32, 2048)
    linear = nn.Linear(side, side, bias=False, device=device, dtype=dtype)
    inputs = torch.randn(side, side, device=device).to(dtype)
    layer = PointwiseLinear(linear) if accelerator == "cpu" and onednn_is_faster(this_processor()) else linear
    fastest = min(_seconds(layer, inputs) for _ in range(ROUNDS))
    return 2 * side**3 * REPEATS / fastest


@torch.no_grad()
def _seconds(layer: nn.Module, inputs: torch.Tensor) -> float:
    _wait_for(inputs)
    started = time.perf_counter()
    for _ in range(REPEATS):
        outputs = layer(inputs)
    _wait_for(outputs)
    return time.perf_counter() - started


def _wait_for(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()

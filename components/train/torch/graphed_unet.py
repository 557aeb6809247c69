"""The UNet's forward and backward pass as two CUDA graphs: kernels recorded once, then replayed.

At batch 1 launching the kernels takes a GPU longer than running them. They are PyTorch's own: those that torch.compile
writes by default (inductor, torch 2.13) gave a gradient that was off by 28% on a CPU. Recording needs a GPU; it has not
run on one yet, only what it relies on was tried without (tests/train/torch/test_graphed_unet.py).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from components.common.errors import ConfigError
from components.torch_models.conditioning import Text, predict

logger = logging.getLogger(__name__)


class GraphedUNet:
    """`predict` with one UNet; recorded at the first call of a shape.

    The weights are no inputs of the graphs: they are frozen and stay where they are, so the kernels find them at the
    addresses that were recorded, and a replay copies the other inputs alone. A call's result is overwritten by the next
    call: its backward pass has to come first.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        """Takes the frozen UNet.

        Raises:
            ConfigError: when it is on no GPU.
        """
        if unet.device.type != "cuda":
            raise ConfigError(
                f"cuda_graphs: found a model on {unet.device.type}, expected a GPU: turn the option off, or choose "
                "accelerator=gpu"
            )
        self._forward = functools.partial(predict, unet)
        self._shape: torch.Size | None = None
        self._recorded: Callable[..., Any]

    def __call__(
        self, noisy_latents: torch.Tensor, timestep: torch.Tensor, text: Text, time_ids: torch.Tensor
    ) -> torch.Tensor:
        """See `predict`.

        Raises:
            torch.OutOfMemoryError: when a first call's activations do not fit.
        """
        if noisy_latents.shape != self._shape:
            self._record(noisy_latents, timestep, text, time_ids)
        prediction: torch.Tensor = self._recorded(noisy_latents, timestep, text, time_ids)
        return prediction

    def _record(self, noisy_latents: torch.Tensor, timestep: torch.Tensor, text: Text, time_ids: torch.Tensor) -> None:
        logger.info("recording the UNet's kernels for %d samples at once", len(noisy_latents))
        self._shape = None
        self._recorded = self._forward  # gives back the memory of the shape before
        learned = tuple(each.detach().clone().requires_grad_() for each in text)
        inputs: tuple[Any, ...] = (noisy_latents.clone(), timestep.clone(), learned, time_ids.clone())
        with torch.enable_grad():
            # A function, not the module: of a module the parameters become inputs. It runs three times before it is
            # recorded, so running out of memory shows while nothing is being recorded.
            self._recorded = torch.cuda.make_graphed_callables(self._forward, inputs)
        self._shape = noisy_latents.shape

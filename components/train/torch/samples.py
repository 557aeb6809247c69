"""A batch of the sampling plan on the device: moved there once for each optimizer step, then cut into micro-batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from components.common.training.sampling_plan import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """b samples on a device, in the two arrays that a batch is moved as.

    Attributes:
        numbers: int64 [4, b]: picture, whether it is mirrored (0 or 1), template, timestep.
        noise: float32 [2, b, C, h, w]: the posterior's, and the one that the UNet is to predict.
    """

    numbers: torch.Tensor
    noise: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Samples:
        """The samples of `batch`, on their way to the device: the host does not wait for it.

        A GPU copies by itself from page-locked memory alone. PyTorch gives out such memory again only after the copies
        that were queued from it, so nothing has to be kept here (ATen/cuda/CachingHostAllocator.h: `copy_kernel_cuda`
        records an event in the copy's stream).
        """
        numbers = np.stack([batch.picture, batch.flipped, batch.template, batch.timestep])
        noise = np.stack([batch.posterior_noise, batch.diffusion_noise])
        return cls(numbers=_sent(numbers, device), noise=_sent(noise, device))

    def __len__(self) -> int:
        return self.numbers.shape[1]

    def part(self, chosen: slice) -> Samples:
        """Some of the samples, without a copy."""
        return Samples(numbers=self.numbers[:, chosen], noise=self.noise[:, chosen])


def _sent(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
